"""Unit normals at the points of a surface or a cloud."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flare_geo.pyg import Data
from flare_geo.transforms.base import Transform, clouds, positions, triangles, whole_number
from flare_geo.transforms.sample_surface import twice_area_vectors

TINY = 1e-300


class Normals(Transform):
    """Adds the unit normal ``normal`` at each point: of its triangles, or of its neighbours.

    On a surface it is the sum of the area vectors of the triangles around the point, so that
    slivers count for little (``GenerateMeshNormals`` of PyG counts all triangles alike, and calls
    the field ``norm``). It points where the triangles are counter-clockwise. The surface may be
    open. A point without triangles gets zeros.

    Without triangles it is the direction in which the nearest points vary least. The signs are
    made consistent along a minimum spanning tree of the neighbourhoods, as proposed by `Hoppe et
    al. (1992) <https://doi.org/10.1145/133994.134011>`_, and the outermost point of each connected
    piece points outwards. A cloud of fewer points than dimensions gets zeros.

    Args:
        neighbors: None for the triangles in ``face``, else the number of nearest points.

    Shapes:
        ``pos [n, 3]`` and ``face [3, f]``, or ``pos [n, d]``; adds ``normal [n, d]``, no unit.

    Raises:
        ValueError: no triangles though ``neighbors`` is None.

    Example:
        >>> pos = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
        >>> Normals()(Data(pos=pos, face=torch.tensor([[0], [1], [2]]))).normal[0].tolist()
        [0.0, 0.0, 1.0]
    """

    def __init__(self, neighbors: int | None = None) -> None:
        self.neighbors = neighbors
        if neighbors is not None:
            whole_number(self, "neighbors", neighbors, 3)

    def forward(self, data: Data) -> Data:
        """Add the normals."""
        if self.neighbors is None:
            pos = positions(self, data, (3,))
            data["normal"] = surface_normals(pos.double(), triangles(self, data)).to(pos.dtype)
            return data
        pos = positions(self, data)
        _, ptr = clouds(data)
        points = pos.double().cpu().numpy()
        parts = [
            cloud_normals(points[start:end], self.neighbors)
            for start, end in zip(ptr[:-1].tolist(), ptr[1:].tolist())
        ]
        data["normal"] = torch.from_numpy(np.concatenate(parts)).to(pos)
        return data


def surface_normals(pos: Tensor, face: Tensor) -> Tensor:
    """Area-weighted unit normals ``[n, 3]`` of ``pos [n, 3]``, ``face [3, f]``; zeros if none."""
    around = torch.zeros_like(pos)
    across = twice_area_vectors(pos, face)
    for corner in face:
        around.index_add_(0, corner, across)
    normal: Tensor = around / around.norm(dim=1, keepdim=True).clamp_min(TINY)
    return normal


def cloud_normals(points: NDArray[Any], neighbors: int) -> NDArray[Any]:
    """Unit normals ``[n, d]`` of ``points [n, d]`` by the nearest points, consistently signed."""
    from scipy.spatial import cKDTree

    n, d = points.shape
    if n < d:
        return np.zeros_like(points)
    _, near = cKDTree(points).query(points, min(neighbors, n))  # [n, k]
    around = points[near] - points[near].mean(axis=1, keepdims=True)  # [n, k, d]
    _, directions = np.linalg.eigh(np.einsum("nki,nkj->nij", around, around))
    normal: NDArray[Any] = directions[:, :, 0]  # of the least eigenvalue
    normal *= _signs(points, normal, near)[:, None]
    return normal


def _signs(points: NDArray[Any], normal: NDArray[Any], near: NDArray[Any]) -> NDArray[Any]:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import breadth_first_order, connected_components
    from scipy.sparse.csgraph import minimum_spanning_tree as spanning_tree

    n, k = near.shape
    one, other = np.repeat(np.arange(n), k), near.ravel()
    # an exact zero would mean no link at all
    turn = 1 + 1e-9 - np.abs((normal[one] * normal[other]).sum(axis=1))
    keep = one != other
    # a link found from both sides must not be summed: keep the smaller end first, once
    low, high = np.minimum(one, other)[keep], np.maximum(one, other)[keep]
    _, first = np.unique(low * n + high, return_index=True)
    ends = low[first].astype(np.int32), high[first].astype(np.int32)  # csgraph takes no others
    links = coo_array((turn[keep][first], ends), shape=(n, n)).tocsr()
    tree = spanning_tree(links)
    pieces, piece = connected_components(tree, directed=False)
    outward = points - points.mean(axis=0)
    by_distance = np.argsort((outward**2).sum(axis=1), kind="stable")
    roots = np.empty(pieces, dtype=np.int64)
    roots[piece[by_distance]] = by_distance  # the last written is the outermost
    parent = np.arange(n)
    for root in roots:
        order, before = breadth_first_order(tree, root, directed=False)
        parent[order[1:]] = before[order[1:]]
    sign: NDArray[Any] = np.where((normal * normal[parent]).sum(axis=1) < 0, -1.0, 1.0)
    sign[roots] = 1.0
    while (parent != parent[parent]).any():  # each step doubles the way behind a point
        sign, parent = sign * sign[parent], parent[parent]
    at_root = np.where((normal[roots] * outward[roots]).sum(axis=1) < 0, -1.0, 1.0)
    sign *= at_root[piece]
    return sign
