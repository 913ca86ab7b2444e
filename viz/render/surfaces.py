"""Surfaces, edges and bare copies of meshes, as pictures need them."""

from typing import TYPE_CHECKING

import numpy as np

from flare_geo.viz.render import theme
from flare_geo.viz.render.items import FIELD
from flare_geo.viz.render.painted import Association

if TYPE_CHECKING:
    import pyvista as pv


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


def outline_of(mesh: "pv.DataSet") -> "pv.PolyData":
    """The edges of a mesh, or its bounding box where there are none or too many to see anything."""
    found = edges(outer(mesh))
    return found if found.n_cells else mesh.outline()


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
