"""VTU and VTP files of any size: point arrays read some rows at a time, fields added without
holding the mesh.

VTK's XML files hold each array in one run of bytes, raw or as base64, behind the XML or within it,
in one piece or in compressed blocks whose sizes stand in front. So where rows lie can be told from
the tags and those sizes alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from html import escape
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from flare_geo.files import write_aside
from flare_geo.mesh.case import Recipe
from flare_geo.mesh.fields import float_tensor
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
from flare_geo.pyg import Data

ZLIB = "vtkZLibDataCompressor"
KINDS = {"Float": "f", "Int": "i", "UInt": "u"}

Rows = Callable[[str, slice], NDArray[Any]]
"""Gives some rows `[n, c]` of a field by name."""


class NotInPieces(ValueError):
    """A file that has to be read whole; says why."""


class Array(NamedTuple):
    """A data array: `[rows, width]` numbers, and a way to its bytes."""

    width: int
    dtype: np.dtype[Any]
    read: Callable[[int, int], bytes]


class PieceFile:
    """A VTU or VTP file whose points and point arrays are read some rows at a time.

    Args:
        path: The file. It is kept open; use it in a ``with``.

    Attributes:
        num_points: Number of points N.
        point_data: The point arrays by name.

    Raises:
        NotInPieces: the file is of another kind: ASCII, several pieces, a compression other than
            zlib, appended base64.
        ValueError: it is cut off.
        OSError: it cannot be read.

    Example:
        >>> with PieceFile(Path("car.vtp")) as file:
        ...     first = file.points(slice(0, 1000)), file.rows("p", slice(0, 1000))
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file: IO[bytes] = path.open("rb", buffering=0)
        self.size = path.stat().st_size
        try:
            self._read_tags()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> PieceFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def points(self, at: slice) -> NDArray[Any]:
        """Coordinates `[n, 3]`."""
        return self._rows(self._points, at)

    def rows(self, name: str, at: slice) -> NDArray[Any]:
        """Rows `[n, c]` of a point array."""
        return self._rows(self.point_data[name], at)

    def write(self, path: Path, widths: Mapping[str, int], rows: Rows, chunk_size: int) -> None:
        """Write this file once more, with point arrays added; float32, byte by byte the rest.

        Args:
            path: Where to.
            widths: Number of components of each new array.
            rows: Gives their rows.
            chunk_size: Rows at a time.

        Raises:
            ValueError: there is a point array of such a name already.
            OSError: the disk is full, or an array is too long for a file of this kind.
        """
        for name in widths.keys() & self.point_data.keys():
            raise ValueError(f"{self.path} has a point array '{name}' already: rename or remove it")
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
                    self._write_array(out, widths[name], partial(rows, name), chunk_size)
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
                    self._write_array(out, widths[name], partial(rows, name), chunk_size)
                self._copy(out, self._appended_end, self.size)
            else:
                self._copy(out, self._insert.end, self.size)

    def _read_tags(self) -> None:
        tags = [tag for tag in tags_of(self.file) if not tag.name.startswith(("?", "!"))]
        if not tags or tags[0].name != "VTKFile":
            raise NotInPieces(f"{self.path} is not one of VTK's XML files")
        head, pieces = tags[0].attributes, [tag for tag in tags if tag.name == "Piece"]
        if len(pieces) != 1:
            raise NotInPieces(f"{self.path} consists of {len(pieces)} pieces")
        self.compressed = "compressor" in head
        if self.compressed and head["compressor"] != ZLIB:
            raise NotInPieces(f"{self.path} is compressed by {head['compressor']}")
        self.order = ">" if head.get("byte_order") == "BigEndian" else "<"
        self.word = np.dtype(self.order + {"UInt64": "u8"}.get(head.get("header_type", ""), "u4"))
        self.num_points = int(pieces[0].attributes.get("NumberOfPoints", 0))
        self._find_appended(tags)
        parents: list[Tag] = []
        found: dict[str, list[Tag]] = {"PointData": [], "Points": []}
        self._insert = pieces[0]
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
            raise NotInPieces(f"{self.path} has no points of its own")
        self._points = self._array(found["Points"][0], 3)
        self.point_data = {
            tag.attributes["Name"]: self._array(tag, 1) for tag in found["PointData"]
        }

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
                raise NotInPieces(f"{self.path} has appended data in base64")
            self.file.seek(tags[-1].end)
            self._appended = tags[-1].end + self.file.read(4096).index(b"_") + 1
            self._appended_end = from_ + last.rfind(b"</AppendedData>")

    def _array(self, tag: Tag, usual: int) -> Array:
        what = tag.attributes
        kind = re.fullmatch(r"(Float|Int|UInt)(8|16|32|64)", what.get("type", ""))
        if kind is None:
            raise NotInPieces(f"{self.path}: the array '{what.get('Name')}' is no array of numbers")
        dtype = np.dtype(f"{self.order}{KINDS[kind[1]]}{int(kind[2]) // 8}")
        width = int(what.get("NumberOfComponents", usual))
        if what.get("format") == "appended":
            run: Run = RawRun(self.file, self._appended + int(what["offset"]))
        elif what.get("format") == "binary":
            self.file.seek(tag.end)
            text = self.file.read(4096)
            run = Base64Run(self.file, tag.end + len(text) - len(text.lstrip()))
        else:
            raise NotInPieces(f"{self.path} is written as text")
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

    def _write_array(
        self, out: IO[bytes], width: int, rows: Callable[[slice], NDArray[Any]], chunk_size: int
    ) -> None:
        total = self.num_points * width * 4
        if not self.compressed and total > np.iinfo(self.word).max:
            raise OSError(
                f"{self.path} counts bytes in {self.word.itemsize * 8} bits, a field of "
                f"{total:,} bytes is too long for it: save it with header_type UInt64"
            )
        sink = RawSink(out) if self._appended else Base64Sink(out)
        cuts = range(0, self.num_points, chunk_size)
        pieces = (rows(slice(i, min(i + chunk_size, self.num_points))) for i in cuts)
        data = (piece.astype(f"{self.order}f4").tobytes() for piece in pieces)
        (write_compressed if self.compressed else write_plain)(sink, self.word, total, data)


def case_of_pieces(file: PieceFile, recipe: Recipe, given: Mapping[str, float], at: slice) -> Data:
    """Some rows of the case that :func:`flare_geo.mesh.case_of_mesh` makes of the whole mesh.

    Raises:
        NotInPieces: the case needs cells, or what only the whole mesh tells.
        ValueError: a solid where there should be a plane.
    """
    if recipe["at"] != "point":
        raise NotInPieces("the surrogate was trained on cells, whose corners may lie anywhere")
    for name in recipe["inputs"]:
        if name not in given and name not in file.point_data:
            raise NotInPieces(f"the input '{name}' is not an array of the file")
    points = file.points(at)
    if recipe["dim"] == 2 and np.any(points[:, 2] != file.points(slice(0, 1))[0, 2]):
        raise ValueError(
            "the surrogate was trained on points in the plane z = 0, the mesh is not flat"
        )
    data = Data(pos=float_tensor(points[:, : recipe["dim"]]))
    columns = [
        torch.full((len(points), 1), float(given[name]))
        if name in given
        else float_tensor(file.rows(name, at))
        for name in recipe["inputs"]
    ]
    if columns:
        data.x = torch.cat(columns, dim=1)
    return data


def truth_of_pieces(file: PieceFile, recipe: Recipe, at: slice) -> torch.Tensor | None:
    """Some rows of the fields to be predicted, `[n, c]`, if the file has all of them."""
    columns = []
    for name, component, factor in recipe.get("outputs", ()):
        array = file.point_data.get(name)
        if array is None or component >= array.width:
            return None
        columns.append(factor * file.rows(name, at)[:, component])
    return float_tensor(np.stack(columns, axis=1)) if columns else None
