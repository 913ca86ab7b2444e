"""Where the rows of a mesh come from: a mesh in memory, or a file that is read in chunks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from flare_geo.mesh.fields import At, add_fields, array_names, to_numpy
from flare_geo.mesh.files import write_mesh
from flare_geo.mesh.vtk import as_mesh, from_pyvista, is_surface, surface_geometry
from flare_geo.pyg import Data

SUFFIX_OF = {
    "PolyData": ".vtp",
    "StructuredGrid": ".vts",
    "RectilinearGrid": ".vtr",
    "ImageData": ".vti",
}
DERIVED = ("normal", "area")

Rows = Callable[[slice], NDArray[Any]]
"""Gives some rows `[n, c]` of a field."""


class MeshSource(Protocol):
    """Rows of a mesh, some at a time. Whoever opens it closes it."""

    @property
    def at(self) -> At:
        """Whether the rows are points or cells."""

    @property
    def num_points(self) -> int:
        """Number of rows."""

    @property
    def ptr(self) -> Tensor | None:
        """`[B + 1]`, where each cloud begins; None if all rows are one cloud."""

    @property
    def widths(self) -> Mapping[str, int]:
        """Number of components of each array with such rows, by name."""

    @property
    def names(self) -> Collection[str]:
        """Names of all arrays, also of those at the other place."""

    @property
    def suffix(self) -> str:
        """Suffix of a file that holds the mesh with fields."""

    def points(self, at: slice) -> NDArray[Any]:
        """Coordinates `[n, 2|3]`."""

    def height(self, at: slice) -> tuple[float, float]:
        """The lowest and the highest z of the mesh, as far as these rows tell."""

    def rows(self, name: str, at: slice) -> NDArray[Any]:
        """Rows `[n, c]` of an array.

        Raises:
            ValueError: There is no such array; says what there is.
        """

    def write(
        self, path: Path, widths: Mapping[str, int], rows: Mapping[str, Rows], chunk_size: int
    ) -> None:
        """Write the mesh with fields added, see :func:`write_fields`."""

    def close(self) -> None:
        """Close the file, if there is one."""


class WholeMesh:
    """A mesh in memory.

    Args:
        mesh: A pyvista mesh, ``meshio.Mesh`` or ``trimesh.Trimesh``.
        at: Whether its points or its cells are the rows.
        dim: Columns of the coordinates.

    Raises:
        TypeError: Something else.
        ValueError: An empty mesh.
    """

    ptr = None

    def __init__(self, mesh: Any, at: At, dim: int) -> None:
        self.mesh, self.grid, self.at, self.dim = mesh, as_mesh(mesh), at, dim
        self.num_points: int = self.grid.n_points if at == "point" else self.grid.n_cells
        self.arrays = self.grid.point_data if at == "point" else self.grid.cell_data
        self.widths = {k: int(np.prod(np.shape(v)[1:])) for k, v in self.arrays.items()}
        self.names = array_names(mesh)
        self.suffix = SUFFIX_OF.get(type(self.grid).__name__, ".vtu")

    @cached_property
    def cloud(self) -> Data:
        """`pos`, and the connectivity, normals and areas of :func:`from_pyvista`."""
        return from_pyvista(self.grid, dim=self.dim, at=self.at)

    def points(self, at: slice) -> NDArray[Any]:
        """Coordinates `[n, dim]` in float32."""
        pos: NDArray[Any] = self.cloud.pos.numpy()
        return pos[at]

    def height(self, at: slice) -> tuple[float, float]:
        """The lowest and the highest z of the mesh."""
        z = np.asarray(self.grid.points)[:, 2]
        return z.min(), z.max()

    def rows(self, name: str, at: slice) -> NDArray[Any]:
        """Rows `[n, c]` of an array; of a surface "normal" and "area" too.

        Raises:
            ValueError: There is no such array; says what there is.
        """
        if name in self.widths:
            return to_numpy(np.asarray(self.arrays[name]), name).reshape(self.num_points, -1)[at]
        if name in DERIVED and is_surface(self.grid):
            return self._geometry[name][at]
        if name in DERIVED:
            raise ValueError(f"the surrogate needs '{name}', which only a surface of polygons has")
        there = ", ".join(sorted(self.widths)) or "none"
        raise ValueError(
            f"the surrogate needs the {self.at} array '{name}', the mesh has {there}; a value that "
            f"is the same everywhere may be given, as in --given.{name} VALUE"
        )

    def write(
        self, path: Path, widths: Mapping[str, int], rows: Mapping[str, Rows], chunk_size: int
    ) -> None:
        """Write the mesh with fields added, see :func:`write_fields`."""
        fields = {name: rows[name](slice(0, self.num_points)) for name in widths}
        write_mesh(add_fields(self.mesh, fields, at=self.at), path)

    def close(self) -> None:
        """Do nothing: there is no file."""

    @cached_property
    def _geometry(self) -> dict[str, NDArray[Any]]:
        normal, area = surface_geometry(self.grid, self.at)
        return {"normal": normal, "area": area[:, None]}


def write_fields(
    source: MeshSource,
    path: Path,
    columns: Mapping[str, slice],
    read: Callable[[slice], Tensor],
    chunk_size: int,
) -> None:
    """Write a mesh as it came, with fields added, whole or not at all.

    Args:
        source: The mesh.
        path: Where to; its suffix is that of the source, or any that holds a mesh in memory.
        columns: Which columns of the values each field has, by name.
        read: Gives some rows of the values `[n, c]`.
        chunk_size: Rows that are read at a time; of a mesh in memory, all are read at once.

    Raises:
        ValueError: The mesh has an array of such a name already.
        OSError: The disk is full.
    """
    check_names(source, columns)

    def rows(field: slice) -> Rows:
        return lambda at: read(at)[:, field].numpy()

    widths = {name: field.stop - field.start for name, field in columns.items()}
    source.write(path, widths, {name: rows(field) for name, field in columns.items()}, chunk_size)


def check_names(source: MeshSource, names: Collection[str]) -> None:
    """Raise a ValueError if a mesh has an array of one of these names already."""
    for name in names:
        if name in source.widths:
            raise ValueError(
                f"the mesh has a {source.at} array '{name}' already: rename or remove it"
            )
