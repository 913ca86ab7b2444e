"""Columns of fields by name: ``"normal"``, ``"x[0]"``, ``"y[1:4]"``."""

from __future__ import annotations

import re
from typing import NamedTuple, Self

from torch import Tensor

from flare_geo.pyg import Data
from flare_geo.transforms.base import listing


class Columns(NamedTuple):
    """A field and which of its columns; None for start and stop means all of them."""

    field: str
    start: int | None = None
    stop: int | None = None

    @classmethod
    def parse(cls, name: str) -> Self:
        """Read ``"x"``, ``"x[2]"`` or ``"x[0:3]"``.

        Raises:
            ValueError: anything else.

        Example:
            >>> Columns.parse("y[1:4]")
            Columns(field='y', start=1, stop=4)
        """
        match = re.fullmatch(r"([A-Za-z_]\w*)(?:\[(\d+)(?::(\d+))?\])?", str(name))
        if match is None:
            raise ValueError(f"'{name}' names no columns; write 'x', 'x[2]' or 'x[0:3]'")
        field, first, last = match.groups()
        if first is None:
            return cls(field)
        start = int(first)
        stop = start + 1 if last is None else int(last)
        if stop <= start:
            raise ValueError(f"'{name}' names no columns: {start} is not below {stop}")
        return cls(field, start, stop)

    def __str__(self) -> str:
        if self.start is None or self.stop is None:
            return self.field
        inside = f"{self.start}" if self.stop == self.start + 1 else f"{self.start}:{self.stop}"
        return f"{self.field}[{inside}]"

    @property
    def part(self) -> slice:
        """The columns as a slice."""
        return slice(self.start, self.stop)

    def read(self, data: Data) -> Tensor:
        """The columns, ``[rows, c]``; a field ``[n]`` counts as one column.

        Raises:
            ValueError: no such field or column; says what there is.
        """
        value = data.get(self.field)
        if not isinstance(value, Tensor):
            raise ValueError(f"there is no field '{self.field}'; there are {listing(data)}")
        value = value.unsqueeze(-1) if value.dim() == 1 else value
        if value.dim() != 2:
            raise ValueError(f"field '{self.field}' has shape {list(value.shape)}, expected [n, c]")
        if self.stop is not None and self.stop > value.shape[1]:
            raise ValueError(f"'{self}': field '{self.field}' has {value.shape[1]} columns")
        return value[:, self.part]
