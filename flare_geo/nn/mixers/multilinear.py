"""Multilinear attention: the states of several linear attentions, multiplied."""

from collections.abc import Sequence

import torch
from torch import Tensor

from flare_geo.nn.mixer import layout_of
from flare_geo.nn.mixers.projected import ProjectedMixer
from flare_geo.ops import Layout, State, apply_state, sum_outer


class MultilinearAttention(ProjectedMixer):
    r"""Attention of higher order at the cost of linear attention.

    .. math::
        y_n = W\, \mathrm{LN}\big[\, q_n^\top (S_1 \odot \dots \odot S_L)\, \big], \qquad
        S_l = \frac{1}{N} \sum_m k_{lm}\, v_{lm}^\top

    where :math:`\odot` is element by element, and q and all k, v are :math:`x + W x`, in heads.
    There is no paper: it stands in "Higher-Order Attention in Linear Time", an article of FLARE's
    authors. O(L N C D) time, a state of L H D D numbers per cloud.

    Args:
        channels: width C, divisible by `heads`.
        heads: number H of heads, of width D = C / H.
        num_states: number L of states; 1 is linear attention without a feature map.

    Shapes:
        - **x:** `[N, channels]`; **ptr:** `[B+1]`; **returns** `[N, channels]`

    Example:
        >>> MultilinearAttention(64)(torch.randn(500, 64), ptr=torch.tensor([0, 200, 500])).shape
        torch.Size([500, 64])
    """

    def __init__(self, channels: int, heads: int = 8, *, num_states: int = 2) -> None:
        if num_states < 1:
            raise ValueError(f"num_states must be at least 1, got {num_states}")
        self.num_states = num_states
        keys, values = ([f"{x}{i}" for i in range(num_states)] for x in "kv")
        super().__init__(channels, heads, ["q", *keys, *values])

    def encode(
        self, x: Tensor, ptr: Tensor | Layout | None = None, states: Sequence[State] = ()
    ) -> State:
        """The sums of k v^T `[B, L, H, D, D]`, and the numbers of points `[B]`."""
        layout = layout_of(x, self.in_channels, ptr)
        each = range(self.num_states)
        parts = self.project(x, *(f"k{i}" for i in each), *(f"v{i}" for i in each))
        k, v = torch.cat(parts, dim=1).chunk(2, dim=1)  # [N, L H, D]
        total = sum_outer(k, v, layout).unflatten(1, (self.num_states, self.heads))  # type: ignore[no-untyped-call]
        return total, layout.ptr.diff().to(total.dtype)

    def decode(
        self, x: Tensor, states: Sequence[State], ptr: Tensor | Layout | None = None
    ) -> Tensor:
        """What the points read from the product of the states of their cloud: pointwise."""
        layout = layout_of(x, self.in_channels, ptr)
        total, points = states[0]
        state = (total / points.clamp(min=1).view(-1, 1, 1, 1, 1)).prod(dim=1)
        (q,) = self.project(x, "q")
        return self.finish(apply_state(q, state, layout), x)
