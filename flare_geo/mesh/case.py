"""Model inputs, and targets where present, from a user's mesh.

A data set says how in a recipe, which travels with the checkpoint as JSON::

    at       "point" or "cell": what the points of the cloud are
    dim      columns of pos
    inputs   names of what becomes x: arrays of the mesh, values given once, "normal", "area"
    outputs  for each output channel [array, component, factor]: where a mesh carries the truth
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flare_geo.mesh.chunks import NotInChunks
from flare_geo.mesh.fields import float_tensor
from flare_geo.mesh.source import MeshSource, WholeMesh
from flare_geo.pyg import Data

Recipe = Mapping[str, Any]


class MeshCase:
    """A mesh, read by a recipe: the cloud that a surrogate sees, and the fields it should predict.

    Args:
        source: The mesh.
        recipe: See above.
        given: Inputs that are the same on all points, by name.

    Raises:
        NotInChunks: The recipe is about cells, and the source reads points in chunks.

    Example:
        >>> case = MeshCase(WholeMesh(mesh, "point", 3), recipe, {"speed": 30.0})
        >>> case.cloud(slice(0, 1000)).pos.shape
        torch.Size([1000, 3])
    """

    def __init__(
        self, source: MeshSource, recipe: Recipe, given: Mapping[str, float] | None = None
    ) -> None:
        if source.at != recipe["at"]:
            raise NotInChunks("the surrogate was trained on cells, whose corners may lie anywhere")
        self.source, self.recipe, self.given = source, recipe, given or {}

    def cloud(self, at: slice | None = None) -> Data:
        """The points with the inputs that the recipe names, in the order of the mesh.

        Args:
            at: Which points; None for all of them, with the connectivity that the mesh has.

        Shapes:
            ``pos [n, dim]``, ``x [n, f]`` if there are inputs; of a whole mesh ``face`` or
            ``cells`` of a cloud of points, ``normal [n, 3]`` and ``area [n, 1]`` of cells of a
            surface.

        Raises:
            ValueError: A solid where there should be a plane, or an input that is neither on the
                mesh nor given (says what there is).
        """
        some, dim = slice(0, self.source.num_points) if at is None else at, self.recipe["dim"]
        low, high = self.source.height(some) if dim == 2 else (0.0, 0.0)
        if high > low:
            raise ValueError(
                "the surrogate was trained on points in the plane z = 0, the mesh reaches from "
                f"z = {low:.5g} to {high:.5g}"
            )
        if at is None and isinstance(self.source, WholeMesh):
            data = copy(self.source.cloud)
        else:
            data = Data(pos=float_tensor(self.source.points(some)[:, :dim]))
        columns = [self._input(name, some, len(data.pos)) for name in self.recipe["inputs"]]
        if columns:
            data.x = torch.cat(columns, dim=1)
        return data

    def truth(self, at: slice | None = None) -> Tensor | None:
        """The fields to be predicted, ``[n, c]``, if the mesh carries all of them; else None."""
        some = slice(0, self.source.num_points) if at is None else at
        columns = []
        for name, component, factor in self.recipe.get("outputs", ()):
            if component >= self.source.widths.get(name, 0):
                return None
            columns.append(factor * self.source.rows(name, some)[:, component])
        return float_tensor(np.stack(columns, axis=1)) if columns else None

    def _input(self, name: str, at: slice, n: int) -> Tensor:
        """One input as columns ``[n, c]``."""
        if name in self.given:
            return torch.full((n, 1), float(self.given[name]))
        return float_tensor(self.source.rows(name, at))
