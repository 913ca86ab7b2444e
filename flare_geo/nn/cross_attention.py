"""Cross attention between the points of clouds and latents, both ways."""

from torch import Tensor, nn

from flare_geo.nn.mixer import head_width
from flare_geo.ops import Layout, State, flare_decode, flare_encode


class CrossEncode(nn.Module):
    """Latents read points: softmax over the points of a cloud, exact in parts."""

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
        """`[B, M, C]` of what :meth:`encode` gave, its parts merged."""
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
        """What the latents `[B, M, C]` read off the points `[N, C]`."""
        return self.pool.encode(self.lin_q(self.norm1(z)), h, layout)

    def update(self, z: Tensor, state: State) -> Tensor:
        """The latents after it."""
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
