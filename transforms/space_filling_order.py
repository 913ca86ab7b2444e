"""Points in the order of a space-filling curve."""

from __future__ import annotations

import torch
from torch import Tensor

from flare_geo.pyg import Data, scatter
from flare_geo.transforms.base import Transform, clouds, point_fields, positions

CURVES = ("hilbert", "morton")
BITS = 62  # of the place on the curve, which is an int64


class SpaceFillingOrder(Transform):
    """Sorts the points along a Hilbert or Morton curve through their bounding cube.

    Points near each other in the order are then near each other in space, and mostly the other way
    round: cheap locality for chunks, windows and caches. The Hilbert curve never jumps; Morton's
    is the bits of the coordinates interleaved, which is a little faster.

    Every field with one row per point is sorted, ``face``, ``cells`` and ``edge_index`` name the
    points by their new numbers, and ``curve_order [n, 1]`` says which point of its cloud each was
    before, for the way back. Clouds of a batch are sorted each by itself.

    Args:
        curve: ``"hilbert"`` or ``"morton"``.

    Shapes:
        ``pos [n, d]``, d = 2 or 3; all shapes stay; adds ``curve_order [n, 1]`` int64.

    Raises:
        ValueError: another curve; data that are sorted already; a batch with ``cells``, which PyG
            does not renumber when it batches: sort before.

    Example:
        >>> data = SpaceFillingOrder()(Data(pos=torch.tensor([[0.0, 0], [1, 1], [0, 1], [1, 0]])))
        >>> data.pos.tolist(), data.curve_order.flatten().tolist()
        ([[0.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 0.0]], [0, 2, 1, 3])
    """

    def __init__(self, curve: str = "hilbert") -> None:
        if curve not in CURVES:
            raise ValueError(f"SpaceFillingOrder: curve must be hilbert or morton, got {curve!r}")
        self.curve = curve

    def forward(self, data: Data) -> Data:
        """Sort the points."""
        pos = positions(self, data)
        if "curve_order" in data:
            raise ValueError("SpaceFillingOrder: 'curve_order' is there, the points are sorted")
        batch, ptr = clouds(data)
        bits = BITS // pos.shape[1]
        cells = _cells(pos, batch, len(ptr) - 1, bits)
        index = hilbert_index(cells, bits) if self.curve == "hilbert" else morton_index(cells, bits)
        order = index.argsort(stable=True)
        order = order[batch[order].argsort(stable=True)]  # new row -> old row
        self._reorder(data, order)
        data["curve_order"] = (order - ptr[batch]).unsqueeze(1)
        return data

    def _inverse(self, data: Data) -> Data:
        positions(self, data)
        if "curve_order" not in data:
            raise ValueError("SpaceFillingOrder: no field 'curve_order', nothing was sorted by it")
        batch, ptr = clouds(data)
        order = data["curve_order"].squeeze(1) + ptr[batch]
        if not torch.equal(order.sort().values, torch.arange(len(order), device=order.device)):
            raise ValueError("SpaceFillingOrder: points are missing, the order cannot be undone")
        del data["curve_order"]
        self._reorder(data, _inverse_of(order))
        return data

    def _reorder(self, data: Data, order: Tensor) -> None:
        if "cells" in data and data.get("batch") is not None:
            raise ValueError("SpaceFillingOrder: a batch with 'cells'; sort before batching")
        place = _inverse_of(order)
        for key in point_fields(data):
            data[key] = data[key][order]
        for key in ("face", "cells", "edge_index"):
            if key in data:
                data[key] = place[data[key]]


def hilbert_index(cells: Tensor, bits: int) -> Tensor:
    """Place of each cell of a grid on the Hilbert curve through it.

    After `Skilling (2004) <https://doi.org/10.1063/1.1751381>`_: from the coarsest bit to the
    finest, the lower bits of a cell are turned into the frame of the sub-cube it lies in (flipped
    where the axis' bit is set, else swapped with those of the first axis); a Gray code then gives
    the place.

    Args:
        cells: Coordinates of the cells, in ``[0, 2^bits)``.
        bits: Levels of the curve; at most 62 / d.

    Shapes:
        ``cells [n, d]`` int64; returns ``[n]`` int64, in ``[0, 2^(d bits))``.
    """
    axes = list(cells.unbind(dim=1))
    d = len(axes)
    for level in range(bits - 1, 0, -1):
        lower = (1 << level) - 1
        for i in range(d):
            inside = (axes[i] >> level) & 1 == 1
            swap = torch.where(inside, 0, (axes[0] ^ axes[i]) & lower)
            axes[0] = torch.where(inside, axes[0] ^ lower, axes[0] ^ swap)
            if i > 0:
                axes[i] = axes[i] ^ swap
    for i in range(1, d):
        axes[i] = axes[i] ^ axes[i - 1]
    flip = torch.zeros_like(axes[0])
    for level in range(bits - 1, 0, -1):
        flip = torch.where((axes[-1] >> level) & 1 == 1, flip ^ ((1 << level) - 1), flip)
    return morton_index(torch.stack([a ^ flip for a in axes], dim=1), bits)


def morton_index(cells: Tensor, bits: int) -> Tensor:
    """The bits of the coordinates interleaved, those of the first axis leading.

    Shapes:
        ``cells [n, d]`` int64 in ``[0, 2^bits)``; returns ``[n]`` int64.
    """
    d = cells.shape[1]
    index = torch.zeros_like(cells[:, 0])
    for level in range(bits):
        for i in range(d):
            index |= ((cells[:, i] >> level) & 1) << (level * d + d - 1 - i)
    return index


def _cells(pos: Tensor, batch: Tensor, count: int, bits: int) -> Tensor:
    """Cells of a grid of ``2^bits`` an axis over the cube around each cloud."""
    low, high = (scatter(pos, batch, 0, count, reduce=r).double() for r in ("min", "max"))
    size = (high - low).amax(dim=1, keepdim=True)
    share: Tensor = (pos.double() - low[batch]) / torch.where(size > 0, size, 1.0)[batch]
    last: int = 2**bits - 1
    return (share * (last + 1)).long().clamp(0, last)


def _inverse_of(order: Tensor) -> Tensor:
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device)
    return place
