"""Mean and Gaussian curvature at the points of a surface."""

from __future__ import annotations

import torch
from torch import Tensor

from flare_geo.pyg import Data
from flare_geo.transforms.base import Transform, positions, triangles
from flare_geo.transforms.normals import TINY, surface_normals

FLAT = 1e-12  # sine of the angle below which a triangle is a line


class Curvature(Transform):
    r"""Adds the mean and the Gaussian curvature ``curvature [n, 2]`` of a triangulated surface.

    After `Meyer, Desbrun, Schroeder, Barr (2003)
    <https://doi.org/10.1007/978-3-662-05105-4_2>`_, with A the mixed Voronoi area of point i:

    .. math::
        H = \frac{n_i}{4A} \cdot \sum_j (\cot\alpha_{ij} + \cot\beta_{ij})(p_i - p_j), \qquad
        K = \frac{1}{A} \Big(2\pi - \sum_f \theta_f\Big)

    H is positive where the surface is convex seen from the side its normals point to: a sphere of
    radius R with outward normals has H = 1/R, K = 1/R^2. Points on the rim of an open surface, and
    those without triangles, get zeros. Triangles without area count for nothing.

    Shapes:
        ``pos [n, 3]`` in a unit u, ``face [3, f]``; adds ``curvature [n, 2]``, H in 1/u, K in
        1/u^2.

    Raises:
        ValueError: no triangles, or triangles that share no edge (as read from an STL file:
            merge equal points first).

    Example:
        >>> pos = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
        >>> face = torch.tensor([[0, 0, 0, 1], [2, 1, 3, 2], [1, 3, 2, 3]])
        >>> Curvature()(Data(pos=pos, face=face)).curvature.shape
        torch.Size([4, 2])
    """

    def forward(self, data: Data) -> Data:
        """Add the curvatures."""
        pos = positions(self, data, (3,))
        face = triangles(self, data)
        rim = rim_points(face, len(pos))
        if face.numel() and rim[face].all():
            raise ValueError(
                "Curvature: every point lies on a rim, the triangles share no edges or no ring of "
                "them is closed; merge equal points first"
            )
        value = curvature(pos.double(), face)
        value[rim] = 0
        data["curvature"] = value.to(pos.dtype)
        return data


def curvature(pos: Tensor, face: Tensor) -> Tensor:
    """Mean and Gaussian curvature ``[n, 2]``, for points inside the surface (not on a rim)."""
    n = len(pos)
    pull = torch.zeros_like(pos)  # sum of cotangents times edges
    area = pos.new_zeros(n)
    angles = pos.new_zeros(n)
    cot, sq, theta = [], [], []
    for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        to_j, to_k = pos[face[j]] - pos[face[i]], pos[face[k]] - pos[face[i]]
        sine, cosine = torch.linalg.cross(to_j, to_k).norm(dim=1), (to_j * to_k).sum(dim=1)
        sound = sine > FLAT * to_j.norm(dim=1) * to_k.norm(dim=1)
        cot.append(torch.where(sound, cosine / sine.clamp_min(TINY), 0))
        sq.append((to_k - to_j).square().sum(dim=1))  # of the edge across from corner i
        theta.append(torch.atan2(sine, cosine))
    twice = torch.linalg.cross(pos[face[1]] - pos[face[0]], pos[face[2]] - pos[face[0]]).norm(dim=1)
    obtuse = torch.stack(cot).amin(dim=0) < 0
    for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        edge = cot[i].unsqueeze(1) * (pos[face[j]] - pos[face[k]])
        pull.index_add_(0, face[j], edge).index_add_(0, face[k], -edge)
        angles.index_add_(0, face[i], theta[i])
        # the corner's share: the part nearest to it, or halves and quarters where that sticks out
        nearest = (sq[j] * cot[j] + sq[k] * cot[k]) / 8
        clipped = torch.where(cot[i] < 0, twice / 4, twice / 8)
        area.index_add_(0, face[i], torch.where(obtuse, clipped, nearest))
    mean = (pull * surface_normals(pos, face)).sum(dim=1) / (4 * area)
    gauss = (2 * torch.pi - angles) / area
    return torch.where((area > 0).unsqueeze(1), torch.stack([mean, gauss], dim=1), 0)


def rim_points(face: Tensor, n: int) -> Tensor:
    """Mask ``[n]`` of the points on an edge that belongs to one triangle only."""
    edges = torch.cat([face[[0, 1]], face[[1, 2]], face[[2, 0]]], dim=1)
    keys = edges.amin(dim=0) * n + edges.amax(dim=0)
    found, count = torch.unique(keys, return_counts=True)
    single = found[count == 1]
    rim = torch.zeros(n, dtype=torch.bool, device=face.device)
    rim[single // n] = True
    rim[single % n] = True
    return rim
