"""Install this checkout with some extras into the environment whose Python runs this file.

`python scripts/install.py dev`: called by scripts/setup.sh. Only torch needs thought: on Linux PyPI
has it with CUDA alone. A torch that is there is kept. A machine with a GPU gets PyPI's. Any other
gets the CPU build from a folder of wheels that pip knows (PIP_FIND_LINKS), else from PyTorch's own
index (or the one in TORCH_CPU_INDEX) if that answers within five seconds, else PyPI's as well.
What will be downloaded is said before it is.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import urllib.parse
import urllib.request
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[1]
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
# What PyPI has for Linux x86-64, from the Content-Length of the wheels: torch 2.13.0 with what
# it requires of NVIDIA and triton; all else in the extra dev (triton 0.20 GB, vtk 0.14 GB, ...)
CUDA_SIZE = "about 2.7 GB"
OTHERS_SIZE = "0.6 GB"


def version(text: str) -> tuple[int, ...]:
    """Give the numbers of a version, without what follows them: (2, 13, 0) of 2.13.0+cpu."""
    return tuple(int(n) for n in re.match(r"[\d.]*\d", text)[0].split("."))  # type: ignore[index]


def pip(*arguments: str, quiet: bool = False) -> int:
    """Run pip of this Python; returns its exit status."""
    command = [sys.executable, "-m", "pip", *arguments, "--quiet", "--disable-pip-version-check"]
    return subprocess.run(command, cwd=ROOT, capture_output=quiet).returncode


def installed_torch() -> str | None:
    """Say which torch is there, if pyproject.toml allows it."""
    bound = re.search(r'"torch>=([\d.]+)"', (ROOT / "pyproject.toml").read_text())
    try:
        there = metadata.version("torch")
    except metadata.PackageNotFoundError:
        return None
    return there if bound and version(there) >= version(bound[1]) else None


def has_gpu() -> bool:
    """Ask nvidia-smi, which comes with the driver."""
    if shutil.which("nvidia-smi") is None:
        return False
    try:
        return subprocess.run(["nvidia-smi", "-L"], capture_output=True, timeout=60).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def cpu_wheel(index: str, wanted: str, timeout: float = 5) -> tuple[str, float] | None:
    """Look in an index for the CPU build of torch for this Python: its address and size in GB."""
    page = f"{index.rstrip('/')}/torch/"
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    tag += "t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""
    name = (
        rf"torch-{re.escape(wanted)}(?:%2B|\+)cpu-cp\d+-{tag}-\w*linux\w*_{platform.machine()}\.whl"
    )
    try:
        with urllib.request.urlopen(page, timeout=timeout) as answer:
            link = re.search(rf'href="([^"]*{name}[^"]*)"', answer.read().decode())
        if link is None:
            return None
        address = urllib.parse.urljoin(page, link[1])
        request = urllib.request.Request(address, method="HEAD")
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return address, int(answer.headers["Content-Length"]) / 1e9
    except (OSError, TypeError):  # no such host, no answer in time, no length
        return None


def install_torch(wanted: str, constraints: Path) -> None:
    """Put the CPU build of torch into the environment, or say that PyPI's will come."""
    if platform.system() != "Linux":  # there PyPI's is a CPU build (Windows) or runs on MPS (macOS)
        print(f"torch {wanted} comes from PyPI: about 0.1 GB to download", flush=True)
        return
    local = ("install", "--no-deps", "--no-index", "-c", str(constraints), "torch")
    if has_gpu():
        why = "the GPU of this machine needs it"
    elif pip(*local, quiet=True) == 0:
        print(
            "torch comes from a folder of wheels on this machine: nothing to download", flush=True
        )
        return
    else:
        index = os.environ.get("TORCH_CPU_INDEX", CPU_INDEX)
        found = cpu_wheel(index, wanted)
        if found is not None:
            address, size = found
            print(f"the CPU build of torch {wanted} comes from {index}: {size:.1f} GB", flush=True)
            if pip("install", "--no-deps", address) == 0:
                return
        why = f"no CPU build of torch {wanted} was found on this machine or at {index}"
    print(
        f"torch {wanted} comes from PyPI with CUDA: {CUDA_SIZE} to download, as {why}", flush=True
    )


def main(extras: str) -> int:
    """Install `.[extras]` in place; returns pip's exit status."""
    constraints = ROOT / "constraints.txt"
    lines = constraints.read_text().splitlines()
    (wanted,) = (line.split("==")[1] for line in lines if line.startswith("torch=="))
    there = installed_torch()
    if there is None:
        install_torch(wanted, constraints)
    elif version(there) != version(wanted):
        print(f"torch {there} is there already and is kept", flush=True)
        kept = [line for line in lines if not line.startswith(("torch==", "triton=="))]
        constraints = Path(sys.prefix) / "constraints.txt"
        constraints.write_text("\n".join([*kept, ""]))
    print(f"the other packages come from PyPI: at most {OTHERS_SIZE} to download", flush=True)
    return pip("install", "-c", str(constraints), "-e", f".[{extras}]")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
