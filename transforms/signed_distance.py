"""Distance of points to a surface, negative inside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flare_geo.pyg import Data
from flare_geo.transforms.base import Transform, clouds, positions, triangles

PAIRS = 2**18  # of points and triangles treated at once: 2 MB an array, which stays in the cache
TINY = 1e-300


class SignedDistance(Transform):
    r"""Adds the distance of each point to a surface, ``sdf [n, 1]``, **negative inside**.

    The distance is exact. Inside is where the surface winds around the point: the solid angle it
    is seen under, summed over its triangles (`van Oosterom and Strackee 1983
    <https://doi.org/10.1109/TBME.1983.325207>`_), exceeds half a sphere. So small holes, repeated
    triangles, overlapping bodies and a surface that is inside out do no harm, where rays and
    normals go astray; a wide open surface has no inside worth the name. trimesh's own needs the
    package rtree, and counts positive inside.

    The sign costs time proportional to points inside the box of the surface times triangles
    (10,000 times 10,000: a few seconds a core), so this is meant for ``pre_transform``.

    Args:
        mesh: File of the surface, anything trimesh reads (STL, OBJ, PLY); None for the triangles
            ``face`` of the data themselves, where they bound a volume mesh, say.

    Shapes:
        ``pos [n, 3]`` in the unit of the surface; adds ``sdf [n, 1]`` in the same unit.

    Raises:
        ValueError: no triangles; says where.
        FileNotFoundError: no such file.

    Example:
        >>> pos = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [0.1, 0.1, 0.1]])
        >>> face = torch.tensor([[0, 0, 0, 1], [2, 1, 3, 2], [1, 3, 2, 3]])
        >>> round(float(SignedDistance()(Data(pos=pos, face=face)).sdf[4]), 6)
        -0.1
    """

    def __init__(self, mesh: str | Path | None = None) -> None:
        self.mesh = None if mesh is None else str(mesh)
        self._surface = None if self.mesh is None else read_surface(self.mesh)

    def forward(self, data: Data) -> Data:
        """Add the distances."""
        pos = positions(self, data, (3,))
        if self._surface is not None:
            data["sdf"] = signed_distance(pos, *self._surface).unsqueeze(1).to(pos)
            return data
        face = triangles(self, data)
        batch, ptr = clouds(data)
        parts = []
        for i, (start, end) in enumerate(zip(ptr[:-1].tolist(), ptr[1:].tolist())):
            own = face[:, batch[face[0]] == i] - start
            points = pos[start:end]
            parts.append(signed_distance(points, points, own) if len(points) else points[:, 0])
        data["sdf"] = torch.cat(parts).unsqueeze(1).to(pos)
        return data


def signed_distance(points: Tensor, vertices: Tensor, face: Tensor) -> Tensor:
    """Distance of points to triangles, negative inside, in float64 on the CPU.

    Shapes:
        ``points [n, 3]``, ``vertices [v, 3]``, ``face [3, f]``; returns ``[n]``.

    Raises:
        ValueError: there are no triangles.
    """
    if face.numel() == 0:
        raise ValueError("SignedDistance: the surface has no triangles")
    points, vertices, face = points.cpu().double(), vertices.cpu().double(), face.cpu()
    used, corner = torch.unique(face, return_inverse=True)
    vertices, face = vertices[used], corner.reshape(face.shape)
    middle = vertices.mean(dim=0)  # digits are not to be spent on where the body stands
    points, vertices = points - middle, vertices - middle
    distance = torch.from_numpy(_distance(points.numpy(), vertices[face.T].numpy()))
    within = ((points > vertices.amin(dim=0)) & (points < vertices.amax(dim=0))).all(dim=1)
    inside = torch.zeros_like(within)
    inside[within] = winding_number(points[within], vertices, face).abs() > 0.5
    return torch.where(inside, -distance, distance)


def winding_number(points: Tensor, vertices: Tensor, face: Tensor) -> Tensor:
    r"""How often a surface winds around each point: 1 inside, 0 outside of a closed one.

    .. math:: w = \frac{1}{2\pi} \sum_f \mathrm{atan2}\big(a \cdot (b \times c),\;
        |a||b||c| + (a \cdot b)|c| + (b \cdot c)|a| + (c \cdot a)|b|\big)

    with a, b, c the corners of a triangle seen from the point p. The triple product and the scalar
    products are linear in (p, 1, p^2), and so one matrix product each.

    Shapes:
        ``points [n, 3]``, ``vertices [v, 3]``, ``face [3, f]``; returns ``[n]``.
    """
    a, b, c = vertices[face]  # [f, 3]
    one, zero = torch.ones_like(a[:, :1]), torch.zeros_like(a[:, :1])
    volume = (a * torch.linalg.cross(b, c)).sum(dim=1, keepdim=True)
    triple = torch.cat([-torch.linalg.cross(b - a, c - a), volume, zero], dim=1).T  # [5, f]
    scalar = [
        torch.cat([-(p + q), (p * q).sum(dim=1, keepdim=True), one], dim=1).T
        for p, q in ((a, b), (b, c), (c, a))
    ]
    parts = []
    step = max(1, PAIRS // face.shape[1])
    for start in range(0, len(points), step):
        p = points[start : start + step]
        terms = torch.cat([p, torch.ones_like(p[:, :1]), p.square().sum(dim=1, keepdim=True)], 1)
        length = torch.cdist(p, vertices, compute_mode="donot_use_mm_for_euclid_dist")
        la, lb, lc = (length.index_select(1, corner) for corner in face)  # [step, f]
        below = la * lb * lc
        for matrix, opposite in zip(scalar, (lc, la, lb)):
            below.addcmul_(terms @ matrix, opposite)
        parts.append(torch.atan2(terms @ triple, below).sum(dim=1))
    return torch.cat(parts) / (2 * torch.pi) if parts else points.new_zeros(0)


def _distance(points: NDArray[Any], corners: NDArray[Any]) -> NDArray[Any]:
    """Distance of ``points [n, 3]`` to the nearest of the triangles ``corners [f, 3, 3]``.

    The centres of triangles of like size stand in one tree. A triangle reaches no farther than
    its radius r from its centre, so a point is done with a tree once the next centre in it is
    farther away than the best distance so far plus r.
    """
    from scipy.spatial import cKDTree

    centre = corners.mean(axis=1)
    radius = np.linalg.norm(corners - centre[:, None], axis=2).max(axis=1)
    size = np.floor(np.log2(np.maximum(radius, radius.max() * 2.0**-20 + TINY))).astype(int)
    groups = [np.flatnonzero(size == s) for s in np.unique(size)[::-1]]
    trees = [cKDTree(centre[group]) for group in groups]
    best = np.full(len(points), np.inf)
    for tree, group in zip(trees, groups):
        nearest = tree.query(points)[1]
        best = np.minimum(best, _to_triangles(points, corners[group[nearest]]))
    for tree, group in zip(trees, groups):
        reach = radius[group].max()
        left, k = np.arange(len(points)), 1
        while len(left) and k < len(group):
            k = min(4 * k, len(group))
            unsettled = []
            for rows in np.array_split(left, -(-len(left) * k // PAIRS)):
                away, near = tree.query(points[rows], k)  # [rows, k]
                tried = corners[group[near]].reshape(-1, 3, 3)
                found = _to_triangles(np.repeat(points[rows], k, axis=0), tried)
                best[rows] = np.minimum(best[rows], found.reshape(-1, k).min(axis=1))
                unsettled.append(rows[away[:, -1] < best[rows] + reach])
            left = np.concatenate(unsettled)
    return best


def _to_triangles(points: NDArray[Any], corners: NDArray[Any]) -> NDArray[Any]:
    """Distance of each point ``[m, 3]`` to its triangle ``[m, 3, 3]``, which may be a line."""
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    square = (normal**2).sum(axis=1)
    above = square > 0
    best = np.full(len(points), np.inf)
    for i in range(3):
        edge = corners[:, (i + 1) % 3] - corners[:, i]
        to_point = points - corners[:, i]
        share = (to_point * edge).sum(axis=1) / np.maximum((edge**2).sum(axis=1), TINY)
        rest = to_point - np.clip(share, 0, 1)[:, None] * edge
        best = np.minimum(best, (rest**2).sum(axis=1))
        above &= (np.cross(edge, to_point) * normal).sum(axis=1) >= 0
    height = (to_point * normal).sum(axis=1)
    return np.sqrt(np.where(above, height**2 / np.maximum(square, TINY), best))


def read_surface(path: str) -> tuple[Tensor, Tensor]:
    """Vertices ``[v, 3]`` and triangles ``[3, f]`` of a file trimesh can read."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"SignedDistance: there is no file {path}")
    import trimesh

    try:
        mesh = trimesh.load_mesh(path)
        vertices, faces = np.asarray(mesh.vertices), np.asarray(mesh.faces)
    except Exception as error:  # trimesh's readers raise whatever their format made them
        raise ValueError(f"SignedDistance: {path} cannot be read as a mesh ({error})") from None
    if not len(faces):
        raise ValueError(f"SignedDistance: {path} has no triangles")
    return torch.from_numpy(vertices.astype(np.float64)), torch.from_numpy(faces.T.astype(np.int64))
