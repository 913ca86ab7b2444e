"""Strassen attention in its linearised form."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flare_geo.nn.mixer import layout_of
from flare_geo.nn.mixers.projected import ProjectedMixer
from flare_geo.ops import Layout, State, apply_state, sum_outer


class StrassenAttention(ProjectedMixer):
    r"""Two linear attentions and what is between them, after `"Strassen Attention"
    <https://arxiv.org/abs/2501.19215>`_.

    .. math::
        y_n = g_1\, (q_n^\top S_1) \odot m_2 + g_2 \sum_i (S_1 \odot S_2)_i
            + g_3\, (q_n^\top S_2) \odot m_1 + g_4\, q_n^\top (S_1 \odot S_2), \qquad
        S_l = \frac{1}{N} \sum_m k_{lm} v_{lm}^\top, \quad m_l = \frac{1}{N} \sum_m v_{lm}

    with q, k, v = x + W x in heads, a norm and a linear behind. The g are learned, one number per
    head; they start at zero, and so does the mixer, up to a constant. All is linear in [q 1]: one
    state is read. O(N C D) time, a state of 2 H (D + 1) D numbers per cloud.

    It has the shape of the paper's mechanism, a normalised triple sum of exponentials, but is no
    approximation of it; it is the form FLARE is compared with.

    Args:
        channels: width C, divisible by `heads`.
        heads: number H of heads, of width D = C / H.

    Shapes:
        - **x:** `[N, channels]`; **ptr:** `[B+1]`; **returns** `[N, channels]`

    Example:
        >>> StrassenAttention(64)(torch.randn(500, 64), ptr=torch.tensor([0, 200, 500])).shape
        torch.Size([500, 64])
    """

    def __init__(self, channels: int, heads: int = 8) -> None:
        super().__init__(channels, heads, ["q", "k1", "k2", "v1", "v2"])
        self.gates = nn.Parameter(torch.zeros(4, heads))

    def encode(
        self, x: Tensor, ptr: Tensor | Layout | None = None, states: Sequence[State] = ()
    ) -> State:
        """The two sums of [k 1] v^T `[B, 2 H, D + 1, D]`, and the numbers of points `[B]`."""
        layout = layout_of(x, self.in_channels, ptr)
        parts = self.project(x, "k1", "k2", "v1", "v2")
        k, v = torch.cat(parts, dim=1).chunk(2, dim=1)  # [N, 2 H, D]
        total = sum_outer(F.pad(k, (0, 1), value=1.0), v, layout)
        return total, layout.ptr.diff().to(total.dtype)

    def decode(
        self, x: Tensor, states: Sequence[State], ptr: Tensor | Layout | None = None
    ) -> Tensor:
        """What the points read from the states of their cloud: pointwise."""
        layout = layout_of(x, self.in_channels, ptr)
        total, points = states[0]
        both = total / points.clamp(min=1).view(-1, 1, 1, 1)
        s1, s2 = both[:, :, :-1].chunk(2, dim=1)  # [B, H, D, D]
        m1, m2 = both[:, :, -1:].chunk(2, dim=1)  # [B, H, 1, D]
        g1, g2, g3, g4 = self.gates.to(both.dtype).view(4, -1, 1, 1)
        product = s1 * s2
        slope = g1 * s1 * m2 + g3 * s2 * m1 + g4 * product
        state = torch.cat([slope, g2 * product.sum(dim=2, keepdim=True)], dim=2)
        (q,) = self.project(x, "q")
        return self.finish(apply_state(F.pad(q, (0, 1), value=1.0), state, layout), x)
