"""Run a command as on a machine without graphics libraries, where that can be emulated."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "without_graphics.sh"
SITUATIONS = ["all", "egl", "x11"]  # what is hidden; see the script
CANNOT = 77  # the status by which the script says so


def run_without_graphics(hidden, code, *arguments, **options):
    """Run Python `code` with libraries hidden; skips the test where that is not allowed."""
    if shutil.which("bash") is None:
        pytest.skip("there is no bash to run scripts/without_graphics.sh")
    done = subprocess.run(
        ["bash", str(SCRIPT), "--hide", hidden, sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=600,
        **options,
    )
    if done.returncode == CANNOT:
        pytest.skip(done.stderr.strip())
    return done
