"""Large files that a hub serves in parts, ``NAME.00.part``, ``NAME.01.part``, ..."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from flare_geo.files import write_aside

BLOCK_BYTES = 2**24


def parts_of(path: str | Path) -> list[Path]:
    """The parts of a file, in order; empty if there are none.

    Raises:
        FileNotFoundError: one is missing before the last one there is.
    """
    path = Path(path)
    parts = sorted(path.parent.glob(f"{path.name}.*.part"))
    numbers = [int(re.sub(r"\D", "", part.suffixes[-2]) or -1) for part in parts]
    if numbers != list(range(len(parts))):
        missing = min(set(range(len(parts))) - set(numbers))
        raise FileNotFoundError(f"{path}.{missing:02d}.part is missing; get it, then join the rest")
    return parts


def join_parts(path: str | Path) -> Path:
    """Write the parts of a file end to end, unless that was done; the parts stay.

    The file is complete when it appears. A part that is missing at the end cannot be noticed here;
    the reader of the file will say that it is cut off.

    Args:
        path: Of the whole file, such as ``run_1/volume_1.vtu``.

    Raises:
        FileNotFoundError: there is neither the file nor a part of it, or one between is missing.
        OSError: the disk has not enough room for the whole file beside its parts.
    """
    path = Path(path)
    parts = parts_of(path)
    size = sum(part.stat().st_size for part in parts)
    if path.is_file() and path.stat().st_size >= size:
        return path
    if not parts:
        raise FileNotFoundError(f"there is neither {path} nor {path.name}.00.part beside it")
    if size > (free := shutil.disk_usage(path.parent).free):
        raise OSError(f"{path} needs {size / 1e9:.1f} GB, only {free / 1e9:.1f} GB are free there")
    with write_aside(path) as aside, aside.open("wb") as whole:
        for part in parts:
            with part.open("rb") as source:
                shutil.copyfileobj(source, whole, BLOCK_BYTES)
    return path
