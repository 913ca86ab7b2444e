"""Between PyG `Data` and `trimesh.Trimesh`, both ways."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from flare_geo.mesh.fields import At, float_tensor, pick, place, to_numpy
from flare_geo.mesh.polygons import polygon_geometry, unit
from flare_geo.mesh.vtk import checked_face, checked_points
from flare_geo.pyg import Data

if TYPE_CHECKING:
    import trimesh


def to_trimesh(data: Data, **fields: Any) -> trimesh.Trimesh:
    """Turn a PyG `Data` with `pos` and `face` into a `trimesh.Trimesh` that carries `fields`.

    Nothing is merged or reordered. Fields become `vertex_attributes` or `face_attributes`.
    Arguments and errors as those of `to_pyvista`, and ValueError without `face`.

    Example::

        to_trimesh(data, pressure=data.pred).export("part.ply")
    """
    import trimesh

    points = checked_points(data)
    face = data.get("face")
    if face is None:
        raise ValueError("a Trimesh is made of triangles, and data has no face [3, f]")
    points = np.pad(points, ((0, 0), (0, 3 - points.shape[1])))
    mesh = trimesh.Trimesh(points, checked_face(face, len(points)), process=False)
    for name, value in fields.items():
        array = to_numpy(value, name)
        where = place(array, name, len(points), len(mesh.faces))
        (mesh.vertex_attributes if where == "point" else mesh.face_attributes)[name] = array
    return mesh


def from_trimesh(
    mesh: trimesh.Trimesh,
    y: str | Sequence[str] | None = None,
    x: str | Sequence[str] | None = None,
    *,
    dim: int | None = None,
    at: At = "point",
) -> Data:
    """Turn a `trimesh.Trimesh` into a PyG `Data`; `to_trimesh` brings it back.

    Arguments, result and errors are those of `from_pyvista`: `y` and `x` name
    `vertex_attributes`, or with `at="cell"` `face_attributes`. Needs no pyvista. Note that
    trimesh merges equal vertices when it loads a file, unless told `process=False`.

    Example::

        data = from_trimesh(trimesh.load_mesh("part.stl"))
    """
    if not hasattr(mesh, "faces"):
        raise ValueError(
            f"expected a trimesh.Trimesh, got {type(mesh).__name__}: pass scene.to_geometry()"
        )
    if len(mesh.vertices) == 0:
        raise ValueError("the mesh is empty: it has 0 points")
    points, faces = np.asarray(mesh.vertices), np.asarray(mesh.faces, dtype=np.int64)
    if dim is None:
        dim = 3 if np.any(points[:, 2] != 0) else 2
    if at == "point":
        data = Data(pos=float_tensor(points[:, :dim]))
        data.face = torch.from_numpy(faces.copy()).t().contiguous()
    else:
        centre, area = polygon_geometry(points, faces.ravel(), 3 * np.arange(len(faces) + 1))
        data = Data(pos=float_tensor(centre[:, :dim]))
        data.area = float_tensor(np.linalg.norm(area, axis=1, keepdims=True))
        if dim == 3:
            data.normal = float_tensor(unit(area))
    here, there = mesh.vertex_attributes, mesh.face_attributes
    if at == "cell":
        here, there = there, here
    for key, names in (("y", y), ("x", x)):
        if names is not None:
            data[key] = pick(names, key, here, there, at)
    return data
