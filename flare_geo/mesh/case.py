"""A mesh as the case that a surrogate was trained on, and what it carries of the truth.

A data set says how in a recipe, which travels with the checkpoint as JSON::

    at       "point" or "cell": what the points of the cloud are
    dim      columns of pos
    inputs   names of what becomes x: arrays of the mesh, values given once, "normal", "area"
    outputs  for each output channel [array, component, factor]: where a mesh carries the truth
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from flare_geo.mesh.fields import float_tensor, to_numpy
from flare_geo.mesh.vtk import as_mesh, from_pyvista, is_surface, surface_geometry
from flare_geo.pyg import Data

if TYPE_CHECKING:
    import pyvista as pv

Recipe = Mapping[str, Any]


def case_of_mesh(mesh: Any, recipe: Recipe, given: Mapping[str, float] | None = None) -> Data:
    """The cloud of a mesh with the inputs that a recipe names, in the order of the mesh.

    Args:
        mesh: A pyvista mesh, ``meshio.Mesh`` or ``trimesh.Trimesh``.
        recipe: See above.
        given: Inputs that are the same on all points, by name.

    Shapes:
        ``pos [n, dim]``, ``x [n, f]`` if there are inputs, ``face`` or ``cells`` of a cloud of
        points, ``normal [n, 3]`` and ``area [n, 1]`` of cells of a surface.

    Raises:
        ValueError: no points, a solid where there should be a plane, or an input that is neither
            on the mesh nor given (says what there is).
    """
    grid = as_mesh(mesh)
    at, dim = recipe["at"], recipe["dim"]
    points = np.asarray(grid.points)
    if dim == 2 and np.ptp(points[:, 2]) > 0:
        low, high = points[:, 2].min(), points[:, 2].max()
        raise ValueError(
            "the surrogate was trained on points in the plane z = 0, the mesh reaches from "
            f"z = {low:.5g} to {high:.5g}"
        )
    data = from_pyvista(grid, dim=dim, at=at)
    columns = [_input(grid, name, at, len(data.pos), given or {}) for name in recipe["inputs"]]
    if columns:
        data.x = torch.cat(columns, dim=1)
    return data


def truth_of_mesh(mesh: Any, recipe: Recipe) -> Tensor | None:
    """The fields to be predicted, ``[n, c]``, if the mesh carries all of them; else None."""
    grid = as_mesh(mesh)
    arrays = grid.point_data if recipe["at"] == "point" else grid.cell_data
    columns = []
    for name, component, factor in recipe.get("outputs", ()):
        if name not in arrays:
            return None
        array = to_numpy(np.asarray(arrays[name]), name).reshape(len(arrays[name]), -1)
        if component >= array.shape[1]:
            return None
        columns.append(factor * array[:, component])
    return float_tensor(np.stack(columns, axis=1)) if columns else None


def _input(grid: pv.DataSet, name: str, at: str, n: int, given: Mapping[str, float]) -> Tensor:
    """One input as columns ``[n, c]``."""
    arrays = grid.point_data if at == "point" else grid.cell_data
    if name in given:
        return torch.full((n, 1), float(given[name]))
    if name in arrays:
        return float_tensor(to_numpy(np.asarray(arrays[name]), name).reshape(n, -1))
    if name in ("normal", "area") and is_surface(grid):
        normal, area = surface_geometry(grid, at)  # type: ignore[arg-type]
        return float_tensor(normal if name == "normal" else area[:, None])
    if name in ("normal", "area"):
        raise ValueError(f"the surrogate needs '{name}', which only a surface of polygons has")
    there = ", ".join(sorted(arrays.keys())) or "none"
    raise ValueError(
        f"the surrogate needs the {at} array '{name}', the mesh has {there}; a value that is the "
        f"same everywhere may be given, as in --given.{name} VALUE"
    )
