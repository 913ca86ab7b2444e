"""Channels of a surrogate: its inputs side by side, and its predictions as named fields."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from flare_geo.pyg import Data


class Field(NamedTuple):
    """One channel of an input or output: its place in `Data`, its name, its unit."""

    field: str
    name: str
    unit: str

    @property
    def label(self) -> str:
        """Name and unit, as in "pressure [Pa]"; the unit "1" is not shown."""
        return self.name if self.unit == "1" else f"{self.name} [{self.unit}]"


def assemble(inputs: Sequence[Field], batch: Data) -> Tensor:
    """`[N, in]`: the input fields of the batch side by side.

    Raises:
        ValueError: a field is missing, or has another number of channels than in training.
    """
    counts: dict[str, int] = {}
    for channel in inputs:
        counts[channel.field] = counts.get(channel.field, 0) + 1
    columns = []
    for field, count in counts.items():
        value = batch.get(field)
        got = "no such field" if value is None else f"{list(value.shape)}"
        if value is None or value.ndim != 2 or value.shape[1] != count:
            names = ", ".join(c.name for c in inputs if c.field == field)
            raise ValueError(
                f"the surrogate reads '{field}' with {count} channels ({names}), got {got}"
            )
        columns.append(value)
    return torch.cat(columns, dim=-1)


def check_finite(inputs: Sequence[Field], x: Tensor, first: int = 0) -> None:
    """Raise a ValueError that names the first input which is not finite.

    Args:
        inputs: the channels of x.
        x: `[n, in]`, the points from `first` on.
        first: the number of the first point.
    """
    if torch.isfinite(x).all():
        return
    row, column = torch.nonzero(~torch.isfinite(x))[0].tolist()
    channel = inputs[column]
    raise ValueError(
        f"input '{channel.field}' ({channel.name}) is not finite at point {first + row}; "
        "remove or repair such points first"
    )


def outside(
    inputs: Sequence[Field], trained: Mapping[str, Any] | None, least: Tensor, most: Tensor
) -> list[str]:
    """Inputs that leave the range of the training data by more than a tenth of it, in words.

    Args:
        inputs: the channels.
        trained: `low` and `high` of every channel in training; None if they are not known.
        least: `[in]` smallest inputs.
        most: `[in]` largest inputs.
    """
    found: list[str] = []
    for i, channel in enumerate(inputs if trained else ()):
        assert trained is not None
        low, high = trained["low"][i], trained["high"][i]
        from_, to = float(least[i]), float(most[i])
        span = max(high - low, 1e-6 * max(abs(low), abs(high)), 1e-30)
        over = max(low - from_, to - high) / span
        if over > 0.1:
            found.append(
                f"input {channel.label} reaches from {from_:.5g} to {to:.5g}, in training it "
                f"went from {low:.5g} to {high:.5g}: outside by {over:.3g} times that range"
            )
    return found


def columns_of(outputs: Sequence[Field], taken: Collection[str] = ()) -> dict[str, slice]:
    """The columns of a prediction `[N, out]` by the name of their field, as "pressure [Pa]".

    Channels that follow each other and are called "u_x", "u_y", "u_z" become the vector "u".

    Args:
        outputs: the channels.
        taken: names of arrays that are there already: such a field gets the word "predicted".
    """
    columns: dict[str, slice] = {}
    start = 0
    while start < len(outputs):
        stem, width = _vector(outputs[start:])
        label = Field("", stem, outputs[start].unit).label
        columns[f"{label} predicted" if label in taken else label] = slice(start, start + width)
        start += width
    return columns


def _vector(channels: Sequence[Field]) -> tuple[str, int]:
    """The name of the field that the first one, two or three channels make up, and how many."""
    for ends in ("xyz", "xy"):
        names = [channel.name for channel in channels[: len(ends)]]
        stem, joint = names[0][:-2], names[0][-2:-1]
        if stem and joint in ("_", " ") and names == [f"{stem}{joint}{end}" for end in ends]:
            return stem, len(ends)
    return channels[0].name, 1
