"""Cuts: what a plane meets, and what is left when half of a mesh is taken away."""

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from flare_geo.mesh import as_mesh
from flare_geo.viz.render import theme
from flare_geo.viz.render.camera import VIEWS, View
from flare_geo.viz.render.composition import check_output, picture
from flare_geo.viz.render.items import FIELD
from flare_geo.viz.render.labels import extremes, number
from flare_geo.viz.render.painted import Painted, painted
from flare_geo.viz.render.scene import Layer, Panel, panel, scene
from flare_geo.viz.render.surfaces import carrying, edges, outer

if TYPE_CHECKING:
    import pyvista as pv
    from matplotlib.colors import Colormap

Direction = str | tuple[float, float, float]


def plot_slice(
    mesh_or_data: Any,
    values: Any = None,
    *,
    normal: Direction = "-y",
    origin: Sequence[float] | None = None,
    cuts: int = 1,
    label: str = "",
    clim: Sequence[float] | None = None,
    cmap: "str | Colormap | None" = None,
    path: str | os.PathLike[str] | None = None,
    show_edges: bool = False,
    title: str | None = None,
    note: str | None = None,
    view: View = None,
    plotter: "pv.Plotter | None" = None,
) -> Any:
    """Draw a field where a plane cuts a mesh: faces through solids, curves through surfaces.

    One cut is seen straight on and unlit, so its colours are exactly those of the bar; several
    cuts, or one with a `view`, stand in the outline of the mesh. Values per point are interpolated
    within the cells that are cut, values per cell are those of the cells.

    Args:
        mesh_or_data: a pyvista mesh or a PyG `Data` with `face` or `cells`.
        values: as for `plot_field`.
        normal: of the plane: "x", "-x", "y", "-y", "z", "-z" or a vector. It points towards the
            eye: with "-y", x is to the right and z up.
        origin: a point of the plane; None is the middle of the mesh.
        cuts: number of parallel planes, spread evenly over the mesh; above 1 `origin` must be
            None.
        clim: (low, high) of the colour bar, in the unit of `values`. None takes those of the whole
            field, so that cuts of one field can be compared.
        show_edges: draw the borders of the cells that are cut.
        view: as for `plot_field`; None is straight on for one cut, isometric for several.
        label, cmap, path, title, note, plotter: as for `plot_field`.

    Returns:
        The picture, uint8 `[height, width, 3]`, or `plotter` where one is given.

    Raises:
        ValueError: a point cloud, a plane beside the mesh, or what `plot_field` raises.

    Example::

        plot_slice(data, data.pred, normal="x", label="stress [MPa]", path="slice.png")
    """
    check_output(path, title, note, plotter=plotter)
    mesh = as_mesh(mesh_or_data)
    if outer(mesh).GetNumberOfPolys() == 0:
        raise ValueError(
            "a slice needs a mesh with faces or cells, got points alone: try plot_clip"
        )
    whole = painted(mesh_or_data, mesh, values, clim=clim, cmap=cmap)
    towards = direction(normal)
    if not 1 <= cuts <= 1000 or (cuts > 1 and origin is not None):
        raise ValueError(f"cuts must be from 1 to 1000, and 1 where there is an origin, got {cuts}")
    places = [_place(origin, mesh)] if cuts == 1 else _spread(mesh, towards, cuts)
    pv = theme.import_pyvista()
    solid = _carrying(mesh, whole)
    planes = [solid.slice(towards, origin=place, generate_triangles=False) for place in places]
    planes = [pv.PolyData(plane) for plane in planes if plane.n_cells]
    cut = planes[0].append_polydata(*planes[1:]) if planes else pv.PolyData()
    if cut.n_cells == 0:
        raise ValueError(_beside(mesh, towards, places))
    field = _part(cut, whole)
    if view is None and cuts == 1:
        ready = scene(cut, _eye(normal), theme.FIELD_PANEL)
        drawn = panel(ready, field, show_edges=show_edges)
    else:
        ready = scene(solid, "iso" if view is None else view, theme.FIELD_PANEL)
        layer = Layer(cut, field.scale if field else None, show_edges=show_edges)
        drawn = panel(ready, layers=[layer], opacity=theme.SEE_THROUGH)
    where = _words("cut" if cuts == 1 else f"{cuts} cuts", towards, places)
    return _picture(drawn, field, label, where, title=title, note=note, path=path, plotter=plotter)


def plot_clip(
    mesh_or_data: Any,
    values: Any = None,
    *,
    normal: Direction = "-y",
    origin: Sequence[float] | None = None,
    label: str = "",
    clim: Sequence[float] | None = None,
    cmap: "str | Colormap | None" = None,
    path: str | os.PathLike[str] | None = None,
    show_edges: bool = False,
    title: str | None = None,
    note: str | None = None,
    view: View = None,
    plotter: "pv.Plotter | None" = None,
) -> Any:
    """Draw a mesh with one half cut away: solids show their inside, surfaces their back.

    Args:
        mesh_or_data: a pyvista mesh, or a PyG `Data`; of a point cloud half the points are left.
        values: as for `plot_field`; None draws the plain shape where the mesh has no field.
        normal: points to the half that is taken away: "x", "-x", "y", "-y", "z", "-z" or a
            vector. The eye of "iso" looks into what "x", "-y" and "z" have opened.
        origin: a point of the plane; None is the middle of the mesh.
        clim: (low, high) of the colour bar, in the unit of `values`; None takes those of the whole
            field.
        show_edges: draw the mesh lines; VTK divides the cells that are cut into smaller ones.
        view: as for `plot_field`; None is "iso", from the side that is open.
        label, cmap, path, title, note, plotter: as for `plot_field`.

    Returns:
        The picture, uint8 `[height, width, 3]`, or `plotter` where one is given.

    Raises:
        ValueError: nothing is left, or what `plot_field` raises.

    Example::

        plot_clip(data, data.pred, normal="x", label="stress [MPa]", path="inside.png")
    """
    check_output(path, title, note, plotter=plotter)
    mesh = as_mesh(mesh_or_data)
    whole = painted(mesh_or_data, mesh, values, clim=clim, cmap=cmap)
    towards = direction(normal)
    place = _place(origin, mesh)
    left = _carrying(mesh, whole).clip(towards, origin=place)
    if left.n_cells == 0:
        raise ValueError(_beside(mesh, towards, [place]))
    if view is None:  # "iso", turned so that it looks at the open side
        view = tuple(np.where(towards * theme.ISOMETRIC < -1e-9, -1, 1) * theme.ISOMETRIC)
    border = edges(outer(mesh))
    ready = scene(left, view, theme.FIELD_PANEL, also=np.asarray(border.points, dtype=float))
    field = _part(left, whole)
    drawn = panel(ready, field, show_edges=show_edges, ghost=border)
    where = _words("cut", towards, [place])
    return _picture(drawn, field, label, where, title=title, note=note, path=path, plotter=plotter)


def direction(normal: Direction) -> np.ndarray:
    """Unit vector `[3]` of "x", "-x", "y", "-y", "z", "-z" or of a vector.

    Raises:
        ValueError: another word, or a vector that is zero or not of three finite numbers.
    """
    names = [name for name in VIEWS if name != "iso"]
    if isinstance(normal, str):
        if normal not in names:
            raise ValueError(
                f"normal must be one of {', '.join(names)} or a vector, got {normal!r}"
            )
        normal = VIEWS[normal][0]
    vector = np.asarray(normal, dtype=float)
    if vector.shape != (3,) or not 0 < np.linalg.norm(vector) < np.inf:
        raise ValueError(f"normal must be three finite numbers, not all zero, got {normal}")
    return vector / np.linalg.norm(vector)


def _carrying(mesh: "pv.DataSet", field: Painted | None) -> "pv.DataSet":
    """A copy of the mesh with its field, ready for VTK's filters."""
    if field is None:
        return carrying(mesh)
    return carrying(mesh, rows=field.rows, association=field.association)


def _part(mesh: "pv.DataSet", whole: Painted | None) -> Painted | None:
    """The field on what a filter has left of a mesh, on the scale of the whole field."""
    if whole is None:
        return None
    data = mesh.point_data if whole.association == "point" else mesh.cell_data
    return replace(whole, rows=np.asarray(data[FIELD]))


def _place(origin: Sequence[float] | None, mesh: "pv.DataSet") -> np.ndarray:
    place = np.asarray(mesh.center if origin is None else origin, dtype=float)
    if place.shape != (3,) or not np.isfinite(place).all():
        raise ValueError(f"origin must be a point of three finite numbers, got {origin}")
    return place


def _spread(mesh: "pv.DataSet", towards: np.ndarray, cuts: int) -> list[np.ndarray]:
    height = (np.asarray(mesh.points) - mesh.center) @ towards
    share = (np.arange(cuts) + 0.5) / cuts
    steps = height.min() + share * (height.max() - height.min())
    return [np.asarray(mesh.center) + step * towards for step in steps]


def _eye(normal: Direction) -> View:
    return normal if isinstance(normal, str) else (normal[0], normal[1], normal[2])


def _words(what: str, towards: np.ndarray, places: list[np.ndarray]) -> str:
    """Where the planes are, as in "cut at y = 3"."""
    axis = int(np.argmax(np.abs(towards)))
    if abs(towards[axis]) > 1 - 1e-12:
        name, heights = "xyz"[axis], [place[axis] for place in places]
    else:
        name = "({}, {}, {}) · x".format(*(number(entry, 1.0) for entry in towards))
        heights = [float(place @ towards) for place in places]
    ends = heights if len(heights) <= 2 else [heights[0], heights[-1]]
    values = " … ".join(number(height, max(map(abs, ends))) for height in sorted(ends))
    return f"{what} at {name} = {values}"


def _beside(mesh: "pv.DataSet", towards: np.ndarray, places: list[np.ndarray]) -> str:
    height = np.asarray(mesh.points) @ towards
    return (
        f"nothing is left of the mesh: {_words('the cut', towards, places)} meets none of it, "
        f"it reaches from {height.min():.4g} to {height.max():.4g} along the normal"
    )


def _picture(
    drawn: Panel,
    field: Painted | None,
    label: str,
    where: str,
    *,
    title: str | None,
    note: str | None,
    path: str | os.PathLike[str] | None,
    plotter: "pv.Plotter | None",
) -> Any:
    return picture(
        drawn,
        plotter=plotter,
        scale=field.scale if field else None,
        label=label,
        title=title,
        subtitle=f"{where}    {extremes(field.rows, field.scale, label)}" if field else where,
        note=note,
        path=path,
    )
