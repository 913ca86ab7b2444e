"""The normalised linear attention of GNOT."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from flare_geo.nn.mixer import SumMixer, head_width, layout_of
from flare_geo.ops import Layout, State, apply_state, merge_sums, segment_sum, sum_outer


class GNOTAttention(SumMixer):
    r"""Linear attention of `"GNOT: A General Neural Operator Transformer for Operator Learning"
    <https://arxiv.org/abs/2302.14376>`_.

    .. math::
        q = \mathrm{softmax}_D(W_q x), \quad k = \mathrm{softmax}_D(W_k x), \quad v = W_v x, \qquad
        y_n = W_{out} \Big[ \frac{q_n \sum_m k_m v_m^\top}{q_n \cdot \sum_m k_m} + q_n \Big]_h

    The softmaxes are over the D channels of a head, so the points of a cloud interact through two
    sums: O(N C D) time, a state of H D (D + 1) numbers per cloud. All terms of the denominator are
    positive: it needs no epsilon. The query itself is added, as in the authors' code.

    :meth:`encode` and :meth:`decode` may be given different points: that is the cross attention of
    :class:`flare_geo.nn.GNOT`.

    Args:
        channels: width C, divisible by `heads`.
        heads: number H of heads, of width D = C / H.

    Shapes:
        - **x:** `[N, channels]`; **ptr:** `[B+1]`; **returns** `[N, channels]`

    Example:
        >>> GNOTAttention(64)(torch.randn(500, 64), ptr=torch.tensor([0, 200, 500])).shape
        torch.Size([500, 64])
    """

    merges = (merge_sums,)

    def __init__(self, channels: int, heads: int = 8) -> None:
        super().__init__()
        self.in_channels, self.heads = channels, heads
        self.width = head_width(channels, heads)
        self.lin_q = nn.Linear(channels, channels)
        self.lin_k = nn.Linear(channels, channels)
        self.lin_v = nn.Linear(channels, channels)
        self.lin_out = nn.Linear(channels, channels)

    def encode(
        self, x: Tensor, ptr: Tensor | Layout | None = None, states: Sequence[State] = ()
    ) -> State:
        """The sums of k v^T `[B, H, D, D]` and of k `[B, H, D]`."""
        layout = layout_of(x, self.in_channels, ptr)
        k = self._heads(self.lin_k(x)).softmax(dim=-1)
        v = self._heads(self.lin_v(x))
        return sum_outer(k, v, layout), segment_sum(k, layout)

    def decode(
        self, x: Tensor, states: Sequence[State], ptr: Tensor | Layout | None = None
    ) -> Tensor:
        """The answer at x, pointwise."""
        layout = layout_of(x, self.in_channels, ptr)
        q = self._heads(self.lin_q(x)).softmax(dim=-1)
        above, below = states[0]
        weight = apply_state(q, below.unsqueeze(-1), layout)
        weight = weight.clamp(min=torch.finfo(weight.dtype).tiny)  # a cloud that has no points
        y = (apply_state(q, above, layout) / weight).to(q.dtype) + q
        out: Tensor = self.lin_out(y.flatten(1))
        return out

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], self.heads, self.width)
