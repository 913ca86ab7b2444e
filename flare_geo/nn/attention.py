"""Softmax attention: among the points of a cloud, from points to latents and back."""

from torch import Tensor, nn

from flare_geo.nn.mixer import head_width, layout_of
from flare_geo.ops import Layout, State, flare_decode, flare_encode, pairwise_attention


class SoftmaxAttention(nn.Module):
    r"""Multi-head attention of `"Attention Is All You Need" <https://arxiv.org/abs/1706.03762>`_.

    .. math::
        [q\, k\, v] = W_{qkv} x, \qquad
        y_n = W_{out} \Big[ \sum_m \mathrm{softmax}_m(D^{-1/2}\, q_{nh} \cdot k_{mh})\, v_{mh}
        \Big]_h

    The points of a cloud interact pair by pair: O(N^2 C) per cloud, memory O(N C) where
    `scaled_dot_product_attention` has a fused kernel. It can be neither chunked nor sharded. There
    is no mask, dropout or position: the layer is equivariant to the order of the points.

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


class CrossEncode(nn.Module):
    """Latents read points: softmax over the points of a cloud, exact in chunks."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, head_width(channels, heads) ** -0.5
        self.norm = nn.LayerNorm(channels)
        self.lin_k = nn.Linear(channels, channels)
        self.lin_v = nn.Linear(channels, channels)
        self.lin_out = nn.Linear(channels, channels)

    def encode(self, q: Tensor, h: Tensor, layout: Layout) -> State:
        """Queries `[M, C]`, or `[B, M, C]`, read the points `h [N, C]`."""
        u = self.norm(h)
        k, v = by_heads(self.lin_k(u), self.heads), by_heads(self.lin_v(u), self.heads)
        q = by_heads(q, self.heads).transpose(-3, -2).to(k.dtype)  # [..., H, M, D]
        return flare_encode(q, k, v, layout, scale=self.scale)

    def latents(self, state: State) -> Tensor:
        """`[B, M, C]` from what :meth:`encode` gave, once all chunks are merged."""
        z = state[0].transpose(1, 2).flatten(2)
        out: Tensor = self.lin_out(z.to(self.lin_out.weight.dtype))
        return out


class CrossBlock(nn.Module):
    r"""Pre-norm block in which the latents read the points.

    .. math::
        z \leftarrow z + \mathrm{Attn}(\mathrm{LN}_1 z, \mathrm{LN}\,h), \qquad
        z \leftarrow z + \mathrm{MLP}(\mathrm{LN}_2 z)
    """

    def __init__(self, channels: int, heads: int, mlp: nn.Module) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.lin_q = nn.Linear(channels, channels)
        self.pool, self.mlp = CrossEncode(channels, heads), mlp

    def encode(self, z: Tensor, h: Tensor, layout: Layout) -> State:
        """What the latents `[B, M, C]` read from the points `[N, C]`."""
        return self.pool.encode(self.lin_q(self.norm1(z)), h, layout)

    def update(self, z: Tensor, state: State) -> Tensor:
        """The latents after they have read the points."""
        z = z + self.pool.latents(state)
        z = z + self.mlp(self.norm2(z))
        return z


class CrossDecode(nn.Module):
    """Points read latents: softmax over the latents of their cloud, pointwise."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, head_width(channels, heads) ** -0.5
        self.norm_z, self.norm_h = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.lin_q = nn.Linear(channels, channels)
        self.lin_k = nn.Linear(channels, channels)
        self.lin_v = nn.Linear(channels, channels)
        self.lin_out = nn.Linear(channels, channels)

    def forward(self, h: Tensor, z: Tensor, layout: Layout) -> Tensor:
        """`h [N, C]` and `z [B, M, C]` to `[N, C]`."""
        q = by_heads(self.lin_q(self.norm_h(h)), self.heads)
        z = self.norm_z(z)
        k, v = (
            by_heads(lin(z), self.heads).transpose(1, 2)  # [B, H, M, D]
            for lin in (self.lin_k, self.lin_v)
        )
        y: Tensor = self.lin_out(flare_decode(k, q, v, layout, scale=self.scale).flatten(1))
        return y


def by_heads(x: Tensor, heads: int) -> Tensor:
    """`[..., C]` to `[..., H, D]`."""
    return x.reshape(*x.shape[:-1], heads, x.shape[-1] // heads)
