"""Points drawn evenly from a triangulated surface."""

from __future__ import annotations

import torch
from torch import Tensor

from flare_geo.pyg import Data
from flare_geo.transforms.base import (
    Transform,
    drop_connectivity,
    one_cloud,
    point_fields,
    positions,
    triangles,
    whole_number,
)
from flare_geo.transforms.case_generator import case_generator


class SampleSurface(Transform):
    r"""Replaces the points by samples of the surface, evenly by area, with all their fields.

    A triangle is drawn with a probability proportional to its area, a point in it by
    :math:`p = (1-\sqrt u)\,a + \sqrt u\,(1-v)\,b + \sqrt u\,v\,c`, and every field of floats with
    a row per point is interpolated with the same weights; other fields are taken from the corner
    of largest weight. ``SamplePoints`` of PyG gives positions and normals only, from the global
    generator, and fails beyond 2^24 triangles.

    Args:
        num_points: Number of samples.
        seed: None draws anew on every access; a number always gives a case (by ``data.name``)
            the same samples.

    Shapes:
        ``pos [n, d]``, ``face [3, f]``; afterwards ``pos [num_points, d]``, for d = 3 the unit
        normal ``normal [num_points, 3]`` of the triangle it lies on, and ``area [num_points, 1]``,
        the surface divided by the number of samples, so that sums over it remain integrals.
        ``face``, ``cells`` and ``edge_index`` are dropped.

    Raises:
        ValueError: no triangles, none with an area, batched data, or :meth:`inverse`.

    Example:
        >>> pos = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
        >>> SampleSurface(5, seed=0)(Data(pos=pos, face=torch.tensor([[0], [1], [2]]), y=pos))
        Data(y=[5, 3], pos=[5, 3], normal=[5, 3], area=[5, 1])
    """

    def __init__(self, num_points: int, seed: int | None = None) -> None:
        self.num_points = whole_number(self, "num_points", num_points, 1)
        self.seed = None if seed is None else whole_number(self, "seed", seed, 0)

    def forward(self, data: Data) -> Data:
        """Draw the samples."""
        pos, face = positions(self, data), triangles(self, data)
        one_cloud(self, data)
        across = twice_area_vectors(pos.double(), face)  # [f, 3] or [f, 1]
        area = across.norm(dim=1) / 2
        upto = area.cumsum(0)
        if not len(upto) or upto[-1] <= 0:
            raise ValueError(f"SampleSurface: {face.shape[1]} triangles, none with an area")
        generator = case_generator(self.seed, data.get("name", ""))
        draws = torch.rand(3, self.num_points, generator=generator, dtype=torch.float64)
        which, u, v = draws.to(pos.device)
        # right=True never lands on a triangle without area: its interval is empty
        drawn = torch.searchsorted(upto, which * upto[-1], right=True)
        corners = face[:, drawn]  # [3, num_points]
        root = u.sqrt()
        weights = torch.stack([1 - root, root * (1 - v), root * v])  # [3, num_points]
        for key in point_fields(data):
            data[key] = _interpolate(data[key], corners, weights)
        if pos.shape[1] == 3:
            data["normal"] = (across[drawn] / (2 * area[drawn, None])).to(pos.dtype)
        data["area"] = (upto[-1] / self.num_points).to(pos.dtype).repeat(self.num_points, 1)
        drop_connectivity(data)
        return data

    def _inverse(self, data: Data) -> Data:
        raise ValueError("SampleSurface cannot be undone: the points of the mesh are gone")


def twice_area_vectors(pos: Tensor, face: Tensor) -> Tensor:
    """Normals as long as twice the area, ``[f, 3]``; in the plane ``[f, 1]``, signed."""
    a, b, c = pos[face[0]], pos[face[1]], pos[face[2]]
    if pos.shape[1] == 3:
        across: Tensor = torch.linalg.cross(b - a, c - a)
    else:
        ab, ac = b - a, c - a
        across = ab[:, :1] * ac[:, 1:] - ab[:, 1:] * ac[:, :1]
    return across


def _interpolate(value: Tensor, corners: Tensor, weights: Tensor) -> Tensor:
    if not value.is_floating_point():
        nearest = corners.gather(0, weights.argmax(dim=0, keepdim=True)).squeeze(0)
        return value[nearest]
    weights = weights.reshape(*weights.shape, *[1] * (value.dim() - 1))
    return sum((w * value[c] for w, c in zip(weights, corners)), torch.zeros(())).to(value.dtype)
