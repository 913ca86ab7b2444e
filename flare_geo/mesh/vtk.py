"""Between PyG `Data` (pos, face, cells) and pyvista meshes, both ways."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from flare_geo.mesh.fields import At, float_tensor, pick, place, to_numpy
from flare_geo.mesh.polygons import cell_centres, point_geometry, polygon_geometry, unit
from flare_geo.mesh.quiet import vtk_messages
from flare_geo.pyg import Data

if TYPE_CHECKING:
    import pyvista as pv

# VTK's cell numbers by corner count. Four corners are a quadrilateral in 2-D, a tetrahedron in 3-D.
PLANE_CELLS = {3: 5, 4: 9, 6: 22, 8: 23}
SOLID_CELLS = {3: 5, 4: 10, 5: 14, 6: 13, 8: 12, 10: 24, 13: 27, 15: 26, 20: 25, 27: 29}
TRIANGLE = 5
FLAT = {5, 7, 8, 9, 22, 23}  # triangle, polygon, pixel, quadrilateral, quadratic ones
LOW = {0, 1, 2, 3, 4, 21}  # nothing, vertices, lines
# Flat cells whose points VTK does not list in the order of their outline: that order.
OUTLINE = {8: [0, 1, 3, 2], 22: [0, 3, 1, 4, 2, 5], 23: [0, 4, 1, 5, 2, 6, 3, 7]}
# Cells of images (pixel, voxel) as quadrilaterals and hexahedra.
UNFOLDED = {8: [0, 1, 3, 2], 11: [0, 1, 3, 2, 4, 5, 7, 6]}


def import_pyvista() -> Any:
    """Return the pyvista module, or say in one line what to install.

    Raises:
        ImportError: pyvista is not installed.
    """
    try:
        import pyvista
    except ModuleNotFoundError as error:
        raise ImportError('meshes need pyvista: pip install "flare-geo[viz]"') from error
    return pyvista


def to_pyvista(data: Data, **fields: Any) -> pv.PolyData | pv.UnstructuredGrid:
    """Turn a PyG `Data` into a pyvista mesh that carries `fields`.

    Connectivity decides the mesh: `cells` gives an `UnstructuredGrid`, `face` a triangle
    `PolyData`, neither a cloud of vertices. Points in the plane get z = 0. To put a prediction
    onto the very mesh that a `Data` came from, use `add_fields`.

    Args:
        data: `pos [n, 2|3]`; optional `face [3, f]`; optional `cells [m, k]` whose corner count
            says what they are (2-D: 3, 4, 6, 8; 3-D: 3, 4, 5, 6, 8, 10, 13, 15, 20, 27; VTK's
            corner order).
        **fields: arrays or tensors `[n]` or `[n, c]`, attached as point data, or one row per
            face or cell, attached as cell data. Units are kept as they are.

    Raises:
        ValueError: no points, indices outside the points, or a field of another length.
        ImportError: pyvista is not installed.

    Example::

        mesh = to_pyvista(data, stress=data.y, error=pred - data.y)
        write_mesh(mesh, "case.vtp")
    """
    pv = import_pyvista()
    points = checked_points(data)
    plane = points.shape[1] == 2
    if plane:
        points = np.column_stack([points, np.zeros(len(points), points.dtype)])
    cells, face = data.get("cells"), data.get("face")
    if cells is not None:
        kinds = PLANE_CELLS if plane else SOLID_CELLS
        index = checked_cells(cells, len(points), kinds, plane)
        mesh = pv.UnstructuredGrid({kinds[index.shape[1]]: index}, points)
    elif face is not None:
        mesh = pv.PolyData.from_regular_faces(points, checked_face(face, len(points)))
    else:
        mesh = pv.PolyData(points)
    for name, value in fields.items():
        array = to_numpy(value, name)
        where = place(array, name, mesh.n_points, mesh.n_cells)
        (mesh.point_data if where == "point" else mesh.cell_data)[name] = array
    return mesh


def from_pyvista(
    mesh: pv.DataSet,
    y: str | Sequence[str] | None = None,
    x: str | Sequence[str] | None = None,
    *,
    dim: int | None = None,
    at: At = "point",
) -> Data:
    """Turn a pyvista mesh into a PyG `Data`; `to_pyvista` brings it back.

    With ``at="point"`` the points of the cloud are those of the mesh, in their order. Surfaces
    become `face [3, f]` (polygons are cut into triangles), grids of one kind of solid cell
    `cells [m, k]`, meshes without connectivity stay clouds. `cells` holds one kind only: where
    solid cells are of several kinds (hexahedra and wedges), `face` is their skin, for pictures.
    Vertices, lines and, in a solid mesh, flat cells are boundary marks and are left out.

    With ``at="cell"`` the points of the cloud are the centres (mean of the corners) of all cells,
    in their order, without connectivity. For a surface `area [m, 1]` and, in space, the unit
    `normal [m, 3]` are added (zero for cells without area).

    Args:
        mesh: any pyvista data set.
        y: name or names of the arrays that become `y [n, c]`, side by side.
        x: the same for `x [n, f]`.
        dim: 2 or 3 columns of `pos`; None takes 2 when every z is exactly zero.
        at: "point" or "cell".

    Returns:
        `Data(pos [n, 2|3] float32, face | cells int64, y, x float32)`.

    Raises:
        ValueError: no points, or an array that is missing or at the other place.
        ImportError: pyvista is not installed.

    Example::

        data = from_pyvista(read_mesh("case.vtu"), y="Displacement")
    """
    import_pyvista()
    if at not in ("point", "cell"):
        raise ValueError(f'at must be "point" or "cell", got "{at}"')
    if dim not in (None, 2, 3):
        raise ValueError(f"dim must be 2, 3 or None, got {dim}")
    if mesh.n_points == 0:
        raise ValueError("the mesh is empty: it has 0 points")
    if at == "cell" and mesh.n_cells == 0:
        raise ValueError('the mesh has no cells: pass at="point"')
    points = np.asarray(mesh.points)
    if dim is None:
        dim = 3 if np.any(points[:, 2] != 0) else 2
    if at == "point":
        data = Data(pos=float_tensor(points[:, :dim]))
        _connect(data, mesh, dim)
    elif is_surface(mesh):
        connectivity, offsets = polygons_of(mesh)[1:]
        centre, area = polygon_geometry(points, connectivity, offsets)
        data = Data(pos=float_tensor(centre[:, :dim]))
        data.area = float_tensor(np.linalg.norm(area, axis=1, keepdims=True))
        if dim == 3:
            data.normal = float_tensor(unit(area))
    else:
        grid = mesh.cast_to_unstructured_grid()
        centre = cell_centres(points, *_corners(grid))
        data = Data(pos=float_tensor(centre[:, :dim]))
    here, there = dict(mesh.point_data.items()), dict(mesh.cell_data.items())
    if at == "cell":
        here, there = there, here
    for key, names in (("y", y), ("x", x)):
        if names is not None:
            data[key] = pick(names, key, here, there, at)
    return data


def is_surface(mesh: pv.DataSet) -> bool:
    """Say whether all cells of a mesh are flat: polygons, triangles, quadrilaterals."""
    if isinstance(mesh, import_pyvista().PolyData):
        return 0 < mesh.n_cells == mesh.GetNumberOfPolys()
    return mesh.n_cells > 0 and _kinds(mesh.cast_to_unstructured_grid()) <= FLAT


def polygons_of(mesh: pv.DataSet) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Points, connectivity and offsets of a surface, as `polygon_geometry` takes them.

    Cells and corners come in their own order, nothing is cut into triangles. The arrays may be
    those of the mesh itself: they are for reading.

    Shapes:
        ``[n, 3]``, ``[k]`` and ``[f + 1]``.

    Raises:
        ValueError: the mesh has cells that are not flat, or none.
    """
    pv = import_pyvista()
    if not is_surface(mesh):
        raise ValueError(
            f"the {type(mesh).__name__} is not a surface of polygons alone (it has {mesh.n_cells} "
            "cells): pass mesh.extract_surface(), or the mesh without its lines and vertices"
        )
    points = np.asarray(mesh.points)
    if isinstance(mesh, pv.PolyData):
        polys = mesh.GetPolys()
        connectivity = np.asarray(pv.convert_array(polys.GetConnectivityArray()))
        return points, connectivity, np.asarray(pv.convert_array(polys.GetOffsetsArray()))
    grid = mesh.cast_to_unstructured_grid()
    connectivity, offsets = _corners(grid)
    for kind in _kinds(grid) & OUTLINE.keys():
        start = offsets[:-1][grid.celltypes == kind][:, None]
        order = np.array(OUTLINE[kind])
        connectivity[start + np.arange(len(order))] = connectivity[start + order]
    return points, connectivity, offsets


def surface_geometry(mesh: pv.DataSet, at: At) -> tuple[NDArray[Any], NDArray[Any]]:
    """Unit normals ``[n, 3]`` and areas ``[n]`` of a surface, per point or per cell, in float64.

    Per cell as in :func:`polygon_geometry`, per point as in :func:`point_geometry`.

    Raises:
        ValueError: the mesh is not a surface.
    """
    points, connectivity, offsets = polygons_of(mesh)
    _, area = polygon_geometry(points, connectivity, offsets)
    if at == "cell":
        return unit(area), np.linalg.norm(area, axis=1)
    return point_geometry(area, connectivity, offsets, len(points))


def as_mesh(mesh_or_data: Any) -> pv.DataSet:
    """Accept what functions that draw accept: a `Data`, or a mesh of any library; order kept.

    Raises:
        TypeError: neither a `Data` nor a mesh of pyvista, VTK, meshio or trimesh.
        ValueError: the mesh is empty.
    """
    pv = import_pyvista()
    if getattr(mesh_or_data, "pos", None) is not None:
        return to_pyvista(mesh_or_data)
    mesh = mesh_or_data
    library = type(mesh).__module__.split(".")[0]
    if library == "meshio" and hasattr(mesh, "cells_dict"):
        mesh = pv.from_meshio(mesh)
    elif library == "trimesh" or hasattr(mesh, "GetClassName"):
        mesh = pv.wrap(mesh)
    if not isinstance(mesh, pv.DataSet):
        raise TypeError(
            "expected a PyG Data with pos or a mesh of pyvista, meshio or trimesh, got "
            f"{type(mesh_or_data).__name__}"
        )
    if mesh.n_points == 0:
        raise ValueError("the mesh is empty: it has 0 points, so there is nothing to draw")
    return mesh


def checked_points(data: Data) -> NDArray[Any]:
    """`pos` of a `Data` as an array `[n, 2|3]` with n > 0, else ValueError."""
    if data.pos is None:
        raise ValueError(f"data has no pos, only {sorted(data.keys())}")
    points = to_numpy(data.pos, "pos")
    if points.ndim != 2 or points.shape[1] not in (2, 3):
        raise ValueError(f"pos must be [n, 2] or [n, 3], got {list(points.shape)}")
    if len(points) == 0:
        raise ValueError("the mesh is empty: pos has 0 points")
    return points


def checked_face(face: Any, num_points: int) -> NDArray[np.int64]:
    """`face [3, f]` as triangles `[f, 3]`, else ValueError."""
    if face.ndim != 2 or face.shape[0] != 3:
        raise ValueError(f"face must be [3, f], got {list(face.shape)}: did you mean face.T?")
    return _checked_index(face.T, num_points, "face")


def checked_cells(cells: Any, num_points: int, kinds: Any, plane: bool) -> NDArray[np.int64]:
    """`cells [m, k]` with k among `kinds`, else ValueError."""
    index = _checked_index(cells, num_points, "cells")
    if index.shape[1] not in kinds:
        *head, last = sorted(kinds)
        raise ValueError(
            f"cells must have {', '.join(map(str, head))} or {last} corners for "
            f"{2 if plane else 3}-D points, got {list(index.shape)}"
        )
    return index


def _checked_index(index: Any, num_points: int, name: str) -> NDArray[np.int64]:
    array = to_numpy(index, name)
    if array.ndim != 2 or array.dtype.kind not in "iu":
        raise ValueError(f"{name} must be a 2-D integer array, got {array.dtype} {array.shape}")
    if array.size and (array.min() < 0 or array.max() >= num_points):
        raise ValueError(
            f"{name} must refer to points 0..{num_points - 1}, got {array.min()}..{array.max()}"
        )
    return np.ascontiguousarray(array, dtype=np.int64)


def _connect(data: Data, mesh: pv.DataSet, dim: int) -> None:
    """Give `data` the connectivity that it can hold: one kind of cells, or triangles."""
    if isinstance(mesh, import_pyvista().PolyData):
        if mesh.GetNumberOfPolys() or mesh.GetNumberOfStrips():
            data.face = _triangles(mesh)
        return
    grid = mesh.cast_to_unstructured_grid()
    solid = _kinds(grid) - FLAT - LOW
    kinds = solid or _kinds(grid) & FLAT
    if kinds in ({8}, {11}) and (solid or dim == 2):
        (kind,) = kinds
        data.cells = torch.from_numpy(np.array(_cells(grid, kind)[:, UNFOLDED[kind]]))
    elif len(kinds) == 1 and kinds <= _single(dim) - {TRIANGLE}:
        data.cells = torch.from_numpy(_cells(grid, *kinds))
    elif kinds == {TRIANGLE}:
        data.face = torch.from_numpy(_cells(grid, TRIANGLE)).t().contiguous()
    elif solid:
        data.face = _triangles(*_skin(_only(grid, solid)))
    elif kinds:
        data.face = _triangles(_polydata(*polygons_of(_only(grid, kinds))))


def _single(dim: int) -> set[int]:
    return set((PLANE_CELLS if dim == 2 else SOLID_CELLS).values())


def _triangles(surface: pv.PolyData, point_ids: NDArray[Any] | None = None) -> torch.Tensor:
    """Triangles of a surface, `[3, f]`; `point_ids` says what to call its points."""
    array = import_pyvista().convert_array
    sizes = np.diff(np.asarray(array(surface.GetPolys().GetOffsetsArray())))
    if surface.GetNumberOfStrips() or np.any(sizes != 3):
        with vtk_messages():  # it remarks on every polygon without area, of which it makes nothing
            surface = surface.triangulate()
    corners = np.array(array(surface.GetPolys().GetConnectivityArray()), dtype=np.int64)
    face = corners.reshape(-1, 3)
    if point_ids is not None:
        face = point_ids[face]
    return torch.from_numpy(face).t().contiguous()


def _skin(grid: pv.UnstructuredGrid) -> tuple[pv.PolyData, NDArray[np.int64]]:
    """The outer faces of solid cells, and which points of the grid their points are."""
    from vtkmodules.vtkFiltersGeometry import vtkDataSetSurfaceFilter

    pv = import_pyvista()
    skin = vtkDataSetSurfaceFilter()
    skin.SetInputData(grid)
    skin.PassThroughPointIdsOn()
    skin.SetNonlinearSubdivisionLevel(0)
    with vtk_messages():
        skin.Update()
    surface = pv.wrap(skin.GetOutput())
    ids = np.asarray(surface.point_data["vtkOriginalPointIds"], dtype=np.int64)
    return surface, ids


def _polydata(
    points: NDArray[Any], connectivity: NDArray[Any], offsets: NDArray[Any]
) -> pv.PolyData:
    sizes = np.diff(offsets)
    faces = np.insert(connectivity, offsets[:-1], sizes)
    return import_pyvista().PolyData(points, faces)


def _only(grid: pv.UnstructuredGrid, kinds: set[int]) -> pv.UnstructuredGrid:
    """The grid with its cells of these kinds alone, all points kept."""
    if _kinds(grid) <= kinds:
        return grid
    wanted = np.isin(grid.celltypes, list(kinds))
    connectivity, offsets = _corners(grid)
    sizes = np.diff(offsets)
    kept = connectivity[np.repeat(wanted, sizes)]
    starts = np.cumsum(sizes[wanted]) - sizes[wanted]
    cells = np.insert(kept, starts, sizes[wanted])
    return import_pyvista().UnstructuredGrid(cells, grid.celltypes[wanted], np.asarray(grid.points))


def _cells(grid: pv.UnstructuredGrid, kind: int) -> NDArray[np.int64]:
    """Corners of the cells of one kind, `[m, k]`."""
    connectivity, offsets = _corners(grid)
    wanted = grid.celltypes == kind
    size = int(np.diff(offsets)[wanted][0])
    return connectivity[offsets[:-1][wanted][:, None] + np.arange(size)]


def _corners(grid: pv.UnstructuredGrid) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """A copy of the connectivity and offsets of a grid."""
    array = import_pyvista().convert_array
    cells = grid.GetCells()
    connectivity = np.array(array(cells.GetConnectivityArray()), dtype=np.int64)
    return connectivity, np.array(array(cells.GetOffsetsArray()), dtype=np.int64)


def _kinds(grid: pv.UnstructuredGrid) -> set[int]:
    return set(np.unique(grid.celltypes).tolist())
