"""What is painted on a mesh: one number per point or cell, and the colour scale they share."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from flare_geo.mesh.fields import to_numpy
from flare_geo.viz.render.colors import ColorScale, field_scale

if TYPE_CHECKING:
    import pyvista as pv
    from matplotlib.colors import Colormap

Association = Literal["point", "cell"]


@dataclass(frozen=True)
class Painted:
    """A field as it is painted: what the numbers are, what they belong to, and their colours."""

    rows: np.ndarray  # float64 [n]; NaN where a value is not finite
    association: Association  # the rows are points or cells of the mesh
    scale: ColorScale


def painted(
    mesh_or_data: Any,
    mesh: "pv.DataSet",
    values: Any,
    *,
    clim: Sequence[float] | None = None,
    cmap: "str | Colormap | None" = None,
) -> Painted | None:
    """The field `values` of a mesh with its colours; vectors are painted by their length.

    Args:
        mesh_or_data: what the caller of a picture passed.
        mesh: the same as a pyvista mesh.
        values: as for `plot_field`.
        clim: (low, high) of the colour bar.
        cmap: matplotlib colour map.

    Returns:
        None where there is no field.

    Raises:
        ValueError: an unknown name, values that do not fit the mesh, bad `clim` or `cmap`.
    """
    values = find_values(mesh_or_data, mesh, values)
    if values is None:
        return None
    rows, association = per_row(mesh, values, "values")
    rows = magnitude(rows)
    return Painted(rows, association, field_scale(rows, clim=clim, cmap=cmap))


def find_values(data: Any, mesh: "pv.DataSet", values: Any) -> Any:
    """Resolve `values`: None is `data.y` or the mesh's active array, a string is a name.

    Raises:
        ValueError: a name that neither the `Data` nor the mesh has.
    """
    if values is None:
        return getattr(data, "y", None) if data is not mesh else mesh.active_scalars
    if not isinstance(values, str):
        return values
    if data is mesh:
        if values in mesh.array_names:
            return mesh[values]
        names = mesh.array_names
    else:
        if getattr(data, values, None) is not None:
            return getattr(data, values)
        names = list(data.keys())
    raise ValueError(f"values: there is no field '{values}', only {sorted(names)}")


def per_row(mesh: "pv.DataSet", values: Any, name: str) -> tuple[np.ndarray, Association]:
    """Check one field against the mesh it is painted on.

    Returns:
        float64 `[n]` or `[n, 2|3]` with every value that is not finite turned to NaN, and whether
        its rows are points or cells. Points win where the mesh has as many of both.

    Raises:
        ValueError: another number of rows, or columns that are neither a scalar nor a vector.
    """
    array = to_numpy(values, name).astype(np.float64)
    if len(array) not in (mesh.n_points, mesh.n_cells):
        raise ValueError(
            f"{name} must have one row per point ({mesh.n_points}) or per cell ({mesh.n_cells}), "
            f"got {len(array)}: are mesh and values of the same case?"
        )
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim > 2 or (array.ndim == 2 and array.shape[1] not in (2, 3)):
        raise ValueError(
            f"{name} must be a scalar [n] or a vector [n, 2|3], got {list(array.shape)}: "
            f"pass one column, such as {name}[:, 0]"
        )
    array = np.where(np.isfinite(array), array, np.nan)
    return array, "point" if len(array) == mesh.n_points else "cell"


def displacement_of(mesh: "pv.DataSet", values: Any, hint: str = "") -> np.ndarray:
    """Check that `values` are one vector per point.

    Returns:
        float64 `[n, 3]`; rows that are not finite hold NaN, vectors of the plane have no z.

    Raises:
        ValueError: anything else; the message ends with `hint`.
    """
    rows, association = per_row(mesh, values, "displacement")
    if association != "point" or rows.ndim != 2:
        raise ValueError(
            f"displacement must be one vector per point [{mesh.n_points}, 2|3], "
            f"got {list(rows.shape)}{hint}"
        )
    return in_space(rows)


def steps_of(vectors: np.ndarray) -> np.ndarray:
    """Displacements `[n, 3]` that points can be moved by: zero in rows that are not finite."""
    return np.where(np.isfinite(vectors).all(axis=1, keepdims=True), vectors, 0.0)


def in_space(vectors: np.ndarray) -> np.ndarray:
    """Vectors `[n, 2|3]` as `[n, 3]`: those of the plane have no z."""
    return np.pad(vectors, ((0, 0), (0, 3 - vectors.shape[1])))


def magnitude(array: np.ndarray) -> np.ndarray:
    """Length of each row of `[n, d]`; a scalar field `[n]` is returned as it is, sign and all."""
    return np.linalg.norm(array, axis=1) if array.ndim == 2 else array
