"""A mesh in front of a camera: what there is to see of it, and nothing else.

The pixels are made by `painting.py`; text and colour bars are set beside them by `composition.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from flare_geo.viz.render import theme
from flare_geo.viz.render.camera import Frame, View, fit
from flare_geo.viz.render.colors import ColorScale
from flare_geo.viz.render.items import FIELD, Eye, Item
from flare_geo.viz.render.opengl import add_items
from flare_geo.viz.render.painted import Association, Painted
from flare_geo.viz.render.painting import paint
from flare_geo.viz.render.surfaces import carrying, edges, outer, spacing

if TYPE_CHECKING:
    import pyvista as pv

_POINT, _CELL = "flare_geo_point", "flare_geo_cell"


@dataclass(frozen=True)
class Scene:
    """A mesh made ready once, to be painted with as many fields as wanted by `panel`."""

    surface: "pv.PolyData"  # faces, lines or points; knows which point and cell it came from
    outline: "pv.PolyData"  # boundary and sharp edges, possibly none
    frame: Frame
    ball: float  # diameter of the balls of a point cloud in mesh units, 0 for a mesh
    # Mesh coordinates of what are zeros in `surface` and `outline`: OpenGL computes in float32,
    # in which a part of 10 mm that lies 10 km from the origin has no shape.
    origin: np.ndarray = field(default_factory=lambda: np.zeros(3))

    def sources(self, association: Association) -> np.ndarray:
        """Which point (or cell) of the mesh each point (or cell) of `surface` is."""
        data = self.surface.point_data if association == "point" else self.surface.cell_data
        return np.asarray(data[_POINT if association == "point" else _CELL])


@dataclass(frozen=True)
class Layer:
    """Something drawn with a scene, in mesh coordinates: cuts, arrows, streamlines, levels."""

    mesh: "pv.PolyData"  # carries one number per point or cell as `FIELD`
    scale: ColorScale | None = None  # how these numbers become colours; None draws it plain
    width: float = theme.CURVE_WIDTH  # of its lines, pixels
    opacity: float = 1.0
    show_edges: bool = False


@dataclass(frozen=True)
class Panel:
    """All that is seen in one panel, and the camera before it."""

    items: list[Item]
    eye: Eye

    def pixels(self) -> np.ndarray:
        """Render it off-screen, uint8 `[height, width, 3]`."""
        n = theme.SAMPLES
        image = paint(self.items, self.eye, n)  # [n height, n width, 3]
        width, height = self.eye.frame.size
        total = np.full((height, width, 3), n * n // 2, dtype=np.uint16)
        for i in range(n):
            for j in range(n):
                total += image[i::n, j::n]
        return (total // (n * n)).astype(np.uint8)

    def add_to(self, plotter: "pv.Plotter", label: str = "") -> "pv.Plotter":
        """Add it to a plotter of the caller, in mesh coordinates, with a colour bar.

        Nothing is rendered. The camera of the plotter's active renderer becomes this one; the
        lights and the background stay the plotter's.
        """
        add_items(plotter, self.items, self.eye, label=label or " ")
        return plotter


def scene(
    mesh: "pv.DataSet",
    view: View,
    largest: tuple[int, int],
    *,
    also: np.ndarray | None = None,
) -> Scene:
    """Extract what can be seen of `mesh` and fit a camera; `mesh` itself is left alone.

    Args:
        mesh: any pyvista data set with points.
        view: see `fit`.
        largest: most pixels (width, height); the panel takes the shape of what is seen.
        also: `[k, 3]` more points that must be seen.

    Raises:
        ValueError: coordinates that are not finite, or an unknown view.
    """
    pv = theme.import_pyvista()
    points = np.asarray(mesh.points, dtype=float)
    if not np.isfinite(points).all():
        lost = int((~np.isfinite(points)).any(axis=1).sum())
        raise ValueError(f"points must be finite: {lost} of {len(points)} are not, remove them")
    if mesh.n_cells == 0:
        mesh = pv.PolyData(points)  # with a vertex for each point, so that VTK draws them
    numbered = carrying(mesh)
    numbered.point_data[_POINT] = np.arange(mesh.n_points)
    numbered.cell_data[_CELL] = np.arange(mesh.n_cells)
    surface = outer(numbered)
    used = _used(surface)
    seen = np.asarray(surface.points)[used]
    origin = 0.5 * (seen.min(axis=0) + seen.max(axis=0))
    # Stray points are in no cell; they must move neither the camera nor its clipping planes.
    near = np.where(used[:, None], np.asarray(surface.points) - origin, 0.0)
    surface.SetPoints(pv.vtk_points(near))
    seen = seen if also is None else np.concatenate([seen, also])
    frame = fit(seen, view, largest)
    if surface.GetNumberOfPolys() == 0 and surface.GetNumberOfLines() == 0:
        share = frame.size[0] * frame.size[1] / len(points)  # pixels per point, if spread evenly
        ball = max(0.9 * spacing(points), 0.6 * share**0.5 * frame.pixel)
        ball = min(max(ball, 4 * frame.pixel), 100 * frame.pixel)  # OpenGL's limit is near 200
        frame = fit(seen, view, largest, around=0.5 * ball)
        return Scene(surface, pv.PolyData(), frame, ball, origin)

    outline = edges(surface)
    if not frame.flat and surface.GetNumberOfPolys():
        surface = surface.compute_normals(
            cell_normals=False,
            split_vertices=True,
            feature_angle=theme.FEATURE_ANGLE,
            consistent_normals=False,
        )
    return Scene(surface, outline, frame, 0.0, origin)


def panel(
    ready: Scene,
    painted: Painted | None = None,
    *,
    show_edges: bool = False,
    ghost: "pv.PolyData | None" = None,
    layers: Sequence[Layer] = (),
    opacity: float = 1.0,
) -> Panel:
    """Put together all that is seen in one panel.

    Args:
        ready: from `scene`.
        painted: the field on the mesh given to `scene`; None draws it plain.
        show_edges: draw the mesh lines.
        ghost: thin lines for comparison, such as the outline of the undeformed shape.
        layers: more things to draw.
        opacity: of the mesh itself; with 0 its outline alone is drawn.
    """
    frame, surface = ready.frame, ready.surface.copy(deep=False)
    curves = not ready.ball and surface.GetNumberOfPolys() == 0
    reach = max(surface.length, max(frame.size) * frame.pixel)
    lift = 1e-3 * reach * frame.towards
    items = []
    if opacity > 0:
        color: ColorScale | str = theme.SOLID
        association: Association = "point"
        if painted is not None:
            association, color = painted.association, painted.scale
            data = surface.point_data if association == "point" else surface.cell_data
            data[FIELD] = painted.rows[ready.sources(association)]
        if curves:  # without a casing those of the middle colour are not seen
            items.append(_casing(_moved(surface, -lift), theme.CURVE_WIDTH))
        items.append(
            Item(
                surface,
                color,
                association,
                # Colours of a flat mesh are exactly those of the bar; shading is for solids.
                lit=not frame.flat and not curves,
                smooth=not frame.flat,
                opacity=opacity,
                width=theme.CURVE_WIDTH,
                ball=ready.ball / frame.pixel,
                edges=show_edges and not ready.ball and not curves,
            )
        )
    for layer in layers:
        flat = layer.mesh.GetNumberOfPolys() == 0
        moved = _moved(layer.mesh, -ready.origin + 2 * lift * flat)
        if flat:
            items.append(_casing(_moved(layer.mesh, -ready.origin + lift), layer.width))
        items.append(
            Item(
                moved,
                layer.scale or theme.SOLID,
                "point" if FIELD in moved.point_data else "cell",
                lit=not flat,
                opacity=layer.opacity,
                width=layer.width,
                edges=layer.show_edges and not flat,
            )
        )
    if ready.outline.n_cells and not show_edges:
        lifted = _moved(ready.outline, lift)
        items.append(Item(lifted, theme.OUTLINE, opacity=0.7, width=theme.OUTLINE_WIDTH))
    if ghost is not None and ghost.n_cells:
        lifted = _moved(ghost, lift - ready.origin)
        items.append(Item(lifted, theme.UNDEFORMED, width=theme.OUTLINE_WIDTH))
    return Panel(items, Eye(frame, ready.origin, reach))


def _casing(mesh: "pv.PolyData", width: float) -> Item:
    """A soft border on both sides of lines."""
    return Item(mesh, theme.SOFT_INK, width=width + 2)


def _moved(mesh: "pv.PolyData", by: np.ndarray) -> "pv.PolyData":
    """A copy of a mesh moved in float64, with its arrays."""
    copy = mesh.copy(deep=False)
    points = np.asarray(mesh.points, dtype=float) + by
    copy.SetPoints(theme.import_pyvista().vtk_points(points))
    return copy


def _used(surface: "pv.PolyData") -> np.ndarray:
    """Whether each point is in a cell."""
    array = theme.import_pyvista().convert_array
    used = np.zeros(surface.n_points, dtype=bool)
    for cells in (surface.GetVerts(), surface.GetLines(), surface.GetPolys()):
        used[np.asarray(array(cells.GetConnectivityArray()))] = True
    return used
