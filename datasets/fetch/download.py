"""Fetches files of known content: complete and checked, or absent; broken downloads are resumed.

Used by `flare_geo.datasets.fetch.hub`, which says when it will be replaced, and for files that are
on no hub.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from http.client import HTTPException
from pathlib import Path, PureWindowsPath
from ssl import SSLError
from typing import Any, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from tqdm import tqdm

CHUNK_BYTES = 2**20
ATTEMPTS = 5
PAUSE = 1.0  # seconds before the next attempt; doubled each time, as long as nothing comes
LONGEST_PAUSE = 300.0  # however long the server asks us to wait
TIMEOUT = 60.0  # seconds without a byte
BUSY = (408, 425, 429, 500, 502, 503, 504)


class RemoteFile(NamedTuple):
    """A file below some base URL, its size in bytes and its SHA-256, or the SHA-1 git gives it.

    Git hashes the word blob, the size, a zero byte and the content; that is the only number by
    which the Hugging Face hub knows its small files.
    """

    name: str
    size: int
    sha256: str | None
    git_sha1: str | None = None

    def digest(self) -> Any:
        """A hash that will equal :attr:`checksum` once it has been fed the content."""
        if self.sha256 is not None:
            return hashlib.sha256()
        return hashlib.sha1(b"blob %d\0" % self.size, usedforsecurity=False)

    @property
    def checksum(self) -> str:
        """The hexadecimal number that the content must have."""
        if (checksum := self.sha256 or self.git_sha1) is None:
            raise ValueError(f"{self.name}: a file without a checksum cannot be fetched")
        return checksum

    def part_in(self, folder: Path) -> Path:
        """The hidden file in which this one grows."""
        path = folder / self.name
        return path.with_name(f".{path.name}.{self.checksum[:12]}.part")


class RefusedError(OSError):
    """Authentication is required, or access is denied (HTTP 401, 403)."""


def fetch(
    file: RemoteFile,
    base_url: str,
    folder: Path,
    log: bool = True,
    *,
    headers: Mapping[str, str] | None = None,
    advance: Callable[[int], object] | None = None,
) -> Path:
    """Download one file into a folder, unless it is there already with the right content.

    It grows in a hidden file ``.NAME.CHECKSUM.part``, is compared with the checksum and renamed
    at the end. A broken connection is resumed where it broke, and so is the hidden file that an
    interrupted run left. Two processes may fetch the same file: they write the same bytes
    to the same places.

    Args:
        file: What to fetch.
        base_url: ``https://``, ``http://`` or ``file://``; the name is appended.
        folder: Made if missing.
        log: Show progress on a terminal.
        headers: Sent to the host of ``base_url`` only, never on to where it redirects to.
        advance: Called with the number of bytes that are done, instead of an own progress bar.

    Returns:
        Path of the file.

    Raises:
        RefusedError: the server refuses it (HTTP 401 or 403).
        OSError: the server cannot be reached, breaks off repeatedly or does not have the file; what
            has arrived is kept, call again to resume.
        ValueError: the content is not the expected one; nothing is left behind.
    """
    if fault := name_fault(file.name):
        raise ValueError(f"'{file.name}' {fault}: it is not fetched")
    target = folder / file.name
    part = file.part_in(folder)
    url = f"{base_url.rstrip('/')}/{quote(file.name)}"
    quiet = advance is not None or not (log and sys.stderr.isatty())
    with tqdm(total=file.size, unit="B", unit_scale=True, desc=file.name, disable=quiet) as bar:
        step = advance or bar.update
        if _is_right(target, file, step):
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
        try:
            _receive(file, url, part, headers or {}, step)
            part.replace(target)
        except ValueError:
            part.unlink(missing_ok=True)
            raise
        except FileNotFoundError:
            if not target.is_file():  # else another process was first
                raise
        finally:
            if part.is_file() and part.stat().st_size == 0:
                part.unlink(missing_ok=True)
    return target


def name_fault(name: str) -> str:
    """Why a third-party file must not be written under this name below a folder; "" if it may.

    Also what would lead out of it on Windows only.
    """
    windows = PureWindowsPath(name)
    if windows.anchor or name.startswith("/"):
        return "has an absolute name"
    if ".." in windows.parts:
        return "leads out of the folder"
    return "" if windows.parts else "has no name"


def missing_bytes(files: Iterable[RemoteFile], folder: Path) -> int:
    """Bytes to come, judged by sizes: those of files that are there, or begun, do not count."""
    total = 0
    for file in files:
        target, part = folder / file.name, file.part_in(folder)
        if not target.is_file() or target.stat().st_size != file.size:
            total += file.size - (part.stat().st_size if part.is_file() else 0)
    return total


def check_space(needed: int, folder: Path) -> None:
    """Raise OSError if the disk under a folder, which need not exist, has less room than this."""
    folder = folder.expanduser().absolute()
    existing = next(p for p in (folder, *folder.parents) if p.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise OSError(
            f"{folder} has room for {in_words(free)}, {in_words(needed)} are needed: "
            "choose another folder or make room"
        )


def in_words(size: int) -> str:
    """A number of bytes for people: ``"26.8 GB"``."""
    value, unit = float(size), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"


def _is_right(path: Path, file: RemoteFile, step: Callable[[int], object]) -> bool:
    if not path.is_file() or path.stat().st_size != file.size:
        return False
    digest = file.digest()
    with path.open("rb") as present:
        while chunk := present.read(CHUNK_BYTES):
            digest.update(chunk)
            step(len(chunk))
    if digest.hexdigest() == file.checksum:
        return True
    step(-file.size)
    return False


def _receive(
    file: RemoteFile,
    url: str,
    part: Path,
    headers: Mapping[str, str],
    step: Callable[[int], object],
) -> None:
    """Complete the partial file and check it."""
    digest, done, failures = file.digest(), 0, 0
    with part.open("r+b") as out:
        while done < file.size and (chunk := out.read(min(CHUNK_BYTES, file.size - done))):
            digest.update(chunk)
            done += len(chunk)
        step(done)
        while done < file.size:
            before, wait = done, 0.0
            try:
                with _open(url, headers, done) as answer:
                    begin = done if getattr(answer, "status", None) == 206 else 0
                    _check_length(file, url, begin, answer)
                    if begin != done:  # the server ignores ranges: the same bytes again
                        step(-done)
                        digest, done, before = file.digest(), 0, 0
                    out.seek(done)
                    while done <= file.size and (chunk := answer.read(CHUNK_BYTES)):
                        out.write(chunk)
                        digest.update(chunk)
                        done += len(chunk)
                        step(len(chunk))
                cause = "the connection was closed"
            except HTTPError as error:
                error.close()
                cause = f"HTTP {error.code} {error.reason}"
                if error.code == 416:  # the file there is shorter than what we have of ours
                    out.truncate(0)
                if error.code not in BUSY:
                    raise OSError(f"cannot fetch {url}: {cause}") from None
                after = error.headers.get("Retry-After", "")
                wait = min(float(after), LONGEST_PAUSE) if after.isdecimal() else 0.0
            except (URLError, HTTPException, ConnectionError, TimeoutError, SSLError) as error:
                cause = str(getattr(error, "reason", error)) or type(error).__name__
                if done == 0 and isinstance(error, URLError):  # no network, no such host
                    raise OSError(f"cannot fetch {url}: {cause}") from None
            if done < file.size:
                failures = 0 if done > before else failures + 1
                if failures >= ATTEMPTS:
                    raise OSError(
                        f"cannot fetch {url}: {cause}; {in_words(done)} of {in_words(file.size)} "
                        "have arrived and are kept, run it again to resume"
                    )
                time.sleep(max(wait, PAUSE * 2**failures))
        out.truncate(file.size)
        out.flush()
        os.fsync(out.fileno())
    if digest.hexdigest() != file.checksum:
        raise ValueError(
            f"{url} is not the expected file: its checksum is {digest.hexdigest()[:12]}..., not "
            f"{file.checksum[:12]}...; what came was removed, run it again"
        )


def _check_length(file: RemoteFile, url: str, begin: int, answer: Any) -> None:
    """A server that has another number of bytes has another file."""
    length = answer.headers.get("Content-Length")
    if length is not None and begin + int(length) != file.size:
        raise ValueError(
            f"{url} is not the expected file: it has {begin + int(length)} bytes, not {file.size}"
        )


def _open(url: str, headers: Mapping[str, str], begin: int) -> Any:
    request = Request(url)
    for name, value in headers.items():
        request.add_unredirected_header(name, value)
    if begin:
        request.add_header("Range", f"bytes={begin}-")
    try:
        return build_opener(_Redirect).open(request, timeout=TIMEOUT)
    except HTTPError as error:
        if error.code not in (401, 403):
            raise
        error.close()
        raise RefusedError(f"cannot fetch {url}: HTTP {error.code} {error.reason}") from None


class _Redirect(HTTPRedirectHandler):
    """Takes the headers along to another page of the same host, never to another host."""

    def redirect_request(self, req: Request, *args: Any) -> Request | None:
        new = super().redirect_request(req, *args)
        if new is not None and urlsplit(new.full_url)[:2] == urlsplit(req.full_url)[:2]:
            for name, value in req.unredirected_hdrs.items():
                new.add_unredirected_header(name, value)
        return new
