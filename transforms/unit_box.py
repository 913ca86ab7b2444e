"""Positions into the unit box, and back."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from flare_geo.pyg import Data, scatter
from flare_geo.transforms.base import Transform, clouds, positions


class UnitBox(Transform):
    r"""Maps ``pos`` into :math:`[0,1]^d` or another interval, cloud by cloud or for a whole set.

    .. math:: p' = \tfrac{a+b}{2} + \frac{b-a}{s} \left(p - \tfrac{low+high}{2}\right)

    with s the longest side of the box, or each side by itself. Without bounds every cloud is
    mapped by its own, which are kept in ``unit_box [1, 2 d]`` (low, high) for the way back, also
    after batching. With bounds all clouds are mapped alike, so that sizes and places remain
    comparable between cases, nothing is kept, and points outside the bounds land outside the
    interval. :meth:`fit` finds the bounds of a training split. A side of length zero goes to the
    middle. ``NormalizeScale`` of PyG maps each cloud by its own bounds and cannot be undone.

    Vectors, normals and areas stay as they are, in the coordinates of the original.

    Args:
        low: Lower corner of the box, one number an axis; None for each cloud's own.
        high: Upper corner.
        interval: Where to: (0, 1) or (-1, 1), say.
        keep_aspect: Scale all axes alike, the box in the middle, rather than each by itself.

    Shapes:
        ``pos [n, d]``, d = 2 or 3, in any unit; afterwards without unit.

    Raises:
        ValueError: bounds or an interval that are none, another dimension than the bounds have,
            or data which already hold the bounds of an earlier :class:`UnitBox`.

    Example:
        >>> data = UnitBox()(Data(pos=torch.tensor([[0.0, 0.0], [4.0, 2.0]])))
        >>> data.pos.tolist(), data.unit_box.tolist()
        ([[0.0, 0.25], [1.0, 0.75]], [[0.0, 0.0, 4.0, 2.0]])
        >>> UnitBox().inverse(data).pos.tolist()
        [[0.0, 0.0], [4.0, 2.0]]
    """

    def __init__(
        self,
        low: Sequence[float] | None = None,
        high: Sequence[float] | None = None,
        interval: Sequence[float] = (0.0, 1.0),
        keep_aspect: bool = True,
    ) -> None:
        self.low, self.high = _corner("low", low), _corner("high", high)
        if (self.low is None) != (self.high is None):
            raise ValueError("UnitBox: give both low and high, or neither")
        if self.low is not None and self.high is not None:
            sound = len(self.low) == len(self.high) and all(map(_at_most, self.low, self.high))
            if not sound:
                raise ValueError(f"UnitBox: low {self.low} is not below high {self.high}")
        bounds = _corner("interval", interval) or ()
        if len(bounds) != 2 or not bounds[0] < bounds[1]:
            raise ValueError(f"UnitBox: interval must be two rising numbers, got {interval}")
        self.interval = bounds
        self.keep_aspect = bool(keep_aspect)

    @classmethod
    def fit(
        cls,
        dataset: Iterable[Data],
        interval: Sequence[float] = (0.0, 1.0),
        keep_aspect: bool = True,
    ) -> Self:
        """The box of all positions of a data set, read case by case.

        Args:
            dataset: The training split, as it is before this transform.
            interval: As above.
            keep_aspect: As above.

        Raises:
            ValueError: no points, or clouds of several dimensions.
        """
        low: Tensor | None = None
        high: Tensor | None = None
        for data in dataset:
            pos = positions(cls(), data)
            if not len(pos):
                continue
            least, most = pos.amin(dim=0), pos.amax(dim=0)
            if low is None or high is None:
                low, high = least, most
                continue
            if len(least) != len(low):
                raise ValueError(f"UnitBox: clouds of dimension {len(low)} and {len(least)}")
            low, high = torch.minimum(low, least), torch.maximum(high, most)
        if low is None or high is None:
            raise ValueError("UnitBox: the data set has no points to fit the box to")
        return cls(low.tolist(), high.tolist(), interval, keep_aspect)

    def forward(self, data: Data) -> Data:
        """Map the positions."""
        pos = positions(self, data)
        batch, ptr = clouds(data)
        if self.low is None:
            if "unit_box" in data:
                raise ValueError("UnitBox: 'unit_box' is there, undo the earlier UnitBox first")
            low, high = (scatter(pos, batch, 0, len(ptr) - 1, reduce=r) for r in ("min", "max"))
            data.unit_box = torch.cat([low, high], dim=1)  # [B, 2 d]
        centre, scale = self._centre_and_scale(data, pos.shape[1])
        middle = sum(self.interval) / 2
        moved = middle + (pos.double() - _rows(centre, batch)) * _rows(scale, batch)
        data.pos = moved.to(pos.dtype)
        return data

    def _inverse(self, data: Data) -> Data:
        pos = positions(self, data)
        batch, _ = clouds(data)
        centre, scale = self._centre_and_scale(data, pos.shape[1])
        middle = sum(self.interval) / 2
        moved = (pos.double() - middle) / _rows(scale, batch) + _rows(centre, batch)
        data.pos = moved.to(pos.dtype)
        if self.low is None:
            del data["unit_box"]
        return data

    def _centre_and_scale(self, data: Data, d: int) -> tuple[Tensor, Tensor]:
        """``[B, d]`` each, or ``[1, d]`` for bounds common to all."""
        if self.low is not None and self.high is not None:
            if len(self.low) != d:
                raise ValueError(f"UnitBox: the bounds have {len(self.low)} axes, 'pos' has {d}")
            box = torch.tensor(
                [self.low + self.high], dtype=torch.float64, device=data["pos"].device
            )
        else:
            if "unit_box" not in data:
                raise ValueError("UnitBox: no field 'unit_box', the data were not mapped by it")
            box = data["unit_box"].double()
        low, high = box[:, :d], box[:, d:]
        length = self.interval[1] - self.interval[0]
        size = high - low
        if self.keep_aspect:
            size = size.amax(dim=1, keepdim=True).expand_as(low)
        return (low + high) / 2, length / torch.where(size > 0, size, length)


def _rows(per_cloud: Tensor, batch: Tensor) -> Tensor:
    return per_cloud if len(per_cloud) == 1 else per_cloud[batch]


def _corner(what: str, values: Any) -> tuple[float, ...] | None:
    if values is None:
        return None
    try:
        corner = tuple(float(v) for v in values)
    except (TypeError, ValueError):
        raise ValueError(f"UnitBox: {what} must be numbers, one an axis, got {values!r}") from None
    if not all(math.isfinite(v) for v in corner):
        raise ValueError(f"UnitBox: {what} must be finite, got {corner}")
    return corner


def _at_most(low: float, high: float) -> bool:
    return low <= high
