"""The plain eager ways that everything is compared with, written from the formulas.

`PlainFlare` is FLARE (arXiv 2508.12594) as one writes it first: dense `[B, N, C]`, every linear on
its own, the mixer two calls of scaled_dot_product_attention. Its parameters have the names and
shapes of `flare_geo.nn.Flare`, so that one state dict serves both. The other mixers: softmax
attention, linear attention (arXiv 2006.16236) and physics attention (Transolver, arXiv 2402.02366).
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.functional import scaled_dot_product_attention


def two_sdpa(
    q: Tensor, k: Tensor, v: Tensor, scale: float = 1.0, mask: Tensor | None = None
) -> Tensor:
    """FLARE's mixer as two calls.

    Shapes:
        - **q:** `[H, M, D]`; **k, v:** `[B, H, N, D]`; **mask:** bool `[B, N]`, True for points
        - **returns** `[B, H, N, D]`
    """
    q = q.expand(k.shape[0], -1, -1, -1)  # [B, H, M, D]
    seen = None if mask is None else mask[:, None, None, :]
    z = scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=scale)
    return scaled_dot_product_attention(k, q, z, scale=scale)


def softmax_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """All pairs of points, by PyTorch's flash kernel: q, k, v, result `[B, H, N, D]`."""
    return scaled_dot_product_attention(q, k, v)


def linear_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    r"""`y_n = f(q_n) S / (f(q_n) . s)`, `S = sum_m f(k_m) v_m^T`, `s = sum_m f(k_m)`, f = elu + 1.

    Shapes:
        - **q, k, v:** `[B, H, N, D]`; **returns** `[B, H, N, D]`
    """
    q, k = F.elu(q) + 1, F.elu(k) + 1
    total = (q * k.sum(dim=-2, keepdim=True)).sum(dim=-1, keepdim=True)
    return q @ (k.mT @ v) / (total + 1e-6)


def parameters_by_name(module: nn.Module) -> list[Tensor]:
    """Parameters in the order of their names, which is the same for both ways to write a model."""
    return [parameter for _, parameter in sorted(module.named_parameters())]


def split_heads(x: Tensor, heads: int) -> Tensor:
    """`[B, N, C]` to `[B, H, N, D]`."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """`[B, H, N, D]` to `[B, N, C]`."""
    return x.transpose(1, 2).flatten(-2)


class PlainMLP(nn.Module):
    """`h_0 = g(W_in x) + [x]`, `h_{j+1} = h_j + g(W_j h_j)`, `y = W_out h_L + [h_L]`; g is GELU."""

    def __init__(
        self, inner: int, width: int, out: int, depth: int, first: bool = True, last: bool = True
    ) -> None:
        super().__init__()
        self.first, self.last = first and inner == width, last and width == out
        widths = [inner] + [width] * depth
        self.layers = nn.ModuleList(nn.Linear(w, width) for w in widths)
        self.lin_out = nn.Linear(width, out)

    def forward(self, x: Tensor) -> Tensor:
        """`[..., inner]` to `[..., out]`."""
        for j, linear in enumerate(self.layers):
            h = F.gelu(linear(x), approximate="tanh")
            x = h + x if j > 0 or self.first else h
        y: Tensor = self.lin_out(x)
        return y + x if self.last else y


class PlainConv(nn.Module):
    """FLARE's layer: keys and values by two chains, `two_sdpa`, a linear."""

    def __init__(self, channels: int, heads: int, latents: int, depth: int = 3) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Parameter(torch.randn(heads, latents, channels // heads))
        self.k_mlp = PlainMLP(channels, channels, channels, depth)
        self.v_mlp = PlainMLP(channels, channels, channels, depth)
        self.lin_out = nn.Linear(channels, channels)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """`[B, N, C]` to `[B, N, C]`; the mask hides what is no point from the latents."""
        k, v = (split_heads(mlp(x), self.heads) for mlp in (self.k_mlp, self.v_mlp))
        y: Tensor = self.lin_out(merge_heads(two_sdpa(self.q.to(k.dtype), k, v, mask=mask)))
        return y


class PlainBlock(nn.Module):
    """Mixer and feed-forward network, each behind a LayerNorm and with a skip."""

    def __init__(self, channels: int, heads: int, latents: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.conv = PlainConv(channels, heads, latents)
        self.mlp = PlainMLP(channels, channels, channels, 3)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """`[B, N, C]` to `[B, N, C]`."""
        x = x + self.conv(self.norm1(x), mask)
        x = x + self.mlp(self.norm2(x))
        return x


class PlainFlare(nn.Module):
    """The model, with the paper's depths: 3 in chains of a block, 2 in embedding and head.

    Shapes:
        - **x:** `[B, N, in]`; **mask:** bool `[B, N]`, False where a cloud has no point
        - **returns** `[B, N, out]`
    """

    def __init__(
        self, inner: int, out: int, channels: int, layers: int, heads: int, latents: int
    ) -> None:
        super().__init__()
        self.embed = PlainMLP(inner, channels, channels, 2, first=False)
        self.blocks = nn.ModuleList(PlainBlock(channels, heads, latents) for _ in range(layers))
        self.norm = nn.LayerNorm(channels)
        self.head = PlainMLP(channels, channels, out, 2, last=False)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """`[B, N, in]` to `[B, N, out]`."""
        h = self.embed(x)
        for block in self.blocks:
            h = block(h, mask)
        y: Tensor = self.head(self.norm(h))
        return y


class SelfAttention(nn.Module):
    """Projections around a mixer of q, k, v, as softmax or linear attention: `[B, N, C]`."""

    def __init__(
        self, channels: int, heads: int, mixer: Callable[[Tensor, Tensor, Tensor], Tensor]
    ) -> None:
        super().__init__()
        self.heads, self.mixer = heads, mixer
        self.lin_qkv = nn.Linear(channels, 3 * channels)
        self.lin_out = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, N, C]` to `[B, N, C]`."""
        q, k, v = (split_heads(t, self.heads) for t in self.lin_qkv(x).chunk(3, dim=-1))
        y: Tensor = self.lin_out(merge_heads(self.mixer(q, k, v)))
        return y


def physics_attention(
    x: Tensor, f: Tensor, to_slices: nn.Linear, temperature: Tensor, to_qkv: nn.Linear
) -> Tensor:
    r"""Transolver's mixer: `w = softmax_g(W x / t)`, slices `s_g = sum_n w_ng f_n / sum_n w_ng`,
    softmax attention among slices, back with the same w.

    Shapes:
        - **x, f:** `[B, H, N, D]`; **to_slices:** D to G; **temperature:** `[H, 1, 1]`;
          **to_qkv:** D to 3 D, shared by the heads; **returns** `[B, H, N, D]`
    """
    w = (to_slices(x) / temperature).softmax(dim=-1)  # [B, H, N, G]
    s = (w.mT @ f) / (w.sum(dim=-2).unsqueeze(-1) + 1e-5)  # [B, H, G, D]
    s = scaled_dot_product_attention(*to_qkv(s).chunk(3, dim=-1))
    return w.to(s.dtype) @ s


class PhysicsAttention(nn.Module):
    """Transolver's layer for point clouds. `[B, N, C]` to `[B, N, C]`."""

    def __init__(self, channels: int, heads: int, slices: int) -> None:
        super().__init__()
        width, self.heads = channels // heads, heads
        self.lin_x = nn.Linear(channels, channels)
        self.lin_f = nn.Linear(channels, channels)
        self.to_slices = nn.Linear(width, slices)
        self.to_qkv = nn.Linear(width, 3 * width, bias=False)
        self.temperature = nn.Parameter(torch.full((heads, 1, 1), 0.5))
        self.lin_out = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, N, C]` to `[B, N, C]`."""
        p, f = split_heads(self.lin_x(x), self.heads), split_heads(self.lin_f(x), self.heads)
        mixed = physics_attention(p, f, self.to_slices, self.temperature, self.to_qkv)
        y: Tensor = self.lin_out(merge_heads(mixed))
        return y
