"""Softmax attention between all pairs of points."""

from torch import Tensor, nn

from flare_geo.nn.mixer import head_width, layout_of
from flare_geo.ops import Layout, pairwise_attention


class SoftmaxAttention(nn.Module):
    r"""Multi-head attention of `"Attention Is All You Need" <https://arxiv.org/abs/1706.03762>`_.

    .. math::
        [q\, k\, v] = W_{qkv} x, \qquad
        y_n = W_{out} \Big[ \sum_m \mathrm{softmax}_m(D^{-1/2}\, q_{nh} \cdot k_{mh})\, v_{mh}
        \Big]_h

    The points of a cloud meet pair by pair: O(N^2 C) a cloud, memory O(N C) where
    `scaled_dot_product_attention` has a fused kernel. It can be neither cut into chunks nor spread
    over ranks. No mask, no dropout, no positions: equivariant to the order of the points.

    Args:
        channels: width C, divisible by `heads`.
        heads: number H of heads, of width D = C / H.
        qkv_bias: whether queries, keys and values have a bias.

    Shapes:
        - **x:** `[N, channels]`; **ptr:** `[B+1]`; **returns** `[N, channels]`

    Example:
        >>> SoftmaxAttention(64)(torch.randn(500, 64), ptr=torch.tensor([0, 200, 500])).shape
        torch.Size([500, 64])
    """

    def __init__(self, channels: int, heads: int = 8, *, qkv_bias: bool = True) -> None:
        super().__init__()
        self.in_channels, self.heads = channels, heads
        self.width = head_width(channels, heads)
        self.lin_qkv = nn.Linear(channels, 3 * channels, bias=qkv_bias)
        self.lin_out = nn.Linear(channels, channels)

    def forward(
        self, x: Tensor, ptr: Tensor | Layout | None = None, pos: Tensor | None = None
    ) -> Tensor:
        """Mix the points of each cloud."""
        layout = layout_of(x, self.in_channels, ptr)
        q, k, v = self.lin_qkv(x).view(x.shape[0], 3, self.heads, self.width).unbind(1)
        y: Tensor = self.lin_out(pairwise_attention(q, k, v, layout).flatten(1))
        return y
