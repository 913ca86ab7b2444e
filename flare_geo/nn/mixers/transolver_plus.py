"""Physics attention with sharper slices: a temperature for each point, noise in training."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flare_geo.nn.mixers.transolver import PhysicsAttention
from flare_geo.ops import Layout


class PhysicsAttentionPlus(PhysicsAttention):
    r"""The mixer of `"Transolver++" <https://arxiv.org/abs/2502.02414>`_.

    :class:`PhysicsAttention` with one projection, F = X, and

    .. math::
        w_n = \mathrm{softmax}_G\big( (W_s X_n + b_s + \gamma_n) / \tau_n \big), \qquad
        \tau_n = \max(0.01,\ \mathrm{GELU}(W_2\, \mathrm{GELU}(W_1 X_n)) + \tau_h)

    where :math:`\gamma = -\log(-\log u)` is Gumbel noise. Cost and state as there.

    The temperature is that of the authors' code; the paper has :math:`\tau_0 + W X_n`. The noise is
    drawn in training only (that code also draws it in evaluation), from `generator` if one is set.

    Args:
        channels: width C, divisible by `heads`.
        heads: number H of heads, of width D = C / H.
        num_slices: number G of slices.
        noise: whether there is noise in training.

    Shapes:
        - **x:** `[N, channels]`; **ptr:** `[B+1]`; **returns** `[N, channels]`

    Example:
        >>> PhysicsAttentionPlus(64)(torch.randn(500, 64), ptr=torch.tensor([0, 200, 500])).shape
        torch.Size([500, 64])
    """

    generator: torch.Generator | None = None

    def __init__(
        self, channels: int, heads: int = 8, *, num_slices: int = 64, noise: bool = True
    ) -> None:
        super().__init__(channels, heads, num_slices=num_slices)
        del self.lin_fx
        self.noise = noise
        self.lin_temperature = nn.Sequential(
            nn.Linear(self.width, num_slices), nn.GELU(), nn.Linear(num_slices, 1), nn.GELU()
        )

    def values(self, x: Tensor, sorted_by: Tensor, layout: Layout) -> Tensor:
        """X itself."""
        return sorted_by

    def weights(self, sorted_by: Tensor) -> Tensor:
        """W `[N, H, G]`, the share of each point in each slice, from X."""
        temperature = (self.lin_temperature(sorted_by) + self.temperature).clamp(min=0.01)
        scores = self.lin_slice(sorted_by)
        if self.training and self.noise:
            u = torch.rand(scores.shape, generator=self.generator, device=scores.device)
            scores = scores - torch.log(-torch.log(u + 1e-8) + 1e-8).to(scores.dtype)
        return F.softmax(scores / temperature, dim=-1)
