"""Waves of the coordinates as input features."""

from __future__ import annotations

import torch

from flare_geo.pyg import Data
from flare_geo.transforms.base import Transform, positions, whole_number
from flare_geo.transforms.channels import Columns


class FourierFeatures(Transform):
    r"""Appends :math:`\sin(2^k \pi p), \cos(2^k \pi p)`, k = 0..K-1, of the coordinates to ``x``.

    See `"Fourier Features Let Networks Learn High Frequency Functions"
    <https://arxiv.org/abs/2006.10739>`_. :class:`flare_geo.nn.FourierFeatures` does the same
    inside a model, to its standardised inputs; this one is for models without it, or to have the
    waves of the coordinates alone. Map the positions into (-1, 1) first (:class:`UnitBox`): there
    the lowest wave has one period.

    Args:
        num_frequencies: Number K of octaves.
        of: The field or columns to take the waves of: ``"pos"``, ``"pos[0:2]"``.
        into: The field to append them to; made if it is not there.

    Shapes:
        ``of [n, c]``; ``into`` gains ``2 K c`` columns, sines first, the octaves of a coordinate
        side by side. No unit.

    Raises:
        ValueError: no octave, or no such columns.

    Example:
        >>> FourierFeatures(4)(Data(pos=torch.rand(50, 3), x=torch.rand(50, 1))).x.shape
        torch.Size([50, 25])
    """

    def __init__(self, num_frequencies: int, of: str = "pos", into: str = "x") -> None:
        self.num_frequencies = whole_number(self, "num_frequencies", num_frequencies, 1)
        self.of = str(Columns.parse(of))
        if not isinstance(into, str) or not into.isidentifier() or into == "pos":
            raise ValueError(f"FourierFeatures: into must name a field but pos, got {into!r}")
        self.into = into

    def forward(self, data: Data) -> Data:
        """Append the waves."""
        pos = positions(self, data)
        octaves = torch.pi * 2.0 ** torch.arange(
            self.num_frequencies, dtype=torch.float64, device=pos.device
        )
        value = Columns.parse(self.of).read(data).double()
        angles = (value.unsqueeze(-1) * octaves).flatten(1)  # [n, c K]
        parts = [Columns(self.into).read(data)] if self.into in data else []
        waves = torch.cat([angles.sin(), angles.cos()], dim=1).to(pos.dtype)
        data[self.into] = torch.cat([*parts, waves], dim=1)
        return data
