"""Centres and areas of polygons with any number of corners."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

BLOCK_CORNERS = 2**20  # corners worked on at once: some 100 MB, however large the mesh


def polygon_geometry(
    points: NDArray[Any], connectivity: NDArray[Any], offsets: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    r"""Centre and area vector of every polygon, in native order, in float64.

    .. math::
        c = \frac{1}{m} \sum_k v_k, \qquad
        A = \frac{1}{2} \sum_k (v_k - c) \times (v_{k+1} - c)

    The area vector stands on the polygon on the side from which its corners run counter-clockwise;
    its length is the area (of the projection, if the corners are not in one plane). A polygon
    without area has A = 0, one without corners c = 0.

    Args:
        points: Coordinates of all points.
        connectivity: Points of the corners of all polygons, one polygon after the other.
        offsets: Polygon f has the corners ``connectivity[offsets[f]:offsets[f + 1]]``.

    Shapes:
        ``points [n, 3]``, ``connectivity [k]``, ``offsets [f + 1]``; returns ``[f, 3]`` twice.

    Raises:
        ValueError: arrays of other shapes, or corners that are no points.

    Example:
        >>> square = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
        >>> polygon_geometry(square, np.arange(4), np.array([0, 4]))
        (array([[0.5, 0.5, 0. ]]), array([[0., 0., 1.]]))
    """
    _check(points, connectivity, offsets)
    centre, area = np.zeros((2, len(offsets) - 1, 3))
    for block in _blocks(points, connectivity, offsets):
        mean = block.mean()
        x, y, z = block.corners - np.repeat(mean, block.sizes, axis=1)  # [3, k]
        ahead = np.arange(1, len(x) + 1)
        ahead[block.starts + block.sizes - 1] = block.starts  # the last corner meets the first
        x1, y1, z1 = x[ahead], y[ahead], z[ahead]
        centre[block.cells] = mean.T
        for i, cross in enumerate((y * z1 - z * y1, z * x1 - x * z1, x * y1 - y * x1)):
            area[block.cells, i] = 0.5 * np.add.reduceat(cross, block.starts)
    return centre, area


def point_geometry(
    area: NDArray[np.float64], connectivity: NDArray[Any], offsets: NDArray[Any], num_points: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Unit normal and share of the area of every point of a surface.

    Each polygon gives an equal part of its area, and of its area vector, to each of its corners;
    the areas of the points sum to that of the surface. A point without polygons has neither.

    Args:
        area: Area vectors from :func:`polygon_geometry`.
        connectivity: As there.
        offsets: As there.
        num_points: Number of points.

    Shapes:
        ``area [f, 3]``; returns ``[n, 3]`` and ``[n]``.
    """
    sizes = np.diff(offsets)
    part = area / np.maximum(sizes, 1)[:, None]

    def gather(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.bincount(connectivity, np.repeat(values, sizes), num_points).astype(np.float64)

    normal = np.stack([gather(part[:, i]) for i in range(3)], axis=1)
    return unit(normal), gather(np.linalg.norm(part, axis=1))


def cell_centres(
    points: NDArray[Any], connectivity: NDArray[Any], offsets: NDArray[Any]
) -> NDArray[np.float64]:
    """Mean of the corners of every cell, ``[m, 3]`` float64; arguments of polygon_geometry."""
    _check(points, connectivity, offsets)
    centre = np.zeros((len(offsets) - 1, 3))
    for block in _blocks(points, connectivity, offsets):
        centre[block.cells] = block.mean().T
    return centre


def unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Vectors ``[n, 3]`` brought to length one; zero stays zero."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)


class _Block(NamedTuple):
    cells: NDArray[np.int64]  # which cells: those of the block that have corners
    corners: NDArray[np.float64]  # [3, k]
    starts: NDArray[np.int64]  # of each cell's corners within the block
    sizes: NDArray[np.int64]

    def mean(self) -> NDArray[np.float64]:
        return np.add.reduceat(self.corners, self.starts, axis=1) / self.sizes


def _blocks(points: NDArray[Any], conn: NDArray[Any], offsets: NDArray[Any]) -> Iterator[_Block]:
    last = len(offsets) - 1
    cuts = np.searchsorted(offsets, np.arange(0, len(conn), BLOCK_CORNERS))
    bounds = np.unique(np.append(cuts, [0, last]))
    for start, end in zip(bounds[:-1], bounds[1:]):
        where = np.asarray(offsets[start : end + 1], dtype=np.int64)
        sizes = np.diff(where)
        filled = sizes > 0  # reduceat would give an empty cell the corner of the next one
        if filled.any():
            corners = points[conn[where[0] : where[-1]]].T.astype(np.float64, order="C")
            starts = (where[:-1] - where[0])[filled]
            yield _Block(start + np.flatnonzero(filled), corners, starts, sizes[filled])


def _check(points: NDArray[Any], connectivity: NDArray[Any], offsets: NDArray[Any]) -> None:
    if points.ndim != 2 or points.shape[1] != 3:
        raise ValueError(f"points must be [n, 3], got {list(points.shape)}")
    if connectivity.ndim != 1 or offsets.ndim != 1 or len(offsets) == 0:
        raise ValueError(
            f"connectivity must be [k] and offsets [f + 1], got {list(connectivity.shape)} and "
            f"{list(offsets.shape)}"
        )
    if offsets[0] != 0 or offsets[-1] != len(connectivity) or np.any(offsets[1:] < offsets[:-1]):
        raise ValueError(
            f"offsets must rise from 0 to the {len(connectivity)} entries of connectivity, "
            f"got {offsets[0]} to {offsets[-1]}"
        )
    if len(connectivity) and (connectivity.min() < 0 or connectivity.max() >= len(points)):
        raise ValueError(
            f"connectivity must refer to points 0..{len(points) - 1}, "
            f"got {connectivity.min()}..{connectivity.max()}"
        )
