"""Between PyG `Data` and `meshio.Mesh`, both ways."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from flare_geo.mesh.fields import At, place, to_numpy
from flare_geo.mesh.vtk import (
    checked_cells,
    checked_face,
    checked_points,
    from_pyvista,
    import_pyvista,
)
from flare_geo.pyg import Data

if TYPE_CHECKING:
    import meshio
    import pyvista as pv

# meshio's names of cells by corner count; its corner order is VTK's. It knows pyramid13 and wedge15
# by name but cannot hold them (5.3).
PLANE_CELLS = {3: "triangle", 4: "quad", 6: "triangle6", 8: "quad8"}
SOLID_CELLS = {
    3: "triangle",
    4: "tetra",
    5: "pyramid",
    6: "wedge",
    8: "hexahedron",
    10: "tetra10",
    20: "hexahedron20",
    27: "hexahedron27",
}


def to_meshio(data: Data, **fields: Any) -> meshio.Mesh:
    """Turn a PyG `Data` into a `meshio.Mesh` that carries `fields`.

    `cells` and `face` become its cells; without them every point is a vertex. Points in the plane
    stay in the plane. Arguments and errors as those of `to_pyvista`.

    Example::

        to_meshio(data, stress=data.pred).write("case.inp")
    """
    import meshio

    points = checked_points(data)
    plane = points.shape[1] == 2
    cells, face = data.get("cells"), data.get("face")
    if cells is not None:
        kinds = PLANE_CELLS if plane else SOLID_CELLS
        corners = checked_cells(cells, len(points), kinds, plane)
        kind = kinds[corners.shape[1]]
    elif face is not None:
        corners, kind = checked_face(face, len(points)), "triangle"
    else:
        corners, kind = np.arange(len(points))[:, None], "vertex"
    point_data, cell_data = {}, {}
    for name, value in fields.items():
        array = to_numpy(value, name)
        if place(array, name, len(points), len(corners)) == "point":
            point_data[name] = array
        else:
            cell_data[name] = [array]
    return meshio.Mesh(points, [(kind, corners)], point_data, cell_data)


def from_meshio(
    mesh: meshio.Mesh,
    y: str | Sequence[str] | None = None,
    x: str | Sequence[str] | None = None,
    *,
    dim: int | None = None,
    at: At = "point",
) -> Data:
    """Turn a `meshio.Mesh` into a PyG `Data`; `to_meshio` brings it back.

    Arguments, result and errors are those of `from_pyvista`, which does the work. With
    `at="cell"` the cells are those of all blocks, one block after the other.

    Example::

        data = from_meshio(meshio.read("bracket.inp"), y="S_Mises")
    """
    if dim is None and mesh.points.shape[1] == 2:
        dim = 2
    return from_pyvista(grid_from_meshio(mesh), y, x, dim=dim, at=at)


def grid_from_meshio(mesh: meshio.Mesh) -> pv.UnstructuredGrid:
    """A `meshio.Mesh` as a pyvista grid, its sets left out; the mesh itself is not touched.

    Raises:
        ValueError: no points.
    """
    import meshio

    pv = import_pyvista()
    if len(mesh.points) == 0:
        raise ValueError("the mesh is empty: it has 0 points")
    if not mesh.cells:
        grid = pv.UnstructuredGrid()
        grid.points = np.pad(mesh.points, ((0, 0), (0, 3 - mesh.points.shape[1])))
        for name, array in mesh.point_data.items():
            grid.point_data[name] = array
        return grid
    without_sets = meshio.Mesh(mesh.points, mesh.cells, mesh.point_data, mesh.cell_data)
    return pv.from_meshio(without_sets)
