"""Large files that a hub serves in parts, ``NAME.00.part``, ``NAME.01.part``, ..."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from flare_geo.datasets.fetch.download import check_space
from flare_geo.files import write_aside

CHUNK_BYTES = 2**24


def whole_of(part: str) -> str:
    """The name of the file that a part belongs to; other names are returned as they are.

    >>> whole_of("run_1/volume_1.vtu.00.part")
    'run_1/volume_1.vtu'
    """
    return re.sub(r"\.\d+\.part$", "", part)


def join_parts(path: str | Path) -> Path:
    """Write the parts of a file end to end, unless that was done, and remove them.

    The file is complete when it appears. A part that is missing at the end cannot be noticed here;
    the reader of the file will say that it is cut off.

    Args:
        path: Of the whole file, such as ``run_1/volume_1.vtu``.

    Raises:
        FileNotFoundError: there is neither the file nor a part of it, or one between is missing.
        OSError: the disk has not enough room for the whole file beside its parts.
    """
    path = Path(path)
    parts = sorted(path.parent.glob(f"{path.name}.*.part"))
    size = sum(part.stat().st_size for part in parts)
    if not path.is_file() or path.stat().st_size < size:
        _join(path, parts, size)
    for part in parts:
        part.unlink()
    return path


def _join(path: Path, parts: list[Path], size: int) -> None:
    numbers = [int(re.sub(r"\D", "", part.suffixes[-2]) or -1) for part in parts]
    if numbers != list(range(len(parts))):
        missing = min(set(range(len(parts))) - set(numbers))
        raise FileNotFoundError(f"{path}.{missing:02d}.part is missing; get it, then join the rest")
    if not parts:
        raise FileNotFoundError(f"there is neither {path} nor {path.name}.00.part beside it")
    check_space(size, path.parent)
    with write_aside(path) as aside, aside.open("wb") as whole:
        for part in parts:
            with part.open("rb") as source:
                shutil.copyfileobj(source, whole, CHUNK_BYTES)
