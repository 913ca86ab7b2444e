"""Meshes of other libraries: read from files, turned into PyG ``Data``, and brought back.

The one place that knows pyvista, meshio and trimesh. What needs pyvista imports it when called:
``pip install "flare-geo[viz]"``.
"""

from flare_geo.mesh.case import MeshCase
from flare_geo.mesh.chunks import ChunkedFile, NotInChunks
from flare_geo.mesh.fields import add_fields, array_names
from flare_geo.mesh.files import SUFFIXES, array_widths, read_mesh, write_mesh
from flare_geo.mesh.meshio import from_meshio, to_meshio
from flare_geo.mesh.polygons import point_geometry, polygon_geometry
from flare_geo.mesh.series import read_series, write_series
from flare_geo.mesh.source import MeshSource, WholeMesh, check_names, write_fields
from flare_geo.mesh.trimesh import from_trimesh, to_trimesh
from flare_geo.mesh.vtk import as_mesh, from_pyvista, polygons_of, surface_geometry, to_pyvista

__all__ = [
    "SUFFIXES",
    "ChunkedFile",
    "MeshCase",
    "MeshSource",
    "NotInChunks",
    "WholeMesh",
    "add_fields",
    "array_names",
    "array_widths",
    "as_mesh",
    "check_names",
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
    "write_fields",
    "write_mesh",
    "write_series",
]
