"""A mesh in front of a camera: everything of a picture that VTK draws, and nothing else.

Text and colour bars are not VTK's: `page.py` sets them beside the pixels made here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from flare_geo.viz import theme
from flare_geo.viz.camera import Frame, View, fit
from flare_geo.viz.values import Association, ColorScale

if TYPE_CHECKING:
    import pyvista as pv

FIELD = "flare_geo_field"  # the array that `carrying` sends through VTK's filters
_POINT, _CELL = "flare_geo_point", "flare_geo_cell"
# What VTK is told about everything that has a colour.
_LOOK: dict[str, Any] = {"show_scalar_bar": False, "copy_mesh": False, "specular": 0.0}


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
    look: dict[str, Any] = {"lighting": not frame.flat, "opacity": opacity}
    # Colours of a flat mesh are exactly those of the bar; shading is for the shape of solids.
    if values is None or scale is None:
        look |= {"color": theme.SOLID, "ambient": 0.45, "diffuse": 0.55}
    else:
        data = surface.point_data if association == "point" else surface.cell_data
        data[FIELD] = values[ready.sources(association)]
        look |= _painted(scale, association, lit=not frame.flat)
    if ready.ball:
        look |= {"style": "points", "render_points_as_spheres": True}
        look |= {"point_size": n * ready.ball / frame.pixel}
    elif curves:
        look |= {"line_width": n * theme.CURVE_WIDTH, "lighting": False}
    elif show_edges:
        look |= {"show_edges": True, "edge_color": theme.INK, "edge_opacity": 0.35}
        look |= {"line_width": n}
    if not frame.flat:
        look |= {"interpolation": "gouraud"}

    reach = max(surface.length, max(frame.size) * frame.pixel)
    line: dict[str, Any] = {"lighting": False, "copy_mesh": False}
    lift = 1e-3 * reach * frame.towards
    width, height = frame.size
    with theme.offscreen_plotter((n * width, n * height)) as plotter:
        casing = {"color": theme.SOFT_INK, **line}  # or curves of the middle colour are not seen
        if opacity > 0:
            plotter.add_mesh(surface, **_LOOK, **look)
        if opacity > 0 and curves:
            under = _moved(surface, -lift)
            plotter.add_mesh(under, line_width=n * (theme.CURVE_WIDTH + 2), **casing)
        for layer in layers:
            flat = layer.mesh.GetNumberOfPolys() == 0
            moved = _moved(layer.mesh, -ready.origin + 2 * lift * flat)
            if flat:
                under = _moved(layer.mesh, -ready.origin + lift)
                plotter.add_mesh(under, line_width=n * (layer.width + 2), **casing)
            where: Association = "point" if FIELD in moved.point_data else "cell"
            shaded = _painted(scale, where, lit=not flat) if scale else {"color": theme.SOLID}
            shaded |= {"line_width": n * layer.width, "opacity": layer.opacity}
            if layer.show_edges and not flat:
                shaded |= {"show_edges": True, "edge_color": theme.INK, "edge_opacity": 0.35}
                shaded |= {"line_width": n}
            plotter.add_mesh(moved, lighting=not flat, **_LOOK, **shaded)
        if any(0 < part < 1 for part in (opacity, *(layer.opacity for layer in layers))):
            plotter.renderer.enable_depth_peeling(theme.PEELS)
        if ready.outline.n_cells and not show_edges:
            lifted = _moved(ready.outline, lift)
            plotter.add_mesh(lifted, color=theme.OUTLINE, line_width=1.5 * n, opacity=0.7, **line)
        if ghost is not None and ghost.n_cells:
            lifted = _moved(ghost, lift - ready.origin)
            plotter.add_mesh(lifted, color=theme.UNDEFORMED, line_width=1.5 * n, **line)
        plotter.camera.focal_point = frame.centre - ready.origin
        plotter.camera.position = frame.centre - ready.origin + 2 * reach * frame.towards
        plotter.camera.up = frame.up
        plotter.camera.parallel_scale = 0.5 * height * frame.pixel
        plotter.renderer.reset_camera_clipping_range()
        image = np.asarray(plotter.screenshot(None, return_img=True))  # [n height, n width, 3]
    total = np.full((height, width, 3), n * n // 2, dtype=np.uint16)
    for i in range(n):
        for j in range(n):
            total += image[i::n, j::n, :3]
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


def _painted(scale: ColorScale, association: Association, *, lit: bool) -> dict[str, Any]:
    """How `FIELD` is coloured; unlit colours are exactly those of the bar."""
    look: dict[str, Any] = {"scalars": FIELD, "preference": association, "nan_color": theme.NAN}
    look |= {"cmap": scale.cmap, "clim": [scale.low, scale.high]}
    return look | ({"ambient": 0.62, "diffuse": 0.4} if lit else {"ambient": 1.0, "diffuse": 0.0})


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
