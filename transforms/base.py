"""What the transforms have in common: arguments that can be written down, and a way back."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from flare_geo.arguments import remembers_arguments
from flare_geo.pyg import BaseTransform, Data

NOT_PER_POINT = ("face", "cells", "edge_index", "edge_attr", "ptr", "unit_box", "rotation")


@remembers_arguments
class Transform(BaseTransform):
    """A transform whose constructor arguments are JSON values.

    So it can be shown, pickled, and written into a checkpoint by
    :func:`~flare_geo.transforms.to_config`. Like every transform of PyG it leaves the data it is
    given as they are and returns a shallow copy. What it adds to a batch, PyG's
    ``Batch.to_data_list`` does not take apart: transform before batching where that is wanted.
    """

    config: dict[str, Any]
    """The arguments that the constructor was given."""

    def __init__(self) -> None: ...

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of the constructor, as it keeps them: checked, or fitted since."""
        return {name: getattr(self, name, given) for name, given in self.config.items()}

    def inverse(self, data: Data) -> Data:
        """Undo :meth:`forward`, on the same data or on a prediction made from them.

        A transform that only adds fields has nothing to undo: the data come back as they are.
        """
        return self._inverse(copy.copy(data))

    def _inverse(self, data: Data) -> Data:
        return data

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.arguments.items())
        return f"{type(self).__name__}({arguments})"


def positions(transform: Transform, data: Data, dimensions: tuple[int, ...] = (2, 3)) -> Tensor:
    """The field ``pos`` of the data, checked: floats ``[n, d]``, d one of `dimensions`, finite."""
    pos = data.get("pos")
    if not isinstance(pos, Tensor):
        raise ValueError(f"{name_of(transform)} needs the field 'pos'; there are {listing(data)}")
    if pos.dim() != 2 or pos.shape[1] not in dimensions or not pos.is_floating_point():
        wanted = " or ".join(str(d) for d in dimensions)
        raise ValueError(
            f"{name_of(transform)} expects 'pos' to be floats [n, {wanted}], "
            f"got {str(pos.dtype).removeprefix('torch.')} {list(pos.shape)}"
        )
    if not pos.isfinite().all():
        row = int((~pos.isfinite()).any(dim=1).nonzero()[0])
        raise ValueError(f"{name_of(transform)}: 'pos' is not finite, first at point {row}")
    return pos


def triangles(transform: Transform, data: Data) -> Tensor:
    """The field ``face`` of the data, checked: int64 ``[3, f]`` with points that exist."""
    face = data.get("face")
    if not isinstance(face, Tensor):
        raise ValueError(
            f"{name_of(transform)} needs triangles in the field 'face'; there are {listing(data)}"
        )
    if face.dim() != 2 or face.shape[0] != 3 or face.dtype != torch.int64:
        raise ValueError(
            f"{name_of(transform)} expects 'face' to be int64 [3, f], "
            f"got {str(face.dtype).removeprefix('torch.')} {list(face.shape)}"
        )
    n = data["pos"].shape[0]
    if face.numel() and not 0 <= int(face.min()) <= int(face.max()) < n:
        raise ValueError(f"{name_of(transform)}: 'face' names points outside 0 ... {n - 1}")
    return face


def clouds(data: Data) -> tuple[Tensor, Tensor]:
    """The cloud of every point, ``batch [n]``, and where the clouds start, ``ptr [B + 1]``."""
    pos = data["pos"]
    batch, ptr = data.get("batch"), data.get("ptr")
    if batch is None and ptr is None:
        ends = torch.tensor([0, pos.shape[0]], device=pos.device)
        return torch.zeros(pos.shape[0], dtype=torch.int64, device=pos.device), ends
    if ptr is None:
        sizes = torch.bincount(batch)
        ptr = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
    if batch is None:
        count = torch.arange(len(ptr) - 1, device=ptr.device)
        batch = count.repeat_interleave(ptr.diff())
    return batch, ptr


def one_cloud(transform: Transform, data: Data) -> None:
    """Raise if the data are batched."""
    if data.get("batch") is not None or data.get("ptr") is not None:
        raise ValueError(
            f"{name_of(transform)} changes the number of points: apply it before batching"
        )


def point_fields(data: Data) -> list[str]:
    """The tensors with one row per point, ``pos`` among them."""
    n = data["pos"].shape[0]
    return [
        key
        for key, value in data.to_dict().items()
        if isinstance(value, Tensor)
        and value.dim() > 0
        and value.shape[0] == n
        and key not in NOT_PER_POINT
    ]


def drop_connectivity(data: Data) -> None:
    """Remove what names points by number, which no longer holds once points are chosen."""
    for key in ("face", "cells", "edge_index", "edge_attr"):
        if key in data:
            del data[key]


def listing(data: Data) -> str:
    """The tensors of the data with their shapes, for messages."""
    shapes = [f"{k} {list(v.shape)}" for k, v in data.to_dict().items() if isinstance(v, Tensor)]
    return ", ".join(sorted(shapes)) or "no tensors"


def name_of(transform: Transform) -> str:
    """The name of a transform, for messages."""
    return type(transform).__name__


def whole_number(transform: Transform, name: str, value: Any, least: int) -> int:
    """`value`, checked to be an int of at least `least`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(
            f"{name_of(transform)}: {name} must be a whole number from {least} on, got {value!r}"
        )
    return value
