"""Attention to all pairs of points at once."""

from torch import Tensor, nn

from flare_geo.nn.mixer import head_width, layout_of
from flare_geo.ops import Layout
from flare_geo.ops.third_order import third_order_attention


class ThirdOrderAttention(nn.Module):
    r"""Third-order attention of `"Representational Strengths and Limitations of Transformers"
    <https://arxiv.org/abs/2306.02896>`_.

    .. math::
        s_{ijk} = D^{-1/2} \sum_d q_{id}\, k^1_{jd}\, k^2_{kd}, \qquad
        y_i = \sum_{jk} \mathrm{softmax}_{(j,k)}(s_{ijk})\; v^1_j \odot v^2_k

    The softmax is over all ordered pairs of points of the cloud: O(N^3 C) time per cloud, which is
    for small clouds; the memory is bounded, see
    :func:`flare_geo.ops.third_order.third_order_attention`. It can be neither chunked nor
    sharded. The five projections lie head by head in the fused one (its rows are `[H, 5, D]`), as
    in the reference.

    Args:
        channels: width C, divisible by `heads`.
        heads: number H of heads, of width D = C / H.

    Shapes:
        - **x:** `[N, channels]`; **ptr:** `[B+1]`; **returns** `[N, channels]`

    Example:
        >>> ThirdOrderAttention(64)(torch.randn(50, 64), ptr=torch.tensor([0, 20, 50])).shape
        torch.Size([50, 64])
    """

    def __init__(self, channels: int, heads: int = 8) -> None:
        super().__init__()
        self.in_channels, self.heads = channels, heads
        self.width = head_width(channels, heads)
        self.lin_qkv = nn.Linear(channels, 5 * channels)
        self.lin_out = nn.Linear(channels, channels)

    def forward(
        self, x: Tensor, ptr: Tensor | Layout | None = None, pos: Tensor | None = None
    ) -> Tensor:
        """Mix the points of each cloud."""
        layout = layout_of(x, self.in_channels, ptr)
        parts = self.lin_qkv(x).view(x.shape[0], self.heads, 5, self.width)
        q, k1, k2, v1, v2 = parts.unbind(2)
        y: Tensor = self.lin_out(third_order_attention(q, k1, k2, v1, v2, layout).flatten(1))
        return y
