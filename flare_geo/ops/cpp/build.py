"""Compile the kernels of this folder on the user's machine when they are first asked for."""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import Tensor

HERE = Path(__file__).parent
FLAGS = ["-std=c++17", "-O3", "-march=native", "-shared", "-fPIC", "-fopenmp"]


@cache
def library() -> ctypes.CDLL:
    """The loaded kernels.

    They are built in a few seconds with the compiler of the environment variable `CXX`, else `g++`
    or `clang++`, and kept for this processor, compiler and source in `$XDG_CACHE_HOME/flare_geo` or
    `~/.cache/flare_geo`.

    Raises:
        RuntimeError: if there is no compiler, or it fails; with its message.
    """
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        raise RuntimeError(
            "the C++ kernels need a compiler, found neither g++ nor clang++: install one, name it "
            "in the environment variable CXX, or use backend='auto'"
        )
    path = _cache() / f"kernels-{_key(compiler)}.so"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=path.parent) as folder:  # never half-written, by one of many
            _build(compiler, Path(folder) / path.name)
            (Path(folder) / path.name).replace(path)
    return ctypes.CDLL(str(path))


def _build(compiler: str, path: Path) -> None:
    command = [compiler, *FLAGS, *map(str, sorted(HERE.glob("*.cpp"))), "-o", str(path)]
    done = _run(command)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        message = next((line for line in lines if "error" in line), lines[0])
        raise RuntimeError(
            f"the C++ kernels cannot be compiled: {message} ({' '.join(command)}); "
            "use backend='auto'"
        )


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise RuntimeError(
            f"the compiler '{command[0]}' cannot be run ({error.strerror}): name another one in "
            "the environment variable CXX, or use backend='auto'"
        ) from None


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "flare_geo"


def _key(compiler: str) -> str:
    """Changes with the source, the flags, the compiler and the processor."""
    version = _run([compiler, "--version"]).stdout
    parts = [p.read_bytes() for p in sorted([*HERE.glob("*.cpp"), *HERE.glob("*.h")])]
    parts.append(" ".join([version, compiler, *FLAGS, platform.machine(), _processor()]).encode())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _processor() -> str:
    """The model and features that `-march=native` compiles for."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    kept = {line for line in lines if line.startswith(("model name", "flags", "Features"))}
    return " ".join(sorted(kept))


def pointer(x: Tensor | None) -> ctypes.c_void_p:
    """Where the data of a contiguous tensor begin."""
    return ctypes.c_void_p(None if x is None else x.data_ptr())
