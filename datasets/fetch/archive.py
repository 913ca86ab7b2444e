"""Atomic, path-safe extraction of third-party tar and zip archives."""

from __future__ import annotations

import fnmatch
import gzip
import lzma
import os
import shutil
import stat
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

from tqdm import tqdm

from flare_geo.datasets.fetch.download import check_space, in_words, name_fault

DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    NotImplementedError,  # a zip's way of packing that zipfile does not know
)
RATIO, FLOOR = 100, 2**30  # data pack to a tenth at best; small archives may be nearly empty


class Member(NamedTuple):
    """What an archive says of one of its files, and how to read it."""

    name: str
    size: int
    fault: str
    open: Callable[[], Any]


def unpack(
    archive: str | Path,
    folder: str | Path,
    wanted: str | Sequence[str] | None = None,
    log: bool = True,
    *,
    max_bytes: int | None = None,
) -> list[Path]:
    """Unpack the plain files of a tar, tar.gz (.bz2, .xz) or zip archive into a folder.

    They are unpacked aside and moved at the end, so that an error or an interrupt leaves the
    folder as it was. Only contents are taken: no owners, modes or times. An archive is refused
    when a wanted member is not a plain file with a name below the folder (absolute, ``..``, a
    link, a device), comes twice, or when its files would be larger than is plausible.

    Args:
        archive: The file; what it is is seen from its content.
        folder: Made if missing. Files of the same names are replaced.
        wanted: Globs of member names; ``*`` also matches ``/``. None: all.
        log: Show progress on a terminal.
        max_bytes: Of all wanted files together; default: the larger of 1 GiB and a hundred times
            the size of the archive.

    Returns:
        The files, in the order of the archive.

    Raises:
        FileNotFoundError: no such archive, or no member that is ``wanted``.
        ValueError: it is not an archive, is cut off or damaged, or is refused for its members.
        OSError: no room on the disk.

    Example:
        >>> unpack("Geo-FNO.tar.gz", "data/elasticity", "*/Random_UnitCell_*_10.npy")
        [PosixPath('data/elasticity/elasticity/Meshes/Random_UnitCell_XY_10.npy'), ...]
    """
    archive, folder = Path(archive).expanduser(), Path(folder).expanduser()
    if not archive.is_file():
        raise FileNotFoundError(f"there is no archive {archive}")
    limit = max_bytes if max_bytes is not None else max(FLOOR, RATIO * archive.stat().st_size)
    globs = ["*"] if wanted is None else [wanted] if isinstance(wanted, str) else list(wanted)
    folder.mkdir(parents=True, exist_ok=True)
    quiet = not (log and sys.stderr.isatty())
    with (
        tempfile.TemporaryDirectory(prefix=".unpack-", dir=folder) as aside,
        archive.open("rb") as raw,
        tqdm.wrapattr(
            raw, "read", total=archive.stat().st_size, desc=archive.name, disable=quiet
        ) as counted,
    ):
        names: list[str] = []
        others: list[str] = []
        total = 0
        for member in _members(archive, counted):
            name = str(PurePosixPath(member.name))
            if not any(fnmatch.fnmatchcase(name, glob) for glob in globs):
                others.append(name)
                continue
            if fault := member.fault or name_fault(member.name):
                raise ValueError(f"{archive}: member '{member.name}' {fault}; nothing was unpacked")
            total += member.size
            if total > limit:
                raise ValueError(
                    f"{archive} ({in_words(archive.stat().st_size)}) would unpack to "
                    f"{in_words(total)} or more, which is not plausible (limit "
                    f"{in_words(limit)}); nothing was unpacked; if it is meant, pass max_bytes="
                )
            check_space(member.size, folder)
            _extract(archive, member, Path(aside, name))
            names.append(name)
        if not names:
            some = f"it holds {', '.join(others[:3])}..." if others else "it is empty"
            raise FileNotFoundError(f"{archive}: no member matches {' or '.join(globs)}; {some}")
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(Path(aside, name), folder / name)
    return [folder / name for name in names]


def _members(archive: Path, raw: IO[bytes]) -> Iterator[Member]:
    """The members that are not folders, in order; damage is said in one line."""
    try:
        yield from _zip_members(raw) if raw.read(4) == b"PK\3\4" else _tar_members(raw)
    except tarfile.ReadError as error:
        if "file could not be opened successfully" not in str(error):
            raise _damaged(archive, error) from None
        raise ValueError(f"{archive} is neither a tar nor a zip archive, or is cut off") from None
    except DAMAGE as error:
        raise _damaged(archive, error) from None


def _zip_members(raw: IO[bytes]) -> Iterator[Member]:
    with zipfile.ZipFile(raw) as file:
        for info in file.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            if info.is_dir():
                continue
            fault = "" if kind in (0, stat.S_IFREG) else "is a link or a device, not a plain file"
            if info.flag_bits & 1:
                fault = "is encrypted"
            yield Member(info.filename, info.file_size, fault, partial(file.open, info))


def _tar_members(raw: IO[bytes]) -> Iterator[Member]:
    raw.seek(0)
    with tarfile.open(fileobj=raw) as file:
        for info in file:
            if info.isdir():
                continue
            plain = info.isreg() and not info.issparse()
            fault = "" if plain else "is a link, a device or sparse, not a plain file"
            yield Member(info.name, info.size, fault, partial(file.extractfile, info))
        # tarfile takes an archive that is cut between two members for a whole one.
        file.fileobj.seek(file.offset)
        if file.fileobj.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
            raise tarfile.ReadError("unexpected end of data")
        while file.fileobj.read(2**20):  # a compressed one has a checksum at its very end
            pass


def _extract(archive: Path, member: Member, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        out = target.open("xb")
    except (FileExistsError, NotADirectoryError):
        raise ValueError(
            f"{archive}: member '{member.name}' comes twice; nothing was unpacked"
        ) from None
    with out:
        try:
            with member.open() as source:
                shutil.copyfileobj(source, out, 2**20)
        except DAMAGE as error:
            raise _damaged(archive, error, member.name) from None
    if target.stat().st_size != member.size:
        raise _damaged(archive, EOFError("unexpected end of data"), member.name)


def _damaged(archive: Path, error: BaseException, name: str = "") -> ValueError:
    where = f" at '{name}'" if name else ""
    return ValueError(f"{archive} is cut off or damaged{where} ({error}); fetch it again")
