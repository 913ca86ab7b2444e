"""Between PyG `Data` (pos, face, cells) and pyvista meshes, both ways."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from flare_geo.viz.theme import import_pyvista

if TYPE_CHECKING:
    import pyvista as pv
    from torch_geometric.data import Data

# VTK's cell numbers by corner count. Four corners are a quadrilateral in 2-D, a tetrahedron in 3-D.
PLANE_CELLS = {3: 5, 4: 9, 6: 22, 8: 23}
SOLID_CELLS = {3: 5, 4: 10, 5: 14, 6: 13, 8: 12, 10: 24, 20: 25}


def to_pyvista(data: "Data", **fields: Any) -> "pv.PolyData | pv.UnstructuredGrid":
    """Turn a PyG `Data` into a pyvista mesh that carries `fields`.

    Connectivity decides the mesh: `cells` gives an `UnstructuredGrid`, `face` a triangle
    `PolyData`, neither a cloud of vertices. Points in the plane get z = 0.

    Args:
        data: `pos [n, 2|3]`; optional `face [3, f]`; optional `cells [m, k]` whose corner count
            says what they are (2-D: 3, 4, 6, 8; 3-D: 3, 4, 5, 6, 8, 10, 20; VTK's corner order).
        **fields: arrays or tensors `[n]` or `[n, c]`, attached as point data, or one row per
            face or cell, attached as cell data. Units are kept as they are.

    Raises:
        ValueError: no points, indices outside the points, or a field of another length.
        ImportError: pyvista is not installed.

    Example::

        mesh = to_pyvista(data, stress=data.y, error=pred - data.y)
        mesh.save("case.vtp")
    """
    pv = import_pyvista()
    if data.pos is None:
        raise ValueError(f"data has no pos, only {sorted(data.keys())}")
    points = to_numpy(data.pos, "pos")
    if points.ndim != 2 or points.shape[1] not in (2, 3):
        raise ValueError(f"pos must be [n, 2] or [n, 3], got {list(points.shape)}")
    if len(points) == 0:
        raise ValueError("the mesh is empty: pos has 0 points, so there is nothing to draw")
    plane = points.shape[1] == 2
    if plane:
        points = np.column_stack([points, np.zeros(len(points), points.dtype)])

    cells, face = getattr(data, "cells", None), getattr(data, "face", None)
    if cells is not None:
        index = _corners(cells, len(points), "cells")
        kinds = PLANE_CELLS if plane else SOLID_CELLS
        if index.shape[1] not in kinds:
            raise ValueError(
                f"cells must have {_either(kinds)} corners for {2 if plane else 3}-D points, "
                f"got {list(index.shape)}"
            )
        mesh = pv.UnstructuredGrid({kinds[index.shape[1]]: index}, points)
    elif face is not None:
        if face.ndim != 2 or face.shape[0] != 3:
            raise ValueError(f"face must be [3, f], got {list(face.shape)}: did you mean face.T?")
        mesh = pv.PolyData.from_regular_faces(points, _corners(face.T, len(points), "face"))
    else:
        mesh = pv.PolyData(points)

    for name, value in fields.items():
        array = to_numpy(value, name)
        per_cell = len(array) != mesh.n_points and len(array) == mesh.n_cells
        if array.ndim not in (1, 2) or not (per_cell or len(array) == mesh.n_points):
            raise ValueError(
                f"{name} must have one row per point ({mesh.n_points}) or per cell "
                f"({mesh.n_cells}), got {list(array.shape)}"
            )
        (mesh.cell_data if per_cell else mesh.point_data)[name] = array
    return mesh


def from_pyvista(
    mesh: "pv.DataSet",
    y: "str | list[str] | None" = None,
    x: "str | list[str] | None" = None,
    *,
    dim: int | None = None,
) -> "Data":
    """Turn a pyvista mesh into a PyG `Data`; `to_pyvista` brings it back.

    Surfaces become `face [3, f]` (polygons are cut into triangles), grids of one kind of cell
    become `cells [m, k]`, meshes without connectivity stay clouds. The order of points is kept.

    Args:
        mesh: any pyvista data set.
        y: name or names of the point arrays that become `y [n, c]`, side by side.
        x: the same for `x [n, f]`.
        dim: 2 or 3 columns of `pos`; None takes 2 when every z is exactly zero.

    Returns:
        `Data(pos [n, 2|3] float32, face | cells int64, y, x float32)`.

    Raises:
        ValueError: no points, a missing or per-cell array, or solid cells of several kinds.

    Example::

        data = from_pyvista(pv.read("case.vtu"), y="Displacement")
    """
    pv = import_pyvista()
    from torch_geometric.data import Data

    if mesh.n_points == 0:
        raise ValueError("the mesh is empty: it has 0 points")
    points = np.asarray(mesh.points)
    if dim is None:
        dim = 3 if np.any(points[:, 2] != 0) else 2
    data = Data(pos=_float_tensor(points[:, :dim]))

    surface = mesh
    if not isinstance(mesh, pv.PolyData):
        grid = mesh.cast_to_unstructured_grid()
        kinds = set(np.unique(grid.celltypes).tolist())
        known = (PLANE_CELLS if dim == 2 else SOLID_CELLS).values()
        if len(kinds) == 1 and kinds <= set(known) - {5}:
            data.cells = torch.from_numpy(np.array(grid.cells_dict[kinds.pop()], dtype=np.int64))
            return _with_fields(data, mesh, y=y, x=x)
        if not kinds <= {0, 1, 2, 5, 6, 7, 8, 9}:  # vertices, triangles, strips, polygons, quads
            raise ValueError(
                f"the mesh has cells of VTK types {sorted(kinds)}, `cells` holds one kind: "
                "pass mesh.triangulate() for tetrahedra or mesh.extract_surface() for its skin"
            )
        surface = pv.PolyData(points)
        if kinds & {5, 6, 7, 8, 9}:
            triangles = grid.triangulate().cells_dict[5]
            surface = pv.PolyData.from_regular_faces(points, triangles)
    if surface.GetNumberOfPolys():
        face = np.asarray(surface.triangulate().regular_faces, dtype=np.int64)
        data.face = torch.from_numpy(face).t().contiguous()
    return _with_fields(data, mesh, y=y, x=x)


def as_mesh(mesh_or_data: Any) -> "pv.DataSet":
    """Accept what the plot functions accept: a pyvista (or VTK) mesh, or a `Data`.

    Raises:
        TypeError: neither of them.
        ValueError: the mesh is empty.
    """
    pv = import_pyvista()
    if getattr(mesh_or_data, "pos", None) is not None:
        return to_pyvista(mesh_or_data)
    mesh = mesh_or_data
    if not isinstance(mesh, pv.DataSet) and hasattr(mesh, "GetClassName"):
        mesh = pv.wrap(mesh)
    if not isinstance(mesh, pv.DataSet):
        raise TypeError(
            f"expected a PyG Data with pos or a pyvista mesh, got {type(mesh_or_data).__name__}"
        )
    if mesh.n_points == 0:
        raise ValueError("the mesh is empty: it has 0 points, so there is nothing to draw")
    return mesh


def to_numpy(value: Any, name: str) -> np.ndarray:
    """Bring a tensor, array or sequence to a NumPy array of real numbers on the CPU."""
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        value = value.float() if value.dtype in (torch.bfloat16, torch.float16) else value
        value = value.numpy()
    array = np.asarray(value)
    if array.dtype.kind not in "fiub" or array.ndim == 0:
        what = array.dtype if array.ndim else type(value).__name__
        raise ValueError(f"{name} must be an array of real numbers, got {what}")
    return array.astype(np.uint8) if array.dtype.kind == "b" else array


def _corners(index: Any, num_points: int, name: str) -> np.ndarray:
    array = to_numpy(index, name)
    if array.ndim != 2 or array.dtype.kind not in "iu":
        raise ValueError(f"{name} must be a 2-D integer array, got {array.dtype} {array.shape}")
    if array.size and (array.min() < 0 or array.max() >= num_points):
        raise ValueError(
            f"{name} must refer to points 0..{num_points - 1}, got {array.min()}..{array.max()}"
        )
    return np.ascontiguousarray(array, dtype=np.int64)


def _with_fields(data: "Data", mesh: "pv.DataSet", **names: "str | list[str] | None") -> "Data":
    for key, wanted in names.items():
        if wanted is None:
            continue
        columns = []
        for name in [wanted] if isinstance(wanted, str) else wanted:
            if name not in mesh.point_data:
                where = (
                    "is per cell: call mesh.cell_data_to_point_data() first"
                    if name in mesh.cell_data
                    else f"is not in the mesh, which has {sorted(mesh.point_data.keys())}"
                )
                raise ValueError(f"{key} must name point arrays: '{name}' {where}")
            array = np.asarray(mesh.point_data[name])
            columns.append(array.reshape(len(array), -1))
        data[key] = _float_tensor(np.concatenate(columns, axis=1))
    return data


def _float_tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(array, dtype=np.float32, order="C"))


def _either(numbers: Any) -> str:
    *head, last = sorted(numbers)
    return f"{', '.join(map(str, head))} or {last}"
