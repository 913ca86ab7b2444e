"""Where a result comes from: versions, git revision, device."""

import platform
import subprocess
from functools import cache
from pathlib import Path

import torch

from flare_geo import __version__


@cache
def git_revision() -> str | None:
    """Revision of the checkout this package runs from (`-dirty` if changed); None if installed."""
    here = Path(__file__).resolve().parent
    if not (here.parent / ".git").exists():
        return None
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def provenance(device: torch.device | str = "cpu") -> dict[str, str | int | None]:
    """What every result file carries."""
    device = torch.device(device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
    return {
        "flare_geo": __version__,
        "git_revision": git_revision(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": f"{device.type} {name or platform.machine()}".strip(),
        "threads": torch.get_num_threads(),
    }
