"""Surfaces, or on a surface lines, along which a field has the same value."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from flare_geo.mesh import as_mesh
from flare_geo.viz import page as pages
from flare_geo.viz import theme
from flare_geo.viz.field import framed
from flare_geo.viz.scene import FIELD, Layer, View, carrying, draw, outer, scene
from flare_geo.viz.values import field_scale, find_values, magnitude, per_row

if TYPE_CHECKING:
    import pyvista as pv
    from matplotlib.colors import Colormap


def plot_isosurfaces(
    mesh_or_data: Any,
    values: Any = None,
    *,
    levels: int | Sequence[float] = 5,
    label: str = "",
    clim: Sequence[float] | None = None,
    cmap: "str | Colormap | None" = None,
    path: str | os.PathLike[str] | None = None,
    title: str | None = None,
    note: str | None = None,
    view: View = None,
) -> np.ndarray:
    """Draw where a field has given values: surfaces within a solid, lines on a surface.

    Each has the colour of its value. The level surfaces of a solid lie in its faint skin and are
    see-through, so their colours are mixed with what is behind; lines have a grey border and
    exactly the colour of the bar.

    Args:
        mesh_or_data: a pyvista mesh or a PyG `Data` with `face` or `cells`.
        values: as for `plot_field`. Values per cell are averaged to the points first, and the
            picture says so.
        levels: the values, or about how many round ones to choose between the ends of the bar.
        label: quantity and unit, as in "temperature [K]".
        clim: (low, high) of the colour bar, in the unit of `values`.
        cmap: matplotlib colour map; None chooses by quantity, as in `plot_field`.
        path: a `.png` file to write.
        title: one line above the picture.
        note: one small line below it.
        view: as for `plot_field`.

    Returns:
        The picture, uint8 `[height, width, 3]`.

    Raises:
        ValueError: a point cloud, no field, levels that the field does not reach, or what
            `plot_field` raises.

    Example::

        plot_isosurfaces(data, data.pred, levels=[400, 800, 1200], label="temperature [K]")
    """
    if path is not None:
        pages.checked_path(path, (".png",))
    mesh = as_mesh(mesh_or_data)
    values = find_values(mesh_or_data, mesh, values)
    if values is None:
        raise ValueError("values is missing: level surfaces need a field, one number per point")
    skin = outer(mesh)
    if skin.GetNumberOfPolys() == 0:
        raise ValueError("level surfaces need a mesh with faces or cells, got points alone")
    rows, association = per_row(mesh, values, "values")
    rows = magnitude(rows)
    scale = field_scale(rows, clim=clim, cmap=cmap)
    field = carrying(mesh, rows=rows, association=association)
    if association == "cell":
        field = field.cell_data_to_point_data()
    finite = np.asarray(field.point_data[FIELD])
    finite = finite[np.isfinite(finite)]
    if finite.size == 0:
        raise ValueError("values must have a finite number, all of them are NaN or infinite")
    low, high = float(finite.min()), float(finite.max())
    wanted = chosen_levels(levels, scale.low, scale.high)
    reached = [level for level in wanted if low <= level <= high]
    if not reached:
        raise ValueError(
            f"levels must lie in the range of the field, {low:.4g} to {high:.4g}, got {levels}"
        )
    surfaces = level_surfaces(field, reached)
    solid = surfaces.GetNumberOfPolys() > 0
    ready = scene(mesh, view, theme.FIELD_PANEL)
    panel = draw(
        ready,
        scale=scale,
        layers=[Layer(surfaces, opacity=theme.LEVEL_OPACITY if solid else 1.0)],
        opacity=theme.SEE_THROUGH if solid else 1.0,
    )
    power = pages.exponent(max(abs(scale.low), abs(scale.high)))
    unit = pages.split_label(pages.scaled_label(label, power))[1]
    words = "levels " + ", ".join(pages.number(level / 10.0**power, 1.0) for level in reached)
    words += f" [{unit}]" if unit else ""
    if association == "cell":
        words += "    cell values averaged to points"
    return framed(
        panel, scale=scale, label=label, title=title, subtitle=words, note=note, path=path
    )


def chosen_levels(levels: int | Sequence[float], low: float, high: float) -> list[float]:
    """The levels as given, in order; for a number, about as many round ones within (low, high).

    Raises:
        ValueError: no level, a number below 1 or above 100, or levels that are not finite.
    """
    if isinstance(levels, int):
        if not 1 <= levels <= 100:
            raise ValueError(f"levels must be from 1 to 100, or a list of values, got {levels}")
        if levels == 1:
            return [0.5 * (low + high)]
        locator = theme.import_matplotlib().ticker.MaxNLocator(levels + 1, steps=[1, 2, 2.5, 5, 10])
        slack = 1e-3 * (high - low)
        return [float(v) for v in locator.tick_values(low, high) if low + slack < v < high - slack]
    given = np.unique(np.asarray(levels, dtype=float))
    if given.size == 0 or not np.isfinite(given).all():
        raise ValueError(f"levels must be at least one finite number, got {list(levels)}")
    return given.tolist()


def level_surfaces(mesh: "pv.DataSet", levels: Sequence[float]) -> "pv.PolyData":
    """Level surfaces (or lines) of the point array `FIELD`; each carries its level as `FIELD`.

    Cells of which a value is not a number are left out.
    """
    pv = theme.import_pyvista()
    broken = np.isnan(mesh.point_data[FIELD])
    if broken.any():
        mesh = mesh.extract_points(~broken, adjacent_cells=False)
    pieces = []
    for level in levels:
        piece = mesh.contour([level], scalars=FIELD, compute_normals=False)
        piece.clear_data()
        if piece.n_cells:
            piece.point_data[FIELD] = np.full(piece.n_points, level)
            pieces.append(piece)
    if not pieces:
        return pv.PolyData()
    found = pieces[0].append_polydata(*pieces[1:])
    if found.GetNumberOfPolys():
        found = found.compute_normals(cell_normals=False, consistent_normals=False)
    return found
