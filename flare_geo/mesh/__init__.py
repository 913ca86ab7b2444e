"""Meshes of other libraries: read from files, turned into PyG ``Data``, and brought back.

The one place that knows pyvista, meshio and trimesh. What needs pyvista imports it when called:
``pip install "flare-geo[viz]"``.
"""

from flare_geo.mesh.case import case_of_mesh, truth_of_mesh
from flare_geo.mesh.fields import add_fields
from flare_geo.mesh.files import SUFFIXES, array_widths, read_mesh, write_mesh
from flare_geo.mesh.meshio import from_meshio, to_meshio
from flare_geo.mesh.pieces import NotInPieces, PieceFile, case_of_pieces, truth_of_pieces
from flare_geo.mesh.polygons import point_geometry, polygon_geometry
from flare_geo.mesh.series import read_series, write_series
from flare_geo.mesh.trimesh import from_trimesh, to_trimesh
from flare_geo.mesh.vtk import as_mesh, from_pyvista, polygons_of, surface_geometry, to_pyvista

__all__ = [
    "SUFFIXES",
    "NotInPieces",
    "PieceFile",
    "add_fields",
    "array_widths",
    "as_mesh",
    "case_of_mesh",
    "case_of_pieces",
    "from_meshio",
    "from_pyvista",
    "from_trimesh",
    "point_geometry",
    "polygon_geometry",
    "polygons_of",
    "read_mesh",
    "read_series",
    "surface_geometry",
    "to_meshio",
    "to_pyvista",
    "to_trimesh",
    "truth_of_mesh",
    "truth_of_pieces",
    "write_mesh",
    "write_series",
]
