"""Vector fields: arrows, and the lines that run along them."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from flare_geo.mesh import as_mesh
from flare_geo.viz.render import theme
from flare_geo.viz.render.colors import field_scale
from flare_geo.viz.render.composition import check_output, picture
from flare_geo.viz.render.items import FIELD
from flare_geo.viz.render.labels import extremes, number, split_label
from flare_geo.viz.render.painted import Association, find_values, in_space, per_row
from flare_geo.viz.render.scene import Layer, View, panel, scene
from flare_geo.viz.render.surfaces import carrying, outer

if TYPE_CHECKING:
    import pyvista as pv
    from matplotlib.colors import Colormap

STEPS = 2000  # most steps of a streamline each way


def plot_vectors(
    mesh_or_data: Any,
    vectors: Any = None,
    *,
    count: int = 1500,
    scale: float | Literal["auto"] = "auto",
    label: str = "",
    clim: Sequence[float] | None = None,
    cmap: "str | Colormap | None" = None,
    path: str | os.PathLike[str] | None = None,
    title: str | None = None,
    note: str | None = None,
    view: View = None,
    plotter: "pv.Plotter | None" = None,
) -> Any:
    """Draw a vector field as arrows on a subsample that is even in space.

    Every arrow starts at a point of the mesh (or the centre of a cell), points along v and has
    the length scale |v|: one factor for all, written into the picture with the number of arrows.
    Colour is |v|. Solids are see-through.

    Args:
        mesh_or_data: a pyvista mesh or a PyG `Data`.
        vectors: `[n, 2|3]` per point or per cell; a string names a field, None takes `data.y`.
            Rows that are not finite have no arrow.
        count: about how many arrows, at most.
        scale: length of the arrow of a vector of length 1, in the unit of the mesh; "auto" makes
            the longest about as long as twice the distance between arrows.
        clim: (low, high) of the colour bar, in the unit of `vectors`; None takes those of the
            whole field.
        label, cmap, path, title, note, view, plotter: as for `plot_field`.

    Returns:
        The picture, uint8 `[height, width, 3]`, or `plotter` where one is given.

    Raises:
        ValueError: `vectors` are not vectors, none is finite; `count`, `scale` not positive.

    Example::

        plot_vectors(data, data.pred[:, :3], label="velocity [m/s]", path="velocity.png")
    """
    check_output(path, title, note, plotter=plotter)
    if count < 1:
        raise ValueError(f"count must be at least 1 arrow, got {count}")
    mesh, arrows, association = _vectors(mesh_or_data, vectors)
    points = np.asarray(mesh.points, dtype=float)
    if association == "cell":
        points = np.asarray(carrying(mesh).cell_centers().points)
    length = np.linalg.norm(arrows, axis=1)
    colors = field_scale(length, clim=clim, cmap=cmap)
    good = np.flatnonzero(np.isfinite(length))
    if good.size == 0:
        raise ValueError("vectors must have a finite row, all of them are NaN or infinite")
    kept, apart = even_sample(points[good], count)
    kept = good[kept]
    longest = float(length[kept].max())
    if scale == "auto":
        factor = 2 * apart / longest if longest > 0 else 1.0
    elif 0 < float(scale) < np.inf:
        factor = float(scale)
    else:
        raise ValueError(f"scale must be 'auto' or a positive number, got {scale}")
    shapes = _arrows(points[kept], arrows[kept], factor)
    tips = points[kept] + factor * arrows[kept]
    ready = scene(mesh, view, theme.FIELD_PANEL, also=tips)
    drawn = panel(ready, layers=[Layer(shapes, colors)], opacity=_body(mesh, ready.ball))
    unit = split_label(label)[1]
    words = (
        f"{len(kept)} arrows of {len(length)}    longest {number(longest)}"
        f"{f' [{unit}]' if unit else ''}, drawn {number(factor * longest)} mesh units long"
        f"    {extremes(length, colors, label)}"
    )
    return picture(
        drawn,
        plotter=plotter,
        scale=colors,
        label=label,
        title=title,
        subtitle=words,
        note=note,
        path=path,
    )


def plot_streamlines(
    mesh_or_data: Any,
    vectors: Any = None,
    *,
    count: int = 150,
    label: str = "",
    clim: Sequence[float] | None = None,
    cmap: "str | Colormap | None" = None,
    path: str | os.PathLike[str] | None = None,
    title: str | None = None,
    note: str | None = None,
    view: View = None,
    plotter: "pv.Plotter | None" = None,
) -> Any:
    """Draw the lines that run along a vector field: through a solid mesh, or along a surface.

    They start at points that are even in space and run both ways, to the end of the mesh. Along a
    surface the part of the vectors within it is followed. Colour is |v|, of the whole vector.

    Args:
        mesh_or_data: a pyvista mesh or a PyG `Data` with `face` or `cells`.
        vectors: as for `plot_vectors`; values per cell are averaged to the points first, and the
            picture says so. Rows that are not finite stop the lines.
        count: about how many lines, at most.
        label, clim, cmap, path, title, note, view, plotter: as for `plot_field`.

    Returns:
        The picture, uint8 `[height, width, 3]`, or `plotter` where one is given.

    Raises:
        ValueError: a point cloud, `vectors` are not vectors, or they are zero everywhere.

    Example::

        plot_streamlines(mesh, "U", label="velocity [m/s]", path="flow.png")
    """
    check_output(path, title, note, plotter=plotter)
    if count < 1:
        raise ValueError(f"count must be at least 1 line, got {count}")
    mesh, arrows, association = _vectors(mesh_or_data, vectors)
    length = np.linalg.norm(arrows, axis=1)
    colors = field_scale(length, clim=clim, cmap=cmap)
    lines = stream_lines(mesh, arrows, association, count)
    if lines.n_cells == 0:
        raise ValueError("there is no streamline: the vectors are zero or not finite everywhere")
    ready = scene(mesh, view, theme.FIELD_PANEL)
    layer = Layer(lines, colors, width=theme.STREAM_WIDTH)
    drawn = panel(ready, layers=[layer], opacity=_body(mesh, ready.ball))
    words = f"streamlines from {lines.field_data['starts'][0]} points"
    words += f"    {extremes(length, colors, label)}"
    if association == "cell":
        words += "    cell values averaged to points"
    return picture(
        drawn,
        plotter=plotter,
        scale=colors,
        label=label,
        title=title,
        subtitle=words,
        note=note,
        path=path,
    )


def stream_lines(
    mesh: "pv.DataSet", vectors: np.ndarray, association: Association, count: int
) -> "pv.PolyData":
    """Lines along `vectors [n, 3]`; they carry |v| as `FIELD`, and in field data how many starts.

    Raises:
        ValueError: the mesh has no faces and no cells.
    """
    flow = carrying(mesh, rows=vectors, association=association)
    if association == "cell":
        flow = flow.cell_data_to_point_data()
    skin = outer(flow)
    if skin.GetNumberOfPolys() == 0:
        raise ValueError("streamlines need a mesh with faces or cells, got points alone")
    surface = mesh.GetMaxSpatialDimension() < 3
    if surface:
        flow = skin.triangulate()
    given = np.array(flow.point_data[FIELD])
    flow.point_data["v"] = np.where(np.isfinite(given).all(axis=1, keepdims=True), given, 0.0)
    if surface:
        normal = np.asarray(
            flow.compute_normals(
                cell_normals=False, split_vertices=False, consistent_normals=False
            ).point_data["Normals"]
        )
        along = flow.point_data["v"]
        flow.point_data["v"] = along - (along * normal).sum(axis=1, keepdims=True) * normal
    speed = np.linalg.norm(flow.point_data["v"], axis=1)
    good = np.flatnonzero(speed > 1e-9 * speed.max())
    pv = theme.import_pyvista()
    if good.size == 0:
        return pv.PolyData()
    starts = good[even_sample(np.asarray(flow.points)[good], count)[0]]
    source = pv.PolyData(np.asarray(flow.points)[starts])
    del flow.point_data[FIELD]
    flow.point_data[FIELD] = np.linalg.norm(given, axis=1)
    lines = flow.streamlines_from_source(
        source,
        vectors="v",
        integration_direction="both",
        surface_streamlines=surface,
        max_steps=STEPS,
        max_length=3 * mesh.length,
        initial_step_length=0.3,
        step_unit="cl",
        terminal_speed=1e-6 * float(speed.max()),
        compute_vorticity=False,
    )
    rows = np.array(lines.point_data[FIELD]) if lines.n_points else np.zeros(0)
    lines = pv.PolyData(np.asarray(lines.points), lines=lines.lines) if lines.n_cells else lines
    lines.clear_data()
    lines.point_data[FIELD] = rows
    lines.field_data["starts"] = [len(starts)]
    return lines


def even_sample(points: np.ndarray, count: int) -> tuple[np.ndarray, float]:
    """Indices of at most `count` of `points [n, 3]`, even in space, and how far they are apart.

    Space is cut into cubes; of each the point nearest to its middle is taken. The cubes are made
    as small as `count` allows.
    """
    low = points.min(axis=0)
    size = float((points.max(axis=0) - low).max())
    if size == 0:
        return np.array([0]), 1.0
    best, side = np.array([0]), size
    few, many = 1.0, max(2.0, 2.0 * len(points))  # cubes along the longest side
    for _ in range(24):
        tried = (few * many) ** 0.5
        kept = _nearest_to_middles((points - low) * (tried / size))
        if len(kept) > count:
            many = tried
            continue
        few = tried
        if len(kept) > len(best):
            best, side = kept, size / tried
    return best, side


def _nearest_to_middles(points: np.ndarray) -> np.ndarray:
    """One of the points of each unit cube that has any, in their order."""
    cube = np.floor(points)
    off = ((points - cube - 0.5) ** 2).sum(axis=1)
    order = np.lexsort((off, *cube.T))
    new = np.ones(len(order), dtype=bool)
    new[1:] = (np.diff(cube[order], axis=0) != 0).any(axis=1)
    return np.sort(order[new])


def _arrows(points: np.ndarray, vectors: np.ndarray, factor: float) -> "pv.PolyData":
    pv = theme.import_pyvista()
    cloud = pv.PolyData(points)
    cloud.point_data["v"] = vectors
    cloud.point_data[FIELD] = np.linalg.norm(vectors, axis=1)
    shape = pv.Arrow(tip_length=0.35, tip_radius=0.12, shaft_radius=0.04, tip_resolution=10)
    found = cloud.glyph(orient="v", scale=FIELD, factor=factor, geom=shape)
    rows = np.array(found.point_data[FIELD])
    found.clear_data()
    found.point_data[FIELD] = rows
    return found.compute_normals(cell_normals=False, consistent_normals=False)


def _vectors(mesh_or_data: Any, vectors: Any) -> "tuple[pv.DataSet, np.ndarray, Association]":
    mesh = as_mesh(mesh_or_data)
    found = find_values(mesh_or_data, mesh, vectors)
    if found is None:
        raise ValueError("vectors is missing: pass [n, 2|3], or the name of a field")
    rows, association = per_row(mesh, found, "vectors")
    if rows.ndim != 2:
        raise ValueError(f"vectors must be [n, 2|3], got a scalar {list(rows.shape)}")
    return mesh, in_space(rows), association


def _body(mesh: "pv.DataSet", ball: float) -> float:
    """Opacity of what the arrows stand on: a solid and a cloud must not hide those within."""
    return 1.0 if not ball and mesh.GetMaxSpatialDimension() < 3 else theme.SEE_THROUGH
