"""Input features put together by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, Self

import torch
from torch import Tensor

from flare_geo.pyg import Data
from flare_geo.transforms.base import Transform, clouds, listing, positions
from flare_geo.transforms.channels import Columns


class Named(Protocol):
    """Anything with a name, such as a ``Channel`` of a data set."""

    @property
    def name(self) -> str:
        """What it is called."""


class AssembleFeatures(Transform):
    """Builds a field, usually ``x``, from columns of others, side by side in the order given.

    A field with one row per case (``[1, g]``, or ``[B, g]`` once batched) is repeated at each
    point of the case.

    Args:
        names: ``"normal"`` for a whole field, ``"x[0]"`` or ``"x[0:3]"`` for columns of it.
        into: The field to write; it may be among those read.

    Shapes:
        ``[n, c]`` or ``[1, c]`` each; afterwards ``into [n, sum of c]`` in the type of ``pos``.

    Raises:
        ValueError: a field or column that is missing (says what there is), or has neither a row
            per point nor one per case.

    Example:
        >>> data = Data(pos=torch.rand(50, 3), normal=torch.rand(50, 3), speed=torch.rand(1, 1))
        >>> AssembleFeatures(["normal", "pos[2]", "speed"])(data).x.shape
        torch.Size([50, 5])
    """

    def __init__(self, names: Sequence[str], into: str = "x") -> None:
        if isinstance(names, str) or not names:
            raise ValueError(f"AssembleFeatures: names must be a list of names, got {names!r}")
        if not isinstance(into, str) or not into.isidentifier() or into == "pos":
            raise ValueError(f"AssembleFeatures: into must name a field but pos, got {into!r}")
        self.names = tuple(str(Columns.parse(name)) for name in names)
        self.into = into

    @classmethod
    def named(
        cls,
        channels: Mapping[str, Sequence[Named]],
        names: Sequence[str],
        into: str = "x",
    ) -> Self:
        """The same by the names of channels, as a data set declares them in ``channels``.

        Args:
            channels: The channels of each field.
            names: Names of channels; the name of a field stands for all of its channels.
            into: The field to write.

        Raises:
            ValueError: a name that is not there (says which are), or there more than once.
        """
        places: dict[str, list[str]] = {field: [field] for field in channels}
        for field, declared in channels.items():
            for i, channel in enumerate(declared):
                if channel.name not in channels:  # a field's own name stands for the field
                    places.setdefault(channel.name, []).append(f"{field}[{i}]")
        for name in names:
            if name not in places:
                raise ValueError(f"there is no channel '{name}'; there are {', '.join(places)}")
            if len(places[name]) > 1:
                where = ", ".join(places[name])
                raise ValueError(f"several channels are called '{name}': {where}; write which")
        return cls([places[name][0] for name in names], into)

    def forward(self, data: Data) -> Data:
        """Put the columns side by side."""
        pos = positions(self, data)
        batch, ptr = clouds(data)
        wanted = [Columns.parse(name) for name in self.names]
        missing = sorted({columns.field for columns in wanted if columns.field not in data})
        if missing:
            raise ValueError(
                f"AssembleFeatures: no {', '.join(missing)}; there are {listing(data)}"
            )
        parts = [_per_point(columns, data, batch, len(ptr) - 1) for columns in wanted]
        data[self.into] = torch.cat([part.to(pos.dtype) for part in parts], dim=1)
        return data


def _per_point(columns: Columns, data: Data, batch: Tensor, count: int) -> Tensor:
    value = columns.read(data)
    if len(value) == len(batch):
        return value
    if len(value) == count:
        return value[batch]
    raise ValueError(
        f"AssembleFeatures: field '{columns.field}' has {len(value)} rows, "
        f"expected {len(batch)} (per point) or {count} (per case)"
    )
