"""Fetch files of known content: complete and checked, or not there."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import NamedTuple
from urllib.error import HTTPError, URLError
from urllib.parse import quote

from tqdm import tqdm

from flare_geo.files import write_aside

BLOCK_BYTES = 2**20


class RemoteFile(NamedTuple):
    """A file below some base URL, its size in bytes and its SHA-256."""

    name: str
    size: int
    sha256: str


def fetch(file: RemoteFile, base_url: str, folder: Path, log: bool = True) -> Path:
    """Download one file into a folder, unless it is there already with the right content.

    It is written under another name, compared with the checksum, and renamed at the end.

    Args:
        file: What to fetch.
        base_url: ``https://``, ``http://`` or ``file://``; the name is appended.
        folder: Made if missing.
        log: Show progress on a terminal.

    Returns:
        Path of the file.

    Raises:
        OSError: the server cannot be reached or does not have the file.
        ValueError: the content is not the expected one; nothing is left behind.
    """
    from urllib.request import urlopen

    target = folder / file.name
    if target.is_file() and target.stat().st_size == file.size:
        with target.open("rb") as present:
            if hashlib.file_digest(present, "sha256").hexdigest() == file.sha256:
                return target
    folder.mkdir(parents=True, exist_ok=True)
    url = f"{base_url.rstrip('/')}/{quote(file.name)}"
    digest, received = hashlib.sha256(), 0
    quiet = not (log and sys.stderr.isatty())
    try:
        with (
            urlopen(url, timeout=60) as answer,
            write_aside(target) as aside,
            aside.open("wb") as out,
            tqdm(total=file.size, unit="B", unit_scale=True, desc=file.name, disable=quiet) as bar,
        ):
            while received <= file.size and (block := answer.read(BLOCK_BYTES)):
                out.write(block)
                digest.update(block)
                received += len(block)
                bar.update(len(block))
            if received != file.size or digest.hexdigest() != file.sha256:
                got = f"{received} bytes, sha256 {digest.hexdigest()[:12]}..."
                wanted = f"{file.size} bytes, sha256 {file.sha256[:12]}..."
                raise ValueError(f"{url} is not the expected file: got {got}, expected {wanted}")
    except HTTPError as error:
        error.close()
        raise OSError(f"cannot fetch {url}: HTTP {error.code} {error.reason}") from None
    except URLError as error:
        raise OSError(f"cannot fetch {url}: {error.reason}") from None
    return target
