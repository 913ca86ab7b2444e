"""Cuts: what a plane meets, and what is left when half of a mesh is taken away."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from flare_geo.mesh import as_mesh
from flare_geo.viz import page as pages
from flare_geo.viz import theme
from flare_geo.viz.camera import VIEWS, View
from flare_geo.viz.field import framed
from flare_geo.viz.scene import FIELD, Layer, carrying, draw, edges, outer, scene
from flare_geo.viz.values import (
    Association,
    ColorScale,
    field_scale,
    find_values,
    magnitude,
    per_row,
)

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
) -> np.ndarray:
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
        cuts: so many parallel planes, spread evenly over the mesh; then `origin` must be None.
        label: quantity and unit, as in "von Mises stress [MPa]".
        clim: (low, high) of the colour bar. None takes those of the whole field, so that cuts of
            one field can be compared.
        cmap: matplotlib colour map; None chooses by quantity, as in `plot_field`.
        path: a `.png` file to write.
        show_edges: draw the borders of the cells that are cut.
        title: one line above the picture.
        note: one small line below it.
        view: as for `plot_field`; None is straight on for one cut, isometric for several.

    Returns:
        The picture, uint8 `[height, width, 3]`.

    Raises:
        ValueError: a point cloud, a plane beside the mesh, or what `plot_field` raises.

    Example::

        plot_slice(data, data.pred, normal="x", label="stress [MPa]", path="slice.png")
    """
    if path is not None:
        pages.checked_path(path, (".png",))
    mesh, association, scale = _ready(mesh_or_data, values, clim, cmap)
    towards = direction(normal)
    if not 1 <= cuts <= 1000 or (cuts > 1 and origin is not None):
        raise ValueError(f"cuts must be from 1 to 1000, and 1 where there is an origin, got {cuts}")
    places = [_place(origin, mesh)] if cuts == 1 else _spread(mesh, towards, cuts)
    pv = theme.import_pyvista()
    pieces = [mesh.slice(towards, origin=place, generate_triangles=False) for place in places]
    pieces = [pv.PolyData(piece) for piece in pieces if piece.n_cells]
    cut = pieces[0].append_polydata(*pieces[1:]) if pieces else pv.PolyData()
    if cut.n_cells == 0:
        raise ValueError(_beside(mesh, towards, places))
    rows = _rows(cut, association, scale)
    if view is None and cuts == 1:
        ready = scene(cut, _eye(normal), theme.FIELD_PANEL)
        panel = draw(ready, rows, association, scale, show_edges=show_edges)
    else:
        ready = scene(mesh, "iso" if view is None else view, theme.FIELD_PANEL)
        shown = Layer(cut, show_edges=show_edges)
        panel = draw(ready, scale=scale, layers=[shown], opacity=theme.SEE_THROUGH)
    where = _words("cut" if cuts == 1 else f"{cuts} cuts", towards, places)
    return _page(panel, rows, scale, label, where, title=title, note=note, path=path)


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
) -> np.ndarray:
    """Draw a mesh with one half cut away: solids show their inside, surfaces their back.

    Args:
        mesh_or_data: a pyvista mesh, or a PyG `Data`; of a point cloud half the points are left.
        values: as for `plot_field`; None draws the plain shape where the mesh has no field.
        normal: points to the half that is taken away: "x", "-x", "y", "-y", "z", "-z" or a
            vector. The eye of "iso" looks into what "x", "-y" and "z" have opened.
        origin: a point of the plane; None is the middle of the mesh.
        label: quantity and unit, as in "von Mises stress [MPa]".
        clim: (low, high) of the colour bar; None takes those of the whole field.
        cmap: matplotlib colour map; None chooses by quantity, as in `plot_field`.
        path: a `.png` file to write.
        show_edges: draw the mesh lines; cells that are cut are seen in the pieces VTK makes.
        title: one line above the picture.
        note: one small line below it.
        view: as for `plot_field`; None is "iso", from the side that is open.

    Returns:
        The picture, uint8 `[height, width, 3]`.

    Raises:
        ValueError: nothing is left, or what `plot_field` raises.

    Example::

        plot_clip(data, data.pred, normal="x", label="stress [MPa]", path="inside.png")
    """
    if path is not None:
        pages.checked_path(path, (".png",))
    mesh, association, scale = _ready(mesh_or_data, values, clim, cmap, clouds=True)
    towards = direction(normal)
    place = _place(origin, mesh)
    left = mesh.clip(towards, origin=place)
    if left.n_cells == 0:
        raise ValueError(_beside(mesh, towards, [place]))
    if view is None:  # "iso", turned so that it looks at the open side
        view = tuple(np.where(towards * theme.ISOMETRIC < -1e-9, -1, 1) * theme.ISOMETRIC)
    border = edges(outer(mesh))
    ready = scene(left, view, theme.FIELD_PANEL, also=np.asarray(border.points, dtype=float))
    rows = _rows(left, association, scale)
    panel = draw(ready, rows, association, scale, show_edges=show_edges, ghost=border)
    where = _words("cut", towards, [place])
    return _page(panel, rows, scale, label, where, title=title, note=note, path=path)


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


def _ready(
    mesh_or_data: Any,
    values: Any,
    clim: Sequence[float] | None,
    cmap: "str | Colormap | None",
    *,
    clouds: bool = False,
) -> "tuple[pv.DataSet, Association, ColorScale | None]":
    """The mesh with its field, ready for VTK's filters, and the scale of the whole field."""
    mesh = as_mesh(mesh_or_data)
    if not clouds and outer(mesh).GetNumberOfPolys() == 0:
        raise ValueError(
            "a slice needs a mesh with faces or cells, got points alone: try plot_clip"
        )
    values = find_values(mesh_or_data, mesh, values)
    if values is None:
        return carrying(mesh), "point", None
    rows, association = per_row(mesh, values, "values")
    rows = magnitude(rows)
    scale = field_scale(rows, clim=clim, cmap=cmap)
    return carrying(mesh, rows=rows, association=association), association, scale


def _rows(
    piece: "pv.DataSet", association: Association, scale: ColorScale | None
) -> np.ndarray | None:
    if scale is None:
        return None
    return np.asarray((piece.point_data if association == "point" else piece.cell_data)[FIELD])


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
        name = "({}, {}, {}) · x".format(*(pages.number(part, 1.0) for part in towards))
        heights = [float(place @ towards) for place in places]
    ends = heights if len(heights) <= 2 else [heights[0], heights[-1]]
    values = " … ".join(pages.number(height, max(map(abs, ends))) for height in sorted(ends))
    return f"{what} at {name} = {values}"


def _beside(mesh: "pv.DataSet", towards: np.ndarray, places: list[np.ndarray]) -> str:
    height = np.asarray(mesh.points) @ towards
    return (
        f"nothing is left of the mesh: {_words('the cut', towards, places)} meets none of it, "
        f"it reaches from {height.min():.4g} to {height.max():.4g} along the normal"
    )


def _page(
    panel: np.ndarray,
    rows: np.ndarray | None,
    scale: ColorScale | None,
    label: str,
    where: str,
    *,
    title: str | None,
    note: str | None,
    path: str | os.PathLike[str] | None,
) -> np.ndarray:
    if rows is not None and scale is not None:
        where = f"{where}    {pages.extremes(rows, scale, label)}"
    return framed(
        panel, scale=scale, label=label, title=title, subtitle=where, note=note, path=path
    )
