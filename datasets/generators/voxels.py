"""Solids as voxels: from a closed surface, and to hexahedra."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[np.float64]
Solid = NDArray[np.bool_]
Indices = NDArray[np.int64]
CORNERS = np.array(  # of a hexahedron: the bottom loop, then the top loop
    [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1], [1, 0, 1], [1, 1, 1], [0, 1, 1]]
)
MESH_SUFFIXES = (".stl", ".obj", ".ply", ".off")
Voxel = tuple[float, float, float]


def load_surface(path: Path) -> Any:
    """The trimesh surface in a file.

    Raises:
        ValueError: it cannot be read, or is not closed: then it has no inside.
    """
    import trimesh

    try:
        mesh = trimesh.load_mesh(path)
        faces = len(mesh.faces)
    except Exception as error:  # each of trimesh's readers fails in its own way
        raise ValueError(f"{path.name} cannot be read as a surface ({error})") from None
    if not faces or not mesh.is_watertight:
        raise ValueError(f"{path.name} is not a closed surface (its {faces} triangles leave gaps)")
    return mesh


def voxelise(path: Path, extent: float, voxel: Voxel) -> Solid:
    """The part in a CAD mesh, its orientation kept, scaled so that its longest side is ``extent``.

    A voxel is solid where its centre is inside. The grid has its middle on that of the part in x
    and y, starts at its lowest point, and is as large as the part to the nearest voxel.

    Shapes:
        bool ``[nx, ny, nz]``, only the largest piece, cut to its bounding box.

    Raises:
        ValueError: the file is not a closed surface, or the part is flatter than two voxels.
    """
    mesh = load_surface(path)
    low, high = mesh.bounds
    scale = extent / (high - low).max()
    origin = [(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, low[2]]
    triangles = (np.asarray(mesh.triangles) - origin) * scale
    counts = np.maximum(1, np.rint((high - low) * scale / voxel).astype(int))
    x, y, z = ((np.arange(n) + 0.5) * h for n, h in zip(counts, voxel, strict=True))
    solid = inside(triangles, x - x.mean(), y - y.mean(), z)
    solid = largest_piece(solid)
    if solid.shape[2] < 2:  # one layer alone would shrink without stress
        layers = f"{solid.shape[2]} layer(s) of {voxel[2]:g} mm voxels"
        raise ValueError(f"{path.name} fills {layers} when {extent:g} mm long, at least 2 needed")
    return solid


def inside(triangles: Array, x: Array, y: Array, z: Array) -> Solid:
    """Which points of a grid a closed surface encloses: an odd number of walls lies below them.

    Shapes:
        ``triangles [t, 3, 3]``; ``x [nx]``, ``y [ny]``, ``z [nz]`` rising; bool ``[nx, ny, nz]``.
    """
    ends = np.stack([triangles, np.roll(triangles, -1, axis=1)])  # [2, t, edge, 3]
    swap = ends[0, :, :, 1] > ends[1, :, :, 1]  # a shared edge is cut alike from both sides
    low, high = np.where(swap[..., None], ends[::-1], ends)
    shape = (x.size, y.size, z.size + 1)
    walls = np.zeros(np.prod(shape), dtype=np.int64)
    for j, level in enumerate(y):
        cut = (low[:, :, 1] <= level) & (level < high[:, :, 1])  # no or two edges of a triangle
        share = (level - low[cut][:, 1]) / (high[cut] - low[cut])[:, 1]
        point = low[cut] + share[:, None] * (high[cut] - low[cut])
        segment = point[:, ::2].reshape(-1, 2, 2)  # [s, end, (x, z)], one per triangle cut
        order = segment[:, :, :1].argsort(axis=1)
        start, stop = np.take_along_axis(segment, order, axis=1).swapaxes(0, 1)
        of, i = np.nonzero((start[:, :1] <= x) & (x < stop[:, :1]))
        slope = (stop[of, 1] - start[of, 1]) / (stop[of, 0] - start[of, 0])
        k = np.searchsorted(z, start[of, 1] + (x[i] - start[of, 0]) * slope)
        walls += np.bincount(
            np.ravel_multi_index((i, np.full_like(i, j), k), shape), None, walls.size
        )
    return walls.reshape(shape).cumsum(axis=2)[:, :, :-1] % 2 == 1


def largest_piece(solid: Solid) -> Solid:
    """The largest piece connected through faces, cut to its bounding box. [nx, ny, nz] -> [...]"""
    if not solid.any():
        return solid[:0, :0, :0]
    if not solid.any():
        return solid[:0, :0, :0]
    label, _ = ndimage.label(solid)
    sizes = np.bincount(label.ravel())
    sizes[0] = 0
    largest = label == sizes.argmax()
    return largest[ndimage.find_objects(largest.astype(np.int8))[0]]


class Hexahedra(NamedTuple):
    """Nodes and cells from the bottom to the top: nodes of a layer of cells precede later ones.

    Shapes:
        ``pos [N, 3]``, ``elems [M, 8]``, ``layer [M]`` counted from the lowest.
    """

    pos: Array
    elems: Indices
    layer: Indices


def hexahedra(solid: Solid, voxel: Voxel, heights: Array | None = None) -> Hexahedra:
    """One hexahedron per solid voxel, centred in x and y, from z = 0 up.

    ``heights [nz]`` replaces the third side of the voxels where layers differ. Each node is sorted
    by the first layer that uses it, so that what is built up to a layer is a block of a matrix.
    """
    heights = np.full(solid.shape[2], voxel[2]) if heights is None else heights
    layer, j, i = np.nonzero(solid.transpose(2, 1, 0))
    corner = np.stack([i, j, layer], axis=1)[:, None] + CORNERS  # [M, 8, 3]
    shape = tuple(n + 1 for n in solid.shape[::-1])
    key = np.ravel_multi_index(tuple(np.moveaxis(corner[:, :, ::-1], 2, 0)), shape)
    nodes, first, inverse = np.unique(key, return_index=True, return_inverse=True)
    order = np.lexsort((nodes, layer[first // 8]))
    rank = np.empty_like(order)
    rank[order] = np.arange(order.size)
    z, y, x = np.unravel_index(nodes[order], shape)
    flat = np.stack([x, y], axis=1) - np.array(solid.shape[:2]) / 2
    level = np.concatenate([[0], np.cumsum(heights)])[z]
    pos = np.concatenate([flat * voxel[:2], level[:, None]], axis=1)
    return Hexahedra(pos, rank[inverse].reshape(-1, 8), layer)
