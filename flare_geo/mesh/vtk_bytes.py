"""The bytes of VTK's XML files: their tags, and arrays in runs of bytes or in compressed blocks."""

from __future__ import annotations

import re
import zlib
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator
from html import unescape
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

BLOCK = 2**20
"""Bytes that are read at a time."""

WHOLE = re.compile(rb"<!--.*?-->|<(?!!--)(?:[^\"'>]|\"[^\"]*\"|'[^']*')*>", re.DOTALL)


class Tag(NamedTuple):
    """A tag of the XML and where it stands in the file."""

    name: str
    attributes: dict[str, str]
    start: int
    end: int


def tags_of(file: IO[bytes]) -> Iterator[Tag]:
    """The tags of the XML in front of appended data; what stands between them is passed over."""
    file.seek(0)
    held, at = b"", 0  # bytes of the file from `at` on
    while True:
        start = held.find(b"<")
        if start < 0:
            at += len(held)
            held = file.read(BLOCK)
            if not held:
                return
            continue
        whole = WHOLE.match(held, start)
        if whole is None or len(held) < start + 4:
            more = file.read(BLOCK)
            if not more or len(held) - start > BLOCK:
                return
            held += more
            continue
        end = whole.end()
        text = held[start:end].decode("utf-8", "replace")
        name = re.match(r"</?[?!]?[\w:-]*", text)
        attributes = {k: unescape(v) for k, v in re.findall(r'([\w:]+)\s*=\s*"([^"]*)"', text)}
        if text.endswith("/>"):
            attributes["/"] = "yes"
        tag = Tag(name[0][1:] if name else "", attributes, at + start, at + end)
        yield tag
        if tag.name == "AppendedData":
            return
        held, at = held[end:], at + end


class RawRun:
    """Bytes as they are, from a place in the file on."""

    def __init__(self, file: IO[bytes], start: int) -> None:
        self.file, self.start = file, start

    def read(self, start: int, count: int) -> bytes:
        """Some of the bytes: fewer if the file ends before, none if it is damaged."""
        self.file.seek(self.start + start)
        got = []
        while count and (data := self.file.read(count)):
            got.append(data)
            count -= len(data)
        return b"".join(got)

    def after(self, count: int) -> Run:
        """The run that begins `count` bytes later."""
        return RawRun(self.file, self.start + count)


class Base64Run:
    """Bytes written as base64, from a place in the file on."""

    def __init__(self, file: IO[bytes], start: int) -> None:
        self.raw, self.start = RawRun(file, start), start

    def read(self, start: int, count: int) -> bytes:
        """Some of the bytes: fewer if the file ends before, none if it is damaged."""
        first, last = start // 3, -(-(start + count) // 3)
        text = self.raw.read(first * 4, (last - first) * 4)
        try:
            return b64decode(text)[start - first * 3 :][:count]
        except ValueError:
            return b""

    def after(self, count: int) -> Run:
        """The run that begins after `count` bytes; each of the two is encoded by itself."""
        return Base64Run(self.raw.file, self.start + -(-count // 3) * 4)


Run = RawRun | Base64Run


class PlainArray:
    """An array in one run, its number of bytes in front."""

    def __init__(self, run: Run, word: np.dtype[Any]) -> None:
        self.run, self.head = run, word.itemsize

    def read(self, start: int, count: int) -> bytes:
        """Some of the bytes: fewer if the file ends before, none if it is damaged."""
        return self.run.read(self.head + start, count)


class CompressedArray:
    """An array in blocks that are compressed one by one, their sizes in front."""

    def __init__(self, run: Run, word: np.dtype[Any]) -> None:
        self.run, self.word = run, word
        self.starts: NDArray[Any] | None = None

    def read(self, start: int, count: int) -> bytes:
        """Some of the bytes: fewer if the file ends before, none if it is damaged."""
        if self.starts is None:
            size = self.word.itemsize
            head = np.frombuffer(self.run.read(0, 3 * size), self.word)
            if len(head) < 3:
                return b""
            blocks, self.block = int(head[0]), int(head[1])
            sizes = np.frombuffer(self.run.read(0, (3 + blocks) * size), self.word)[3:]
            self.starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
            self.data = self.run.after((3 + blocks) * size)
        if count == 0 or self.block == 0:
            return b""
        first, last = start // self.block, -(-(start + count) // self.block)
        got = []
        for i in range(first, min(last, len(self.starts) - 1)):
            begin, end = int(self.starts[i]), int(self.starts[i + 1])
            try:
                got.append(zlib.decompress(self.data.read(begin, end - begin)))
            except zlib.error:
                return b""
        return b"".join(got)[start - first * self.block :][:count]


class RawSink:
    """Writes bytes as they are."""

    def __init__(self, out: IO[bytes]) -> None:
        self.out = out

    def write(self, data: bytes) -> None:
        """Write the next bytes of the run."""
        self.out.write(data)

    def flush(self) -> None:
        """End the run."""


class Base64Sink:
    """Writes bytes as base64: what follows :meth:`flush` is encoded by itself."""

    def __init__(self, out: IO[bytes]) -> None:
        self.out, self.waiting = out, b""

    def write(self, data: bytes) -> None:
        """Write the next bytes of the run."""
        data = self.waiting + data
        full = len(data) // 3 * 3
        self.out.write(b64encode(data[:full]))
        self.waiting = data[full:]

    def flush(self) -> None:
        """End the run."""
        self.out.write(b64encode(self.waiting))
        self.waiting = b""


Sink = RawSink | Base64Sink


def write_plain(sink: Sink, word: np.dtype[Any], total: int, data: Iterable[bytes]) -> None:
    """Write an array of `total` bytes that come in chunks, in one run."""
    sink.write(np.array([total], word).tobytes())
    for chunk in data:
        sink.write(chunk)
    sink.flush()


def write_compressed(sink: Sink, word: np.dtype[Any], total: int, data: Iterable[bytes]) -> None:
    """Write an array of `total` bytes that come in chunks, in compressed blocks.

    Their sizes, which stand in front, are filled in at the end.
    """
    head, sizes = [-(-total // BLOCK), BLOCK, total % BLOCK], list[int]()
    start = sink.out.tell()
    sink.write(np.array([*head, *[0] * head[0]], word).tobytes())
    sink.flush()
    waiting = b""
    for chunk in data:
        waiting += chunk
        while len(waiting) >= BLOCK or (waiting and len(sizes) * BLOCK + len(waiting) == total):
            packed = zlib.compress(waiting[:BLOCK], 1)
            sizes.append(len(packed))
            sink.write(packed)
            waiting = waiting[BLOCK:]
    sink.flush()
    end = sink.out.tell()
    sink.out.seek(start)
    sink.write(np.array([*head, *sizes], word).tobytes())
    sink.flush()
    sink.out.seek(end)
