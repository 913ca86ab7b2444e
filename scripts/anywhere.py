"""Run the tests in many settings: versions, CPUs, threads, a busy machine, no graphics libraries.

Called by scripts/test_anywhere.sh, which says how. Every run appends a line to
scripts/anywhere.jsonl; the table in scripts/README.md is made from these lines.
"""

import argparse
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parents[1]
ENVIRONMENTS = ROOT / ".venvs"
RESULTS = ROOT / "scripts" / "anywhere.jsonl"
README = ROOT / "scripts" / "README.md"
MARKERS = "<!-- settings: made by scripts/test_anywhere.sh --table -->", "<!-- end of settings -->"
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
VERSIONS = {  # how uv resolves pyproject.toml
    "lowest": ["--resolution", "lowest-direct"],
    "pinned": ["-c", "constraints.txt"],
    "newest": ["--upgrade"],
}
SHOWN = ("torch", "triton", "numpy", "pyvista")
EVERYTHING = ("tests",)
# What computes: with other instructions or another number of threads this rounds otherwise
COMPUTES = (
    *("tests/ops", "tests/nn", "tests/train", "tests/metrics", "tests/transforms"),
    *("tests/distributed", "tests/datasets/test_generate_*.py"),
)
DRAWS = ("tests/viz", "tests/cli", "tests/mesh", "tests/test_examples.py")
WITHOUT_GRAPHICS = ("bash", "scripts/without_graphics.sh", "--hide")
NOTHING = {"passed": 0, "failed": 0, "skipped": 0}
CANNOT_EMULATE = 77  # the status of without_graphics.sh where no library can be hidden


@dataclass(frozen=True)
class Setting:
    """One row of the table: which environment, which variables, around which tests."""

    says: str
    versions: str = "pinned"
    python: str = "3.11"
    variables: dict[str, str] = field(default_factory=dict)
    wrapper: tuple[str, ...] = ()
    tests: tuple[str, ...] = EVERYTHING
    busy: int = 0


SETTINGS = {
    "lowest-3.11": Setting("the lowest versions that pyproject.toml allows", "lowest"),
    **{
        f"pinned-{python}": Setting("what scripts/test.sh installs", python=python)
        for python in PYTHONS
    },
    **{
        f"newest-{python}": Setting("what `pip install .` gives today", "newest", python)
        for python in PYTHONS
    },
    "cpu-lowest": Setting(
        "no vector instructions beyond SSE4",
        variables={
            "ATEN_CPU_CAPABILITY": "default",
            "ONEDNN_MAX_CPU_ISA": "SSE41",
            "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
        },
        tests=COMPUTES,
    ),
    "cpu-avx2": Setting(
        "AVX2, without AVX-512",
        variables={
            "ATEN_CPU_CAPABILITY": "avx2",
            "ONEDNN_MAX_CPU_ISA": "AVX2",
            "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        },
        tests=COMPUTES,
    ),
    "mkl-compatible": Setting(
        "MKL's code path for any CPU",
        variables={"MKL_CBWR": "COMPATIBLE"},
        tests=COMPUTES,
    ),
    "threads-1": Setting("one thread", variables={"OMP_NUM_THREADS": "1"}, tests=COMPUTES),
    "threads-2": Setting(
        "two threads",
        # Each process has two, on as many cores as there are processes: those that wait must sleep
        variables={"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE"},
        tests=COMPUTES,
    ),
    "busy": Setting("beside two busy loops", busy=2),
    **{
        f"no-{name}": Setting(f"without {says}", wrapper=(*WITHOUT_GRAPHICS, hide), tests=DRAWS)
        for name, hide, says in (
            ("graphics", "all", "any graphics library"),
            ("egl", "egl", "libEGL and libOSMesa"),
            ("x11", "x11", "libX11"),
        )
    },
}


class CannotRun(Exception):
    """A setting that this machine does not have; the message says why."""


def find_python(version: str) -> str:
    """Look for a Python of this version on the PATH and where pyenv and uv keep theirs."""
    given = os.environ.get(f"PYTHON_{version.replace('.', '')}")
    homes = [Path.home() / ".pyenv" / "versions", Path.home() / ".local/share/uv/python"]
    kept = [p for home in homes for p in sorted(home.glob(f"*{version}.*/bin/python{version}"))]
    for candidate in [given] if given else [shutil.which(f"python{version}"), *kept]:
        if candidate is None:
            continue
        command = [str(candidate), "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        try:
            done = subprocess.run(command, capture_output=True, text=True)
        except OSError:
            continue
        if done.stdout.strip() == version:
            return str(candidate)
    raise CannotRun(f"Python {version} is not installed (PYTHON_{version.replace('.', '')}=...)")


def uv(*arguments: str) -> None:
    """Run uv; what it says is shown if it fails."""
    links = os.environ.get("PIP_FIND_LINKS")
    environment = {**os.environ, **({"UV_FIND_LINKS": links} if links else {})}
    command = ["uv", *arguments]
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    except FileNotFoundError:
        raise CannotRun("uv is not installed; pip install uv") from None
    if done.returncode:
        raise CannotRun(f"{' '.join(command)}: {done.stderr.strip()}")


def make_environment(versions: str, python: str) -> Path:
    """Make the virtual environment of a setting, or take the one that is there; returns its Python.

    A variable like VENV_NEWEST_312 gives one that is made already, which stays as it is.
    """
    variable = f"VENV_{versions}_{python.replace('.', '')}".upper()
    if variable in os.environ:
        given = Path(os.environ[variable]) / "bin" / "python"
        if not given.is_file():
            raise CannotRun(f"{variable} must name a virtual environment, {given} is not there")
        return given
    folder = ENVIRONMENTS / f"{versions}-{python}"
    own = folder / "bin" / "python"
    wanted, installed = folder / "wanted.txt", folder / "installed.txt"
    base = find_python(python)
    if not own.exists():
        uv("venv", "--quiet", "--clear", "-p", base, str(folder))
    resolve = [*VERSIONS[versions], "--extra", "dev", "--no-header", "--no-annotate"]
    uv("pip", "compile", "-p", str(own), "--quiet", *resolve, "pyproject.toml", "-o", str(wanted))
    if not installed.exists() or installed.read_text() != wanted.read_text():
        print(f"installing the {versions} versions for Python {python} into {folder}", flush=True)
        uv("pip", "sync", "-p", str(own), str(wanted))
        uv("pip", "install", "-p", str(own), "--no-deps", "-e", ".")
        shutil.copy(wanted, installed)
    return own


@contextmanager
def busy_loops(count: int):
    """Keep `count` processes busy in the meantime."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def revision() -> str:
    """Name the state of the working tree: the commit, and a hash of what differs from it."""
    results = [f":!scripts/{path.name}" for path in (RESULTS, README)]

    def git(*arguments: str) -> str:
        command = ["git", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip()

    commit = git("rev-parse", "--short=12", "HEAD") or "no git"
    changed = git("diff", "HEAD", "--", ".", *results)
    changed += git("ls-files", "--others", "--exclude-standard", "--", ".", *results)
    return f"{commit}+{hashlib.sha256(changed.encode()).hexdigest()[:8]}" if changed else commit


def cpu_model() -> str:
    """Name the CPU."""
    try:
        found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def versions_in(python: Path) -> dict[str, str]:
    """Say which versions an environment has, without importing them."""
    code = (
        "import json, platform; from importlib import metadata as m\n"
        "print(json.dumps({'python': platform.python_version()} |"
        " {d.name.lower(): d.version for d in m.distributions()}))"
    )
    command = [str(python), "-c", code]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {name: found[name] for name in ("python", *SHOWN) if name in found}


def read_report(path: Path) -> tuple[Counter, list[str]]:
    """Count the outcomes in pytest's JUnit report, and name the tests that failed."""
    counts, failed = Counter(NOTHING), []
    for case in ET.parse(path).iter("testcase"):
        kinds = {child.tag for child in case}
        if kinds & {"failure", "error"}:
            counts["failed"] += 1
            failed.append(f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name')}")
        else:
            counts["skipped" if "skipped" in kinds else "passed"] += 1
    return counts, sorted(set(failed))


def run(name: str, repetition: int, extra: list[str]) -> dict:
    """Run one setting once; returns its line."""
    setting = SETTINGS[name]
    if setting.wrapper:
        tried = subprocess.run([*setting.wrapper, "true"], cwd=ROOT, capture_output=True, text=True)
        if tried.returncode:
            last = (tried.stderr.strip().splitlines() or ["it ended without a word"])[-1]
            if tried.returncode == CANNOT_EMULATE:
                raise CannotRun(last)
            raise RuntimeError(f"{' '.join(setting.wrapper)}: {last}")
    python = make_environment(setting.versions, setting.python)
    found = versions_in(python)
    tests = [
        str(path.relative_to(ROOT)) for test in setting.tests for path in sorted(ROOT.glob(test))
    ]
    report = ENVIRONMENTS / f"{name}-{os.getpid()}.xml"
    report.parent.mkdir(exist_ok=True)
    # In the order of the files: the long ones of cli come early, and no core waits at the end
    order = ["--dist", "loadfile", "--no-loadscope-reorder"]
    options = ["-q", "-n", "auto", "--maxprocesses", "8", *order]
    command = [*setting.wrapper, str(python), "-m", "pytest", *options, f"--junitxml={report}"]
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",  # the processes share the cores
        **setting.variables,
    }
    state, start = revision(), time.monotonic()
    with busy_loops(setting.busy):
        done = subprocess.run([*command, *(extra or tests)], cwd=ROOT, env=environment)
    seconds = time.monotonic() - start
    counts, failed = read_report(report) if report.exists() else (Counter(NOTHING), [])
    report.unlink(missing_ok=True)
    if done.returncode not in (0, 1):  # no report either if it could not even start
        failed.append(f"pytest ended with status {done.returncode}")
    return {
        "setting": name,
        "repetition": repetition,
        "revision": state,
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
        "versions": found,
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        **counts,
        "seconds": round(seconds),
        "failures": failed,
    }


def lines() -> list[dict]:
    """Read what has been run; a line that was cut off is left out."""
    found = []
    for line in RESULTS.read_text().splitlines() if RESULTS.exists() else []:
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            print(f"{RESULTS}: a line is no JSON and is left out", file=sys.stderr)
    return found


def table(found: list[dict]) -> str:
    """Make the Markdown table: for each setting the runs of the revision that was run last."""
    rows = [
        "| setting | what | Python | " + ", ".join(SHOWN) + " | runs | passed, skipped, failed"
        " | minutes | revision |",
        "|" + "---|" * 8,
    ]
    failures, cpus = [], []
    for name, setting in SETTINGS.items():
        ours = [line for line in found if line["setting"] == name]
        if not ours:
            rows.append(f"| `{name}` | {setting.says} | {setting.python} | | 0 | | | |")
            continue
        last = ours[-1]
        ours = [line for line in ours if line["revision"] == last["revision"]]
        counts = sorted({(x["passed"], x["skipped"], x["failed"]) for x in ours})
        minutes = sorted(line["seconds"] / 60 for line in ours)
        cells = [
            f"`{name}`",
            setting.says,
            last["versions"]["python"],
            ", ".join(last["versions"].get(package, "-") for package in SHOWN),
            str(len(ours)),
            "; ".join("{:,}, {}, {}".format(*c) for c in counts),
            f"{minutes[0]:.1f}" + (f" to {minutes[-1]:.1f}" if len(minutes) > 1 else ""),
            f"`{last['revision']}`",
        ]
        rows.append("| " + " | ".join(cells) + " |")
        cpus.append(f"{last['cpu']}, {last['cores']} cores")
        for test, times in Counter(t for line in ours for t in line["failures"]).items():
            failures.append(f"- `{name}`, {times} of {len(ours)} runs: `{test}`")
    if cpus:
        rows += ["", "On " + "; ".join(sorted(set(cpus))) + "."]
    return "\n".join([*rows, *(["", "Failed:", "", *failures] if failures else [])])


def write_table() -> None:
    """Put the table between the markers of scripts/README.md."""
    before, rest = README.read_text().split(MARKERS[0])
    after = rest.split(MARKERS[1])[1]
    README.write_text(f"{before}{MARKERS[0]}\n\n{table(lines())}\n\n{MARKERS[1]}{after}")


def parse() -> argparse.Namespace:
    """Read the command line; what follows -- is for pytest."""
    words = sys.argv[1:]
    cut = words.index("--") if "--" in words else len(words)
    parser = argparse.ArgumentParser(
        prog="scripts/test_anywhere.sh", usage="%(prog)s [options] [SETTING ...] [-- PYTEST ...]"
    )
    parser.add_argument("settings", nargs="*", metavar="SETTING", help="default: all of them")
    parser.add_argument("--list", action="store_true", help="say which settings there are")
    parser.add_argument("--times", type=int, default=1, help="how often each is run")
    parser.add_argument("--table", action="store_true", help="only write the table")
    options = parser.parse_args(words[:cut])
    options.pytest = words[cut + 1 :]
    unknown = [name for name in options.settings if name not in SETTINGS]
    if unknown:
        parser.error(f"unknown settings {', '.join(unknown)}; --list shows those there are")
    return options


def main() -> int:
    """Run the settings asked for that were not run at this revision; 1 if a test failed."""
    options = parse()
    if options.list:
        for name, setting in SETTINGS.items():
            words = [f"{key}={value}" for key, value in setting.variables.items()]
            print(f"{name:16} Python {setting.python}  {setting.says}", *words)
        return 0
    bad = 0
    for repetition in range(1, options.times + 1) if not options.table else ():
        for name in options.settings or SETTINGS:
            found = lines()
            key = (name, repetition, revision())
            before = [x for x in found if (x["setting"], x["repetition"], x["revision"]) == key]
            if before and not options.pytest:
                print(f"{name}, run {repetition}: was run at this revision already", flush=True)
                bad += bool(before[-1]["failures"])
                continue
            print(f"{name}, run {repetition} of {options.times}", flush=True)
            try:
                line = run(name, repetition, options.pytest)
            except CannotRun as why:
                print(f"{name} is left out: {why}", flush=True)
                continue
            except RuntimeError as why:
                print(f"{name} failed: {why}", flush=True)
                bad += 1
                continue
            bad += bool(line["failures"])
            if options.pytest:
                print(json.dumps(line), flush=True)
                continue
            with RESULTS.open("a") as file:
                file.write(json.dumps(line) + "\n")
            write_table()
    if options.table:
        write_table()
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
