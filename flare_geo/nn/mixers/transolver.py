"""Physics attention: points are sorted softly into slices, and the slices attend to each other."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flare_geo.nn.mixer import SumMixer, head_width, layout_of
from flare_geo.ops import Layout, State, apply_state, merge_sums, sum_outer


class PhysicsAttention(SumMixer):
    r"""The mixer of `"Transolver" <https://arxiv.org/abs/2402.02366>`_ for irregular meshes.

    .. math::
        w_n = \mathrm{softmax}_G\big( (W_s X_n + b_s) / \tau_h \big), \quad
        S_g = \frac{\sum_n w_{ng} F_n}{\sum_n w_{ng} + 10^{-5}}, \quad
        O = \mathrm{softmax}(D^{-1/2}\, S W_q (S W_k)^\top)\, S W_v, \quad
        y_n = W \Big[ \sum_g w_{ng} O_g \Big]_h

    with X and F two projections of x into heads; the other weights are shared by the heads. Points
    interact through the sums of S: O(N C G) time, memory O(N H G) for w, a state of H G (D + 1)
    numbers per cloud.

    The epsilon is not in the paper but in its code. The temperature is not clamped, as in that
    code: it can become negative.

    Args:
        channels: width C, divisible by `heads`.
        heads: number H of heads, of width D = C / H.
        num_slices: number G of slices.

    Shapes:
        - **x:** `[N, channels]`; **ptr:** `[B+1]`; **returns** `[N, channels]`

    Example:
        >>> PhysicsAttention(64)(torch.randn(500, 64), ptr=torch.tensor([0, 200, 500])).shape
        torch.Size([500, 64])
    """

    merges = (merge_sums,)

    def __init__(self, channels: int, heads: int = 8, *, num_slices: int = 64) -> None:
        super().__init__()
        width = head_width(channels, heads)
        self.in_channels, self.heads, self.width = channels, heads, width
        self.temperature = nn.Parameter(torch.full((heads, 1), 0.5))
        self.lin_x = nn.Linear(channels, channels)
        self.lin_fx = nn.Linear(channels, channels)
        self.lin_slice = nn.Linear(width, num_slices)
        self.lin_q = nn.Linear(width, width, bias=False)
        self.lin_k = nn.Linear(width, width, bias=False)
        self.lin_v = nn.Linear(width, width, bias=False)
        self.lin_out = nn.Linear(channels, channels)

    def forward(
        self, x: Tensor, ptr: Tensor | Layout | None = None, pos: Tensor | None = None
    ) -> Tensor:
        """Mix the points of each cloud: `[N, channels]` to `[N, channels]`."""
        layout = layout_of(x, self.in_channels, ptr)
        sorted_by = self.project(x, layout)
        weights = self.weights(sorted_by)
        values = self.values(x, sorted_by, layout)
        return self._spread(weights, self.joined(self._gather(weights, values, layout)), layout)

    def encode(
        self, x: Tensor, ptr: Tensor | Layout | None = None, states: Sequence[State] = ()
    ) -> State:
        """The sums of w [F 1]^T `[B, H, G, D + 1]`."""
        layout = layout_of(x, self.in_channels, ptr)
        sorted_by = self.project(x, layout)
        values = self.values(x, sorted_by, layout)
        return self._gather(self.weights(sorted_by), values, layout)

    def decode(
        self, x: Tensor, states: Sequence[State], ptr: Tensor | Layout | None = None
    ) -> Tensor:
        """The slices after they interacted, spread over the points: pointwise."""
        layout = layout_of(x, self.in_channels, ptr)
        return self._spread(self.weights(self.project(x, layout)), states[0], layout)

    def project(self, x: Tensor, layout: Layout) -> Tensor:
        """X `[N, H, D]`, by which the points are sorted into slices."""
        return self._heads(self.lin_x(x))

    def values(self, x: Tensor, sorted_by: Tensor, layout: Layout) -> Tensor:
        """F `[N, H, D]`, which the slices gather."""
        return self._heads(self.lin_fx(x))

    def weights(self, sorted_by: Tensor) -> Tensor:
        """W `[N, H, G]`, the share of each point in each slice, from X."""
        scores: Tensor = self.lin_slice(sorted_by) / self.temperature
        return scores.softmax(dim=-1)

    def mix(self, slices: Tensor) -> Tensor:
        """Let the slices `[B, H, G, D]` of each cloud interact."""
        q, k, v = self.lin_q(slices), self.lin_k(slices), self.lin_v(slices)
        return F.scaled_dot_product_attention(q, k, v)

    def _gather(self, weights: Tensor, values: Tensor, layout: Layout) -> State:
        return (sum_outer(weights, F.pad(values, (0, 1), value=1.0), layout),)

    def _spread(self, weights: Tensor, state: State, layout: Layout) -> Tensor:
        total, weight = state[0][..., :-1], state[0][..., -1:]
        slices = self.mix((total / (weight + 1e-5)).to(weights.dtype))
        y = apply_state(weights, slices, layout).to(weights.dtype)
        out: Tensor = self.lin_out(y.flatten(1))
        return out

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], self.heads, self.width)
