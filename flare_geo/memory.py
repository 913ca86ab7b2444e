"""Free memory of a device, within the limits of a container or a batch job."""

from collections.abc import Iterator
from pathlib import Path

import torch


def free_bytes(device: torch.device, root: Path = Path("/")) -> int | None:
    """Bytes that this process may have of a device; None if the system does not say.

    On a GPU what the process holds already is included. On the CPU it is the smallest of what the
    machine has available and what each control group of the process, as of a container or a SLURM
    job, still allows.

    Args:
        device: the device.
        root: where `/proc` and `/sys` are mounted.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device)
    if device.type != "cpu":
        return None
    return min([*_available(root), *_allowed(root)], default=None)


def _available(root: Path) -> Iterator[int]:
    path = root / "proc/meminfo"
    for line in path.read_text().splitlines() if path.is_file() else ():
        if line.startswith("MemAvailable:"):
            yield 1024 * int(line.split()[1])


def _allowed(root: Path) -> Iterator[int]:
    groups = root / "proc/self/cgroup"
    for line in groups.read_text().splitlines() if groups.is_file() else ():
        number, _, name = line.split(":", 2)
        folder = root / "sys/fs/cgroup" / name.lstrip("/")
        for group in (folder, *folder.parents) if number == "0" else ():
            limit, stat = group / "memory.max", group / "memory.stat"
            if limit.is_file() and (text := limit.read_text().strip()) != "max":
                used = dict(line.split() for line in stat.read_text().splitlines())
                yield int(text) - int(used["anon"])
