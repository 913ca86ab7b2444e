"""Fields on meshes: picked out of a mesh as tensors, and attached to a copy of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

At = Literal["point", "cell"]
Mesh = TypeVar("Mesh")


def add_fields(
    mesh: Mesh, fields: Mapping[str, Any], *, at: At | None = None, overwrite: bool = False
) -> Mesh:
    """Copy a mesh as it came, with fields attached: coordinates, order, cells, arrays all stay.

    Use it to bring a prediction onto the user's own mesh: nothing of it is converted, float64
    coordinates and mixed cells included.

    Args:
        mesh: A pyvista mesh, ``meshio.Mesh`` or ``trimesh.Trimesh``.
        fields: Arrays or tensors by name, one row per point or per cell of the mesh.
        at: Whether rows are points or cells; None goes by their number, points first.
        overwrite: Replace an array of the same name at the same place.

    Shapes:
        Every field ``[n]``, ``[n, 1]`` (attached as ``[n]``) or ``[n, c]``.

    Raises:
        ValueError: a field of another length, or a name that is there already.
        TypeError: not a mesh of these libraries.

    Example:
        >>> mesh = add_fields(read_mesh("part.vtu"), {"stress": data.pred})
        >>> write_mesh(mesh, "part_predicted.vtu")
    """
    library = type(mesh).__module__.split(".")[0]
    if library not in ("pyvista", "meshio", "trimesh"):
        raise TypeError(
            f"mesh must be one of pyvista, meshio or trimesh, got {type(mesh).__qualname__}"
        )
    copy: Any = mesh.copy()  # type: ignore[attr-defined]
    if library == "trimesh":
        num_points, num_cells = len(copy.vertices), len(copy.faces)
        point_data, cell_data = copy.vertex_attributes, copy.face_attributes
    elif library == "meshio":
        sizes = [len(block.data) for block in copy.cells]
        num_points, num_cells = len(copy.points), sum(sizes)
        point_data, cell_data = copy.point_data, copy.cell_data
    else:
        num_points, num_cells = copy.n_points, copy.n_cells
        point_data, cell_data = copy.point_data, copy.cell_data
    for name, value in fields.items():
        array = to_numpy(value, name)
        array = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
        where = place(array, name, num_points, num_cells, at)
        data = point_data if where == "point" else cell_data
        if name in data and not overwrite:
            raise ValueError(
                f"the mesh has a {where} array '{name}' already: choose another name, "
                "or pass overwrite=True"
            )
        if library == "meshio" and where == "cell":
            data[name] = np.split(array, np.cumsum(sizes)[:-1])
        else:
            data[name] = array
    return copy


def array_names(mesh: Any) -> set[str]:
    """Names of all point and cell arrays of a mesh of pyvista, meshio or trimesh."""
    places = ("point_data", "cell_data", "vertex_attributes", "face_attributes")
    return {name for where in places for name in getattr(mesh, where, {})}


def place(
    array: NDArray[Any], name: str, num_points: int, num_cells: int, at: At | None = None
) -> At:
    """Say whether the rows of a field are the points or the cells of a mesh, points first.

    Raises:
        ValueError: neither, or the field is not ``[n]`` or ``[n, c]``.
    """
    rows = {"point": num_points, "cell": num_cells}
    places: list[At] = ["point", "cell"] if at is None else [at]
    for where in places:
        if array.ndim in (1, 2) and len(array) == rows[where]:
            return where
    wanted = " or ".join(f"per {where} ({rows[where]})" for where in places)
    raise ValueError(f"{name} must have one row {wanted}, got {list(array.shape)}")


def pick(
    names: str | Sequence[str],
    key: str,
    here: Mapping[str, Any],
    there: Mapping[str, Any],
    at: At,
) -> Tensor:
    """Lay the named arrays side by side as one float32 tensor ``[n, c]``.

    Args:
        names: Name or names.
        key: What they become, for messages.
        here: The arrays at ``at``.
        there: The arrays at the other place, for messages.
        at: "point" or "cell".

    Raises:
        ValueError: an array is not here, or does not hold real numbers.
    """
    columns = []
    for name in [names] if isinstance(names, str) else names:
        if name not in here:
            other, turn = ("cell", "cell_data_to_point_data")
            if at == "cell":
                other, turn = ("point", "point_data_to_cell_data")
            where = (
                f'is per {other}: pass at="{other}", or call mesh.{turn}() first'
                if name in there
                else f"is not in the mesh, which has {sorted(here)}"
            )
            raise ValueError(f"{key} must name {at} arrays: '{name}' {where}")
        array = to_numpy(here[name], name)
        columns.append(array.reshape(len(array), -1))
    return float_tensor(np.concatenate(columns, axis=1))


def to_numpy(value: Any, name: str) -> NDArray[Any]:
    """Bring a tensor, array or sequence to a NumPy array of real numbers on the CPU.

    Raises:
        ValueError: it holds something else, or is a single number.
    """
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        value = value.float() if value.dtype in (torch.bfloat16, torch.float16) else value
        value = value.numpy()
    array = np.asarray(value)
    if array.dtype.kind not in "fiub" or array.ndim == 0:
        what = array.dtype if array.ndim else type(value).__name__
        raise ValueError(f"{name} must be an array of real numbers, got {what}")
    return array.astype(np.uint8) if array.dtype.kind == "b" else array


def float_tensor(array: NDArray[Any]) -> Tensor:
    """Copy an array to a float32 tensor; what float32 cannot hold becomes infinite, unsaid."""
    with np.errstate(over="ignore"):
        return torch.from_numpy(np.array(array, dtype=np.float32, order="C"))
