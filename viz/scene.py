"""A mesh in front of a camera: what there is to see of it, and nothing else.

The pixels are made by `painting.py`; text and colour bars are set beside them by `page.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from flare_geo.viz import theme
from flare_geo.viz.camera import Frame, View, fit
from flare_geo.viz.items import FIELD, Eye, Item
from flare_geo.viz.painting import paint
from flare_geo.viz.values import Association, ColorScale

if TYPE_CHECKING:
    import pyvista as pv

_POINT, _CELL = "flare_geo_point", "flare_geo_cell"


@dataclass(frozen=True)
class Scene:
    """A mesh made ready once, to be painted with as many fields as wanted by `draw`."""

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
    width: float = theme.CURVE_WIDTH  # of its lines, pixels
    opacity: float = 1.0
    show_edges: bool = False


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


def draw(
    ready: Scene,
    values: np.ndarray | None = None,
    association: Association = "point",
    scale: ColorScale | None = None,
    *,
    show_edges: bool = False,
    ghost: "pv.PolyData | None" = None,
    layers: Sequence[Layer] = (),
    opacity: float = 1.0,
) -> np.ndarray:
    """Render one panel.

    Args:
        ready: from `scene`.
        values: one number per point or cell of the mesh given to `scene`; None draws it plain.
        association: what the rows of `values` are.
        scale: how numbers become colours.
        show_edges: draw the mesh lines.
        ghost: thin lines for comparison, such as the outline of the undeformed shape.
        layers: more things to draw, coloured by `scale`.
        opacity: of the mesh itself; with 0 its outline alone is drawn.

    Returns:
        uint8 `[height, width, 3]`.
    """
    frame, surface, n = ready.frame, ready.surface.copy(deep=False), theme.SAMPLES
    curves = not ready.ball and surface.GetNumberOfPolys() == 0
    reach = max(surface.length, max(frame.size) * frame.pixel)
    lift = 1e-3 * reach * frame.towards
    items = []
    if opacity > 0:
        color: ColorScale | str = theme.SOLID
        if values is not None and scale is not None:
            data = surface.point_data if association == "point" else surface.cell_data
            data[FIELD], color = values[ready.sources(association)], scale
        if curves:
            # A casing, or curves of the middle colour are not seen.
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
                scale or theme.SOLID,
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
    image = paint(items, Eye(frame, ready.origin, reach), n)  # [n height, n width, 3]
    width, height = frame.size
    total = np.full((height, width, 3), n * n // 2, dtype=np.uint16)
    for i in range(n):
        for j in range(n):
            total += image[i::n, j::n]
    return (total // (n * n)).astype(np.uint8)


def outer(mesh: "pv.DataSet") -> "pv.PolyData":
    """The surface of a solid mesh; a surface as it is. Point and cell data are kept."""
    pv = theme.import_pyvista()
    if isinstance(mesh, pv.PolyData):
        return mesh.triangulate() if mesh.n_strips else mesh
    from vtkmodules.vtkFiltersGeometry import vtkDataSetSurfaceFilter  # pyvista renames its options

    surface = vtkDataSetSurfaceFilter()
    surface.SetInputData(mesh)
    surface.Update()
    return pv.wrap(surface.GetOutput())


def edges(mesh: "pv.PolyData") -> "pv.PolyData":
    """Boundary edges of a surface, and those between faces that meet at an angle.

    None where they would cover the picture, as on a part made of voxels.
    """
    pv = theme.import_pyvista()
    found = (
        pv.PolyData(mesh.points, faces=mesh.faces)
        .clean()
        .extract_feature_edges(theme.FEATURE_ANGLE, non_manifold_edges=False, manifold_edges=False)
    )
    if found.n_cells == 0:
        return found
    ends = found.points[found.lines.reshape(-1, 3)[:, 1:]]  # [e, 2, 3]
    length = float(np.linalg.norm(ends[:, 1] - ends[:, 0], axis=1).sum())
    return found if length <= theme.MOST_OUTLINE * mesh.length else pv.PolyData()


def carrying(
    mesh: "pv.DataSet",
    points: np.ndarray | None = None,
    *,
    rows: np.ndarray | None = None,
    association: Association = "point",
) -> "pv.DataSet":
    """A copy of a mesh in float64 without its arrays, but for `rows`, which it carries as `FIELD`.

    Filters (slices, clips, contours) are run on it, so that they see nothing else and round
    nothing. `mesh` itself is left alone.

    Args:
        mesh: any pyvista data set.
        points: `[n, 3]` other places of its points.
        rows: one number or vector per point or cell.
        association: what the rows are.
    """
    pv = theme.import_pyvista()
    points = np.asarray(mesh.points if points is None else points, dtype=float)
    if not isinstance(mesh, pv.PolyData | pv.UnstructuredGrid | pv.StructuredGrid):
        mesh = mesh.cast_to_unstructured_grid()  # points of an image or rectilinear grid are fixed
    copy = mesh.copy(deep=False)
    copy.clear_data()
    copy.SetPoints(pv.vtk_points(points))  # `copy.points = ...` would move those of `mesh` too
    if rows is not None:
        (copy.point_data if association == "point" else copy.cell_data)[FIELD] = rows
    return copy


def spacing(points: np.ndarray) -> float:
    """Distance to the nearest neighbour that three quarters of a sample of points do not exceed."""
    from scipy.spatial import KDTree

    if len(points) < 2:
        return 1.0
    sample = points[:: max(1, len(points) // 5000)]
    distance, _ = KDTree(points).query(sample, k=2)
    return float(np.quantile(distance[:, 1], 0.75))


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
