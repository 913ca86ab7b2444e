"""The scripts that install: which Python, which torch, what is said, what is made anew."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import tomllib
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = ROOT / "scripts"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONSTRAINTS = dict(
    re.findall(r"^([\w-]+)(?:==|<=)([\d.]+)$", (ROOT / "constraints.txt").read_text(), re.M)
)


@pytest.fixture
def install(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)
    import install

    return install


def test_constraints_are_of_what_is_required_and_within_its_bounds(install):
    required = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    lines = "\n".join(line for lines in required for line in lines)
    lowest = dict(re.findall(r"([\w-]+)(?:\[\w+\])?>=([\d.]+)", lines))
    assert lowest.keys() >= CONSTRAINTS.keys()
    assert {"torch", "ruff", "mypy"} <= CONSTRAINTS.keys()
    for name, newest in CONSTRAINTS.items():
        assert install.version(lowest[name]) <= install.version(newest), name


@pytest.fixture
def index(tmp_path):
    """Serve an index of wheels as PyTorch's is; gives its address."""
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    folder = tmp_path / "cpu" / "torch"
    folder.mkdir(parents=True)
    machine = os.uname().machine
    names = [
        f"torch-{version}%2Bcpu-{tag}-{tag}{thread}-manylinux_2_28_{where}.whl"
        for version in ("2.12.0", "2.13.0", "2.13.0.1")
        for thread in ("t", "")
        for where in ("s390x", machine)
    ]
    for name in names:
        (folder / name.replace("%2B", "+")).write_bytes(b"0" * 3_000_000)
    links = "".join(f'<a href="{name}#sha256=0">{name}</a>' for name in names)
    (folder / "index.html").write_text(links)

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/cpu"
    server.shutdown()
    server.server_close()


def test_the_cpu_wheel_for_this_python_is_found_with_its_size(install, index):
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    address, size = install.cpu_wheel(index, "2.13.0")
    name = f"torch-2.13.0%2Bcpu-{tag}-{tag}-manylinux_2_28_{os.uname().machine}.whl"
    assert address.startswith(f"{index}/torch/{name}")
    assert size == 0.003
    assert install.cpu_wheel(index, "2.14.0") is None
    assert install.cpu_wheel("http://127.0.0.1:9/cpu", "2.13.0") is None


@pytest.fixture
def installed(install, monkeypatch, capfd, tmp_path):
    """Run install.py with a pip that only writes down what it is asked; local wheels: none."""

    def call(*, torch=None, gpu=False, index="http://127.0.0.1:9", local=False):
        asked = []

        def pip(*arguments, quiet=False):
            asked.append(arguments)
            return 0 if local or not quiet else 1

        monkeypatch.setenv("TORCH_CPU_INDEX", index)
        monkeypatch.setattr(install, "pip", pip)
        monkeypatch.setattr(install, "has_gpu", lambda: gpu)
        monkeypatch.setattr(install, "installed_torch", lambda: torch)
        monkeypatch.setattr(install.platform, "system", lambda: "Linux")
        monkeypatch.setattr(install.sys, "prefix", str(tmp_path))
        assert install.main("dev") == 0
        return asked, capfd.readouterr().out

    return call


def test_which_torch_comes_is_said_first(installed, index, tmp_path):
    asked, said = installed(local=True)
    assert len(asked) == 2
    assert "--no-index" in asked[0]
    assert "from a folder of wheels on this machine" in said

    asked, said = installed(index=index)
    assert asked[1][-1].startswith(f"{index}/torch/torch-2.13.0")
    assert f"the CPU build of torch 2.13.0 comes from {index}" in said

    asked, said = installed()
    assert len(asked) == 2
    assert "from PyPI with CUDA: about 2.7 GB to download, as no CPU build of" in said

    asked, said = installed(gpu=True, local=True)
    assert len(asked) == 1
    assert "as the GPU of this machine needs it" in said
    assert asked[0][-1] == ".[dev]"

    asked, said = installed(torch="2.13.0+cpu")
    assert asked == [("install", "-c", str(ROOT / "constraints.txt"), "-e", ".[dev]")]

    asked, said = installed(torch="2.15.0")
    assert "torch 2.15.0 is there already and is kept" in said
    kept = (tmp_path / "constraints.txt").read_text()
    assert asked == [("install", "-c", str(tmp_path / "constraints.txt"), "-e", ".[dev]")]
    assert "ruff==" in kept
    assert not re.search("^(torch|triton)==", kept, re.M)


@pytest.fixture
def checkout(tmp_path):
    """As much of a checkout as setup.sh looks at; its install.py only says what it is asked."""
    tree = tmp_path / "a tree"
    (tree / "scripts").mkdir(parents=True)
    shutil.copy(SCRIPTS / "setup.sh", tree / "scripts")
    (tree / "scripts" / "install.py").write_text("import sys; print('installs', *sys.argv[1:])")
    for name in ("pyproject.toml", "constraints.txt"):
        (tree / name).write_text(name)
    for name in ("datasets", "transforms", "viz"):
        (tree / name).mkdir()
        (tree / "flare_geo").mkdir(exist_ok=True)
        (tree / "flare_geo" / name).symlink_to(f"../{name}")
    return tree


@pytest.fixture
def python(tmp_path):
    """This Python, whose environments get a module in place of pip, for speed."""
    path = tmp_path / "python3"
    path.write_text(
        "#!/bin/sh\n"
        f'if [ "$2" != venv ]; then exec {sys.executable} "$@"; fi\n'
        f'{sys.executable} -m venv --without-pip "$3" && '
        'for at in "$3"/lib/python*/site-packages; do echo "print(1)" > "$at/pip.py"; done\n'
    )
    path.chmod(0o755)
    return str(path)


def set_up(tree, **variables):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHON"} | variables
    code = "set -euo pipefail; source scripts/setup.sh dev; command -v python"
    return subprocess.run(
        ["bash", "-c", code], cwd=tree, env=environment, capture_output=True, text=True
    )


def test_set_up_makes_an_environment_keeps_it_and_makes_it_anew(checkout, python):
    first = set_up(checkout, PYTHON=python)
    assert first.returncode == 0, first.stderr
    assert first.stdout.splitlines()[1:] == [
        "installing flare-geo[dev] into .venv",
        "installs dev",
        f"{checkout}/.venv/bin/python",
    ]
    assert set_up(checkout).stdout.splitlines() == [f"{checkout}/.venv/bin/python"]

    (checkout / "constraints.txt").write_text("changed")
    assert "installs dev" in set_up(checkout).stdout

    moved = checkout.rename(checkout.parent / "moved")
    assert ".venv is made anew: it was made for Python" in set_up(moved, PYTHON=python).stdout

    (moved / ".venv" / "bin" / "python").unlink()  # as when the Python below it was taken away
    broken = set_up(moved, PYTHON=python).stdout
    assert ".venv is made anew: it is broken or half made" in broken
    assert "installs dev" in broken

    (moved / ".venv" / "bin" / "python").unlink()
    (moved / ".venv" / ".flare_geo").unlink()
    other = set_up(moved, PYTHON=python)
    assert other.returncode == 1
    assert "was not made by this script" in other.stderr


def test_an_installation_that_failed_is_gone_on_with(checkout, python):
    script = checkout / "scripts" / "install.py"
    good = script.read_text()
    script.write_text("raise SystemExit(1)")
    failed = set_up(checkout, PYTHON=python)
    assert failed.returncode == 1
    assert "the same command goes on with it" in failed.stderr
    script.write_text(good)
    assert set_up(checkout).stdout.splitlines()[-2] == "installs dev"


def test_a_wrong_python_costs_nobody_an_environment(checkout, python):
    set_up(checkout, PYTHON=python)
    before = (checkout / ".venv" / "bin" / "python").stat()
    wrong = set_up(checkout, PYTHON="/bin/echo")
    assert wrong.returncode == 1
    assert "made anew" not in wrong.stdout
    assert (checkout / ".venv" / "bin" / "python").stat() == before


def test_two_at_once_take_turns(checkout, python):
    """The first one is held in its installation until the second has said that it waits."""
    pipe = checkout / "go on"
    os.mkfifo(pipe)
    script = checkout / "scripts" / "install.py"
    script.write_text(f"print('installs', flush=True); open({str(pipe)!r}).read()")
    code = "set -euo pipefail; source scripts/setup.sh dev"
    command, options = ["bash", "-c", code], {"cwd": checkout, "text": True, "bufsize": 1}
    environment = os.environ | {"PYTHON": python}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, **options) as first:
        for line in first.stdout:
            if line == "installs\n":
                break
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, **options
        ) as second:
            assert second.stdout.readline().startswith(f"waiting for process {first.pid}, which")
            pipe.write_text("")
            assert first.wait() == 0
            assert second.stdout.read() == ""  # nothing is left to be done
            assert second.wait() == 0
    assert not (checkout / ".venv.lock").exists()

    (checkout / ".venv.lock").mkdir()
    (checkout / ".venv.lock" / "pid").write_text(str(first.pid))  # it was killed
    assert set_up(checkout).returncode == 0


def test_set_up_says_what_is_missing(checkout, tmp_path):
    old = tmp_path / "python-2.7"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 2.7.18\n')
    old.chmod(0o755)
    for python in (old, "/no/python", "/bin/echo"):  # echo answers whatever it is asked
        said = set_up(checkout, PYTHON=str(python))
        assert said.returncode == 1
        (line,) = said.stderr.splitlines()
        assert line.startswith(f"PYTHON must name a Python 3.11 or newer, {python} is none")
    assert not (checkout / ".venv").exists()

    (checkout / ".venv").symlink_to("/no/environment")
    said = set_up(checkout)
    assert said.returncode == 1
    (line,) = said.stderr.splitlines()
    assert ".venv is a link to /no/environment, which is not there" in line

    (checkout / "flare_geo" / "viz").unlink()
    (checkout / "flare_geo" / "viz").write_text("../viz")  # git without symbolic links
    said = set_up(checkout)
    assert said.returncode == 1
    assert said.stderr.startswith("flare_geo/viz must be a symbolic link to ../viz")
    assert len(said.stderr.splitlines()) == 1


@pytest.fixture
def anywhere(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(SCRIPTS)
    import anywhere

    monkeypatch.setattr(anywhere, "RESULTS", tmp_path / "anywhere.jsonl")
    monkeypatch.setattr(anywhere, "README", tmp_path / "README.md")
    monkeypatch.setattr(anywhere, "ENVIRONMENTS", tmp_path / "venvs")
    (tmp_path / "README.md").write_text("before\n{}\n{}\nafter\n".format(*anywhere.MARKERS))
    return anywhere


def test_a_setting_is_run_counted_and_not_run_again(anywhere, monkeypatch, tmp_path, capfd):
    (tmp_path / "test_small.py").write_text(
        "import os, pytest\n"
        "def test_good(): assert os.environ['ATEN_CPU_CAPABILITY'] == 'default'\n"
        "def test_bad(): assert False\n"
        "def test_skipped(): pytest.skip('why')\n"
    )
    small = anywhere.Setting(
        "small", variables={"ATEN_CPU_CAPABILITY": "default"}, tests=("tests/test_house.py",)
    )
    monkeypatch.setattr(anywhere, "SETTINGS", {"small": small, "none": anywhere.Setting("no")})
    monkeypatch.setattr(anywhere, "revision", lambda: "abc")
    monkeypatch.setenv("VENV_PINNED_311", str(Path(sys.executable).parents[1]))
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:cacheprovider")
    monkeypatch.setattr(sys, "argv", ["", "small", "--", str(tmp_path / "test_small.py")])
    assert anywhere.main() == 1
    said = capfd.readouterr().out
    line = json.loads(re.search(r"^{.*}$", said, re.M)[0])
    assert {key: line[key] for key in ("passed", "failed", "skipped")} == {
        "passed": 1,
        "failed": 1,
        "skipped": 1,
    }
    assert line["failures"][0].endswith("test_small.py::test_bad")
    assert line["versions"]["torch"]
    (tmp_path / "conftest.py").write_text("raise ImportError")  # pytest cannot even start
    assert anywhere.run("small", 1, [str(tmp_path)])["failures"] == ["pytest ended with status 4"]
    capfd.readouterr()
    assert not anywhere.RESULTS.exists()  # with arguments of its own it is not the setting

    anywhere.RESULTS.write_text(json.dumps(line) + "\n" + json.dumps(line)[:40])
    monkeypatch.setattr(sys, "argv", ["", "small"])
    assert anywhere.main() == 1
    assert "was run at this revision already" in capfd.readouterr().out
    monkeypatch.setattr(sys, "argv", ["", "--table"])
    anywhere.main()
    text = anywhere.README.read_text()
    assert "| `small` | small | 3." in text
    assert "| 1 | 1, 1, 1 |" in text
    assert "- `small`, 1 of 1 runs: `" in text
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")


def keep_one(find_python):
    """Python 3.11 is the one that runs the tests; others are looked for."""
    return lambda version: sys.executable if version == "3.11" else find_python(version)


def test_a_setting_that_this_machine_does_not_have_is_left_out(anywhere, monkeypatch, capfd):
    hidden = ("bash", "-c", "echo 'no namespace here' >&2; exit 77", "_")
    settings = {
        "python": anywhere.Setting("no such Python", python="3.99"),
        "wrapper": anywhere.Setting("no such wrapper", wrapper=hidden),
        "given": anywhere.Setting("no such environment", "newest", "3.12"),
        "uv": anywhere.Setting("no uv"),
    }
    monkeypatch.setenv("VENV_NEWEST_312", "/no/environment")
    monkeypatch.setattr(anywhere, "find_python", keep_one(anywhere.find_python))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setattr(anywhere, "SETTINGS", settings)
    monkeypatch.setattr(sys, "argv", [""])
    assert anywhere.main() == 0
    said = capfd.readouterr().out
    assert "python is left out: Python 3.99 is not installed" in said
    assert "wrapper is left out: no namespace here" in said
    assert "given is left out: VENV_NEWEST_312 must name a virtual environment" in said
    assert "uv is left out: uv is not installed" in said
    assert not anywhere.RESULTS.exists()


def test_the_readme_knows_every_script_and_setting(anywhere):
    text = (SCRIPTS / "README.md").read_text()
    for path in SCRIPTS.iterdir():
        if path.suffix in (".py", ".sh") or (path.is_dir() and path.name[0] != "_"):
            assert path.name in text, path.name
    for name in anywhere.SETTINGS:
        assert f"| `{name}` |" in text
