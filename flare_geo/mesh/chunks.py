"""VTU and VTP files of any size: point arrays are read in chunks, fields are added in chunks.

VTK's XML files hold each array in one run of bytes, raw or as base64, behind the XML or within it,
plain or in compressed blocks whose sizes stand in front. So the tags and those sizes alone tell
where rows lie.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from flare_geo.files import write_aside
from flare_geo.mesh.fields import At
from flare_geo.mesh.source import Rows
from flare_geo.mesh.vtk_bytes import (
    BLOCK,
    Base64Run,
    Base64Sink,
    CompressedArray,
    PlainArray,
    RawRun,
    RawSink,
    Run,
    Tag,
    tags_of,
    write_compressed,
    write_plain,
)

ZLIB = "vtkZLibDataCompressor"
KINDS = {"Float": "f", "Int": "i", "UInt": "u"}


class NotInChunks(ValueError):
    """A file, or a part of it, that can only be read whole; the message says why."""


class Array(NamedTuple):
    """A data array: `[rows, width]` numbers, and a way to its bytes."""

    width: int
    dtype: np.dtype[Any]
    read: Callable[[int, int], bytes]


class ChunkedFile:
    """A VTU or VTP file as a :class:`~flare_geo.mesh.MeshSource`: its points are read in chunks.

    Args:
        path: The file. It is kept open; use it in a ``with``.

    Raises:
        NotInChunks: The file is of another kind: ASCII, several `<Piece>` tags, a compression other
            than zlib, appended base64.
        ValueError: It is cut off.
        OSError: It cannot be read.

    Example:
        >>> with ChunkedFile(Path("car.vtp")) as file:
        ...     first = file.points(slice(0, 1000)), file.rows("p", slice(0, 1000))
    """

    at: At = "point"
    ptr = None

    def __init__(self, path: Path) -> None:
        self.path, self.suffix = path, path.suffix.lower()
        self.file: IO[bytes] = path.open("rb", buffering=0)
        self.size = path.stat().st_size
        try:
            self._read_tags()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> ChunkedFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def points(self, at: slice) -> NDArray[Any]:
        """Coordinates `[n, 3]`."""
        return self._rows(self._points, at)

    def height(self, at: slice) -> tuple[float, float]:
        """The lowest and the highest z of these points and the first one."""
        z = np.append(self.points(at)[:, 2], self.points(slice(0, min(1, self.num_points)))[:, 2])
        return (z.min(), z.max()) if len(z) else (0.0, 0.0)

    def rows(self, name: str, at: slice) -> NDArray[Any]:
        """Rows `[n, c]` of a point array.

        Raises:
            NotInChunks: The file has no such array.
        """
        if name not in self._arrays:
            raise NotInChunks(f"the input '{name}' is not an array of the file")
        return self._rows(self._arrays[name], at)

    def write(
        self, path: Path, widths: Mapping[str, int], rows: Mapping[str, Rows], chunk_size: int
    ) -> None:
        """Write this file once more with float32 point arrays added; all else stays byte by byte.

        Args:
            path: Where to.
            widths: Number of components of each new array.
            rows: Gives their rows.
            chunk_size: Rows at a time.

        Raises:
            OSError: The disk is full, or an array is too long for a file of this kind.
        """
        tags = {
            name: f'\n        <DataArray type="Float32" Name="{escape(name)}" '
            f'NumberOfComponents="{width}" format='
            for name, width in widths.items()
        }
        with write_aside(path) as aside, aside.open("r+b") as out:
            self._copy(out, 0, self._insert.end)
            missing, empty = self._insert.name == "Piece", "/" in self._insert.attributes
            if empty:
                out.seek(-2, 1)
                out.write(b">")
            out.write(b"\n      <PointData>" if missing else b"")
            places = {}
            for name, tag in tags.items():
                if self._appended:
                    out.write(f'{tag}"appended" offset="'.encode())
                    places[name] = out.tell()
                    out.write(b'00000000000000000000"/>')
                else:
                    out.write(f'{tag}"binary">\n'.encode())
                    self._write_array(out, widths[name], rows[name], chunk_size)
                    out.write(b"\n        </DataArray>")
            out.write(b"\n      </PointData>" if missing or empty else b"")
            if self._appended:
                self._copy(out, self._insert.end, self._appended_end)
                base = out.tell() - (self._appended_end - self._appended)
                for name, place in places.items():
                    start = out.tell()
                    out.seek(place)
                    out.write(f"{start - base:020d}".encode())
                    out.seek(start)
                    self._write_array(out, widths[name], rows[name], chunk_size)
                self._copy(out, self._appended_end, self.size)
            else:
                self._copy(out, self._insert.end, self.size)

    def _read_tags(self) -> None:
        tags = [tag for tag in tags_of(self.file) if not tag.name.startswith(("?", "!"))]
        if not tags or tags[0].name != "VTKFile":
            raise NotInChunks(f"{self.path} is not one of VTK's XML files")
        head, meshes = tags[0].attributes, [tag for tag in tags if tag.name == "Piece"]
        if len(meshes) != 1:
            raise NotInChunks(f"{self.path} holds {len(meshes)} meshes (<Piece> tags)")
        self.compressed = "compressor" in head
        if self.compressed and head["compressor"] != ZLIB:
            raise NotInChunks(f"{self.path} is compressed by {head['compressor']}")
        self.order = ">" if head.get("byte_order") == "BigEndian" else "<"
        self.word = np.dtype(self.order + {"UInt64": "u8"}.get(head.get("header_type", ""), "u4"))
        self.num_points = int(meshes[0].attributes.get("NumberOfPoints", 0))
        self._find_appended(tags)
        parents: list[Tag] = []
        found: dict[str, list[Tag]] = {"PointData": [], "CellData": [], "Points": []}
        self._insert = meshes[0]
        for tag in tags:
            if tag.name == "PointData":
                self._insert = tag
            if tag.name == "DataArray" and parents and parents[-1].name in found:
                found[parents[-1].name].append(tag)
            if tag.name.startswith("/"):
                parents.pop()
            elif "/" not in tag.attributes:
                parents.append(tag)
        if len(found["Points"]) != 1:
            raise NotInChunks(f"{self.path} has no points of its own")
        self._points = self._array(found["Points"][0], 3)
        self._arrays = {tag.attributes["Name"]: self._array(tag, 1) for tag in found["PointData"]}
        self.widths = {name: array.width for name, array in self._arrays.items()}
        self.names = {*self._arrays, *(tag.attributes.get("Name", "") for tag in found["CellData"])}

    def _find_appended(self, tags: list[Tag]) -> None:
        """Where the appended data begin and end, 0 if there are none; whether the file is whole."""
        from_ = max(0, self.size - 4096)
        self.file.seek(from_)
        last = self.file.read()
        if b"</VTKFile>" not in last:
            raise ValueError(f"{self.path} is cut off: it does not end with </VTKFile>")
        self._appended = self._appended_end = 0
        if tags[-1].name == "AppendedData":
            if tags[-1].attributes.get("encoding") != "raw":
                raise NotInChunks(f"{self.path} has appended data in base64")
            self.file.seek(tags[-1].end)
            self._appended = tags[-1].end + self.file.read(4096).index(b"_") + 1
            self._appended_end = from_ + last.rfind(b"</AppendedData>")

    def _array(self, tag: Tag, usual: int) -> Array:
        what = tag.attributes
        kind = re.fullmatch(r"(Float|Int|UInt)(8|16|32|64)", what.get("type", ""))
        if kind is None:
            raise NotInChunks(f"{self.path}: the array '{what.get('Name')}' does not hold numbers")
        dtype = np.dtype(f"{self.order}{KINDS[kind[1]]}{int(kind[2]) // 8}")
        width = int(what.get("NumberOfComponents", usual))
        if what.get("format") == "appended":
            run: Run = RawRun(self.file, self._appended + int(what["offset"]))
        elif what.get("format") == "binary":
            self.file.seek(tag.end)
            text = self.file.read(4096)
            run = Base64Run(self.file, tag.end + len(text) - len(text.lstrip()))
        else:
            raise NotInChunks(f"{self.path} is written as text")
        reader = CompressedArray(run, self.word) if self.compressed else PlainArray(run, self.word)
        return Array(width, dtype, reader.read)

    def _rows(self, array: Array, at: slice) -> NDArray[Any]:
        row = array.width * array.dtype.itemsize
        data = array.read(at.start * row, (at.stop - at.start) * row)
        if len(data) != (at.stop - at.start) * row:
            raise ValueError(f"{self.path} is cut off: no rows {at.start} to {at.stop} of an array")
        return np.frombuffer(data, array.dtype).reshape(-1, array.width)

    def _copy(self, out: IO[bytes], start: int, stop: int) -> None:
        self.file.seek(start)
        left = stop - start
        while left and (data := self.file.read(min(BLOCK, left))):
            out.write(data)
            left -= len(data)

    def _write_array(self, out: IO[bytes], width: int, rows: Rows, chunk_size: int) -> None:
        total = self.num_points * width * 4
        if not self.compressed and total > np.iinfo(self.word).max:
            raise OSError(
                f"{self.path} counts bytes in {self.word.itemsize * 8} bits, a field of "
                f"{total:,} bytes is too long for it: save it with header_type UInt64"
            )
        sink = RawSink(out) if self._appended else Base64Sink(out)
        starts = range(0, self.num_points, chunk_size)
        chunks = (rows(slice(i, min(i + chunk_size, self.num_points))) for i in starts)
        data = (chunk.astype(f"{self.order}f4").tobytes() for chunk in chunks)
        (write_compressed if self.compressed else write_plain)(sink, self.word, total, data)
