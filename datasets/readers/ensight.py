"""Reads the files of EnSight Gold: C binary, Fortran binary and text.

The format is described in the EnSight user manual, chapter "EnSight Gold Casefile Format".
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

COMPONENTS = {"scalar": 1, "vector": 3, "tensor symm": 6, "tensor asym": 9}
NODES = {
    prefix + kind: int(re.sub(r"\D", "", kind) or 1)
    for prefix in ("", "g_")  # ghosts
    for kind in (
        *("point", "bar2", "bar3", "tria3", "tria6", "quad4", "quad8", "tetra4", "tetra10"),
        *("pyramid5", "pyramid13", "penta6", "penta15", "hexa8", "hexa20"),
    )
}
LINE = 80  # bytes of a line in a binary file


class Part(NamedTuple):
    """Where a part's nodes and hexahedra lie in the mesh, and the cells it has of each kind."""

    first_node: int
    num_nodes: int
    first_cell: int
    kinds: dict[str, int]


class EnSightMesh(NamedTuple):
    """Parts side by side; a node of two parts is there twice.

    Shapes:
        ``points [n, 3]`` float32, ``cells [m, 8]`` int64: hexahedra. ``parts`` by number.
    """

    points: NDArray[np.float32]
    cells: NDArray[np.int64]
    parts: dict[int, Part]

    @property
    def left_out(self) -> dict[str, int]:
        """How many cells of other kinds the file has."""
        totals: dict[str, int] = {}
        for part in self.parts.values():
            for kind, count in part.kinds.items():
                totals[kind] = totals.get(kind, 0) + count
        totals.pop("hexa8", None)
        return totals


def read_geometry(path: str | Path, within: int = 0) -> EnSightMesh:
    """Points and hexahedra of a geometry file.

    Args:
        path: The file.
        within: Which state, if the file holds several.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is cut off, or holds structured blocks, polygons or polyhedra.
    """
    file = _open(Path(path), within)
    if file.begins or isinstance(file, _Binary):
        file.line()  # BEGIN TIME STEP, C Binary or Fortran Binary
    file.line(), file.line()  # description
    node_ids = file.line().split()[-1:]
    cell_ids = file.line().split()[-1:]
    points, cells, parts = [], [], {}
    first_node = first_cell = 0
    word = file.word()
    if word == "extents":
        file.floats(6, per_line=2)
        word = file.word()
    while word == "part":
        number, _ = file.ints(1)[0], file.line()
        if (what := file.line()) != "coordinates":
            raise ValueError(
                f"{path}: part {number} holds '{what}', only unstructured parts are read"
            )
        n = int(file.ints(1)[0])
        if node_ids in (["given"], ["ignore"]):
            file.ints(n)
        points.append(np.stack([file.floats(n) for _ in range(3)], axis=1))  # [n, 3]
        kinds: dict[str, int] = {}
        start = first_cell
        while (word := file.word()) in NODES:
            count = int(file.ints(1)[0])
            if cell_ids in (["given"], ["ignore"]):
                file.ints(count)
            nodes = file.ints(count * NODES[word], per_line=NODES[word]).reshape(count, -1)
            if nodes.size and not 1 <= nodes.min() <= nodes.max() <= n:
                raise ValueError(f"{path}: {word} of part {number} name nodes that are not there")
            kinds[word] = kinds.get(word, 0) + count
            if word == "hexa8":
                cells.append(nodes - 1 + first_node)  # [m, 8]
                first_cell += count
        parts[int(number)] = Part(first_node, n, start, kinds)
        first_node += n
    if word not in ("", "END TIME STEP"):
        raise ValueError(f"{path}: expected a part or cells, got '{word[:40]}'")
    if not points:
        raise ValueError(f"{path}: it holds no part")
    none = np.empty((0, 8), dtype=np.int64)
    return EnSightMesh(
        np.concatenate(points).astype(np.float32), np.concatenate([none, *cells]), parts
    )


def read_variable(
    path: str | Path, mesh: EnSightMesh, kind: str, per: str = "node", within: int = 0
) -> NDArray[np.float32]:
    """Values of a variable on a mesh, NaN where the file says nothing.

    Args:
        path: The file.
        mesh: The mesh of this state.
        kind: "scalar", "vector", "tensor symm" (xx, yy, zz, xy, xz, yz) or "tensor asym".
        per: "node" or "element".
        within: Which state, if the file holds several.

    Shapes:
        ``[n, c]`` for nodes, ``[m, c]`` for hexahedra.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is cut off or belongs to another mesh.
    """
    file = _open(Path(path), within)
    file.line()  # description
    if file.begins:
        file.line()
    width = COMPONENTS[kind]
    rows = len(mesh.points) if per == "node" else len(mesh.cells)
    values = np.full((rows, width), np.nan, dtype=np.float32)
    word = file.word()
    while word == "part":
        number = int(file.ints(1)[0])
        if number not in mesh.parts:
            raise ValueError(f"{path}: it has a part {number}, its mesh has not: of another mesh")
        part = mesh.parts[number]
        while (word := file.word()) not in ("", "part", "END TIME STEP"):
            what, *undefined = word.split()
            count = part.num_nodes if what == "coordinates" else part.kinds.get(what)
            if count is None or undefined not in ([], ["undef"]):
                raise ValueError(
                    f"{path}: expected values for part {number}, got '{word[:40]}': cut off, "
                    "of another mesh or partial"
                )
            missing = file.floats(1)[0] if undefined else None
            block = np.stack([file.floats(count) for _ in range(width)], axis=1)  # [count, c]
            if missing is not None:
                block[block == missing] = np.nan
            if what == ("coordinates" if per == "node" else "hexa8"):
                start = part.first_node if per == "node" else part.first_cell
                values[start : start + count] = block
    if word not in ("", "END TIME STEP"):
        raise ValueError(f"{path}: expected a part, got '{word[:40]}': of another mesh")
    return values


def _open(path: Path, within: int) -> _Text | _Binary:
    content = path.read_bytes()
    records = content[:4] == content[84:88] and content[:4] in (b"P\0\0\0", b"\0\0\0P")
    begins = [match.start() for match in re.finditer(rb"BEGIN TIME STEP", content)]
    if begins and within >= len(begins):
        raise ValueError(f"{path}: it holds {len(begins)} states, state {within + 1} was asked for")
    start = begins[within] - (4 if records else 0) if begins else 0
    if b"\n" in content[: LINE + 1] and not records:
        return _Text(path, content[start:], bool(begins))
    order = ">" if content[:4] == b"\0\0\0P" else "<"
    if not records:
        part = re.search(rb"part[ \0]{76}(.{4})", content, re.DOTALL)
        order = ">" if part and not part[1].endswith(b"\0\0") else "<"
    return _Binary(path, content, start, order, records, bool(begins))


class _Text:
    def __init__(self, path: Path, content: bytes, begins: bool) -> None:
        self.path, self.lines, self.at, self.begins = path, content.splitlines(), 0, begins
        ends = [len(line) for line in self.lines[-2:]]
        self.cut = not content.endswith(b"\n") and ends[-1:] < ends[:1]  # within a number

    def word(self) -> str:
        """The next line that is not empty, "" at the end."""
        while self.at < len(self.lines):
            self.at += 1
            if text := self.lines[self.at - 1].strip():
                return text.decode(errors="replace")
        return ""

    def line(self) -> str:
        self.at += 1
        if self.at > len(self.lines):
            raise ValueError(f"{self.path}: the file ends early; it was cut off")
        return self.lines[self.at - 1].decode(errors="replace").strip()

    def ints(self, count: int, per_line: int = 1) -> NDArray[np.int64]:
        return self._numbers(count, per_line, np.int64)

    def floats(self, count: int, per_line: int = 1) -> NDArray[Any]:
        return self._numbers(count, per_line, np.float64)

    def _numbers(self, count: int, per_line: int, dtype: Any) -> NDArray[Any]:
        lines = self.lines[self.at : self.at + count // per_line]
        self.at += len(lines)
        try:
            numbers = np.array(b" ".join(lines).split(), dtype=dtype)
        except ValueError:
            numbers = np.empty(0)
        if len(numbers) != count or (self.cut and self.at == len(self.lines)):
            raise ValueError(
                f"{self.path}: expected {count} numbers before line {self.at + 1}: cut off, or of "
                "another mesh"
            )
        return numbers


class _Binary:
    def __init__(
        self, path: Path, content: bytes, at: int, order: str, records: bool, begins: bool
    ) -> None:
        self.path, self.content, self.at = path, content, at
        self.order, self.records, self.begins = order, records, begins

    def word(self) -> str:
        """The next line, "" at the end."""
        return self.line() if self.at < len(self.content) else ""

    def line(self) -> str:
        return self._take(LINE).split(b"\0")[0].decode(errors="replace").strip()

    def ints(self, count: int, per_line: int = 1) -> NDArray[np.int64]:
        return np.frombuffer(self._take(4 * count), self.order + "i4").astype(np.int64)

    def floats(self, count: int, per_line: int = 1) -> NDArray[Any]:
        return np.frombuffer(self._take(4 * count), self.order + "f4").astype(np.float32)

    def _take(self, size: int) -> bytes:
        mark = 4 if self.records else 0
        start = self.at + mark
        data = self.content[start : start + size]
        self.at = start + size + mark
        if size < 0 or self.at > len(self.content):
            raise ValueError(f"{self.path}: the file ends early: cut off, or of another mesh")
        if mark:
            sizes = [self.content[i : i + 4] for i in (start - 4, start + size)]
            if any(int(np.frombuffer(s, self.order + "i4")[0]) != size for s in sizes):
                raise ValueError(
                    f"{self.path}: expected a record of {size} bytes: damaged, or of another mesh"
                )
        return data
