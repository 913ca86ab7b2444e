"""Surfaces, or on a surface lines, along which a field has the same value."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from flare_geo.mesh import as_mesh
from flare_geo.viz.render import theme
from flare_geo.viz.render.composition import check_output, picture
from flare_geo.viz.render.items import FIELD
from flare_geo.viz.render.labels import exponent, number, scaled_label, split_label
from flare_geo.viz.render.painted import painted
from flare_geo.viz.render.scene import Layer, View, panel, scene
from flare_geo.viz.render.surfaces import carrying, outer

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
    plotter: "pv.Plotter | None" = None,
) -> Any:
    """Draw where a field has given values: surfaces within a solid, lines on a surface.

    Each has the colour of its value. The level surfaces of a solid lie in its faint skin and are
    see-through, so their colours are mixed with what is behind; lines have a grey border and
    exactly the colour of the bar.

    Args:
        mesh_or_data: a pyvista mesh or a PyG `Data` with `face` or `cells`.
        values: as for `plot_field`. Values per cell are averaged to the points first, and the
            picture says so.
        levels: the values, or about how many round ones to choose between the ends of the bar.
        label, clim, cmap, path, title, note, view, plotter: as for `plot_field`.

    Returns:
        The picture, uint8 `[height, width, 3]`, or `plotter` where one is given.

    Raises:
        ValueError: a point cloud, no field, levels that the field does not reach, or what
            `plot_field` raises.

    Example::

        plot_isosurfaces(data, data.pred, levels=[400, 800, 1200], label="temperature [K]")
    """
    check_output(path, title, note, plotter=plotter)
    mesh = as_mesh(mesh_or_data)
    if outer(mesh).GetNumberOfPolys() == 0:
        raise ValueError("level surfaces need a mesh with faces or cells, got points alone")
    field = painted(mesh_or_data, mesh, values, clim=clim, cmap=cmap)
    if field is None:
        raise ValueError("values is missing: level surfaces need a field, one number per point")
    scale = field.scale
    solid = carrying(mesh, rows=field.rows, association=field.association)
    if field.association == "cell":
        solid = solid.cell_data_to_point_data()
    finite = np.asarray(solid.point_data[FIELD])
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
    surfaces = level_surfaces(solid, reached)
    inside = surfaces.GetNumberOfPolys() > 0
    drawn = panel(
        scene(mesh, view, theme.FIELD_PANEL),
        layers=[Layer(surfaces, scale, opacity=theme.LEVEL_OPACITY if inside else 1.0)],
        opacity=theme.SEE_THROUGH if inside else 1.0,
    )
    power = exponent(scale.size)
    unit = split_label(scaled_label(label, power))[1]
    words = "levels " + ", ".join(number(level / 10.0**power, 1.0) for level in reached)
    words += f" [{unit}]" if unit else ""
    if field.association == "cell":
        words += "    cell values averaged to points"
    return picture(
        drawn,
        plotter=plotter,
        scale=scale,
        label=label,
        title=title,
        subtitle=words,
        note=note,
        path=path,
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

    Cells with a value that is not a number are left out.
    """
    pv = theme.import_pyvista()
    broken = np.isnan(mesh.point_data[FIELD])
    if broken.any():
        mesh = mesh.extract_points(~broken, adjacent_cells=False)
    surfaces = []
    for level in levels:
        surface = mesh.contour([level], scalars=FIELD, compute_normals=False)
        surface.clear_data()
        if surface.n_cells:
            surface.point_data[FIELD] = np.full(surface.n_points, level)
            surfaces.append(surface)
    if not surfaces:
        return pv.PolyData()
    found = surfaces[0].append_polydata(*surfaces[1:])
    if found.GetNumberOfPolys():
        found = found.compute_normals(cell_normals=False, consistent_normals=False)
    return found
