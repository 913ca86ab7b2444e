"""Anchored attention: some points see each other, all others see these."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from flare_geo.nn.mixer import head_width, layout_of
from flare_geo.nn.mlp import FourierFeatures, gelu_mlp
from flare_geo.nn.model import PointModel
from flare_geo.nn.models.super_nodes import choose_points
from flare_geo.nn.models.upt import checked_dim, queries_layout
from flare_geo.ops import Layout, pairwise_attention


class Anchors(NamedTuple):
    """What the answer at any point depends on: of each block the keys and values of the anchors."""

    keys: list[Tensor]
    values: list[Tensor]
    layout: Layout


class AnchorUPT(PointModel):
    r"""Transformer with the anchor attention of `"AB-UPT" <https://arxiv.org/abs/2502.09692>`_.

    .. math::
        h_i \leftarrow h_i + \mathrm{softmax}_{a \in A}\big(D^{-1/2}\, R_i q_i \cdot R_a k_a\big)
        \, v_a, \qquad h_i \leftarrow h_i + \mathrm{MLP}(\mathrm{LN}\, h_i)

    A is a subset of the points of the cloud, which attend to themselves; every other point attends
    to them, and to no other, so that any number of points can be answered after the anchors, in
    chunks of any size. R rotates pairs of channels by angles linear in the position (rotary
    embedding): scores depend on differences of positions alone. Cost O(A^2 C) for the anchors,
    O(A C) per answer. The choice of anchors depends on the order of the points, and they interact
    pair by pair: it shards over points only once they are known.

    Built from the paper's description of its physics branch; the geometry branch, which is UPT's
    super nodes, and the exchange between surface and volume are not there.

    Args:
        in_channels: input channels per point.
        out_channels: output channels per point.
        hidden_channels: width C, divisible by `heads`.
        num_layers: number of blocks.
        heads: number of heads, of width D = C / H, at least 2 `dim`.
        num_anchors: number of anchors of a cloud; all points where there are fewer.
        dim: number of the first input channels that are the position; up to 3 if None.
        mlp_ratio: hidden width of the blocks' MLPs over C.
        num_frequencies: octaves of waves of the position beside the inputs.
        max_frequency: largest angle of the rotation for a unit of position; the smallest is 1.
        seed: of the choice of anchors, which is the same alone and in a batch; set `generator` to
            draw others in training each time.

    Shapes:
        - **x:** `[N, in_channels]`; **ptr:** `[B+1]` or **batch:** `[N]`, sorted
        - **queries:** `[Q, in_channels]`, with **queries_ptr:** `[B+1]`; the points if None
        - **returns** `[N, out_channels]`, or `[Q, out_channels]`

    Example:
        >>> model = AnchorUPT(3, 1, hidden_channels=32, num_layers=2, heads=4, num_anchors=50)
        >>> model(torch.randn(500, 3), ptr=torch.tensor([0, 200, 500])).shape
        torch.Size([500, 1])
    """

    generator: torch.Generator | None = None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        hidden_channels: int = 128,
        num_layers: int = 8,
        heads: int = 8,
        num_anchors: int = 1024,
        *,
        dim: int | None = None,
        mlp_ratio: float = 4,
        num_frequencies: int = 6,
        max_frequency: float = 100.0,
        seed: int = 0,
    ) -> None:
        super().__init__(in_channels, out_channels)
        self.dim = checked_dim(dim, in_channels)
        self.num_anchors, self.seed = num_anchors, seed
        channels, wide = hidden_channels, int(mlp_ratio * hidden_channels)
        self.waves = FourierFeatures(num_frequencies)
        waves = 2 * self.dim * num_frequencies
        self.embed = gelu_mlp(in_channels + waves, channels, channels)
        self.blocks = nn.ModuleList(
            AnchorBlock(channels, heads, wide, self.dim, max_frequency) for _ in range(num_layers)
        )
        self.head = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, out_channels))

    def forward(
        self,
        x: Tensor,
        ptr: Tensor | Layout | None = None,
        batch: Tensor | None = None,
        *,
        queries: Tensor | None = None,
        queries_ptr: Tensor | Layout | None = None,
    ) -> Tensor:
        """Predict at every point, or at `queries`, points that may be others."""
        layout = layout_of(x, self.in_channels, ptr, batch)
        anchors = self.encode(x, layout)
        if queries is None:
            return self.decode(anchors, x, layout)
        return self.decode(anchors, queries, queries_ptr)

    def encode(self, x: Tensor, ptr: Tensor | Layout | None = None) -> Anchors:
        """Choose the anchors of each cloud and let them see each other."""
        chosen, layout = choose_points(
            layout_of(x, self.in_channels, ptr),
            self.num_anchors,
            seed=self.seed,
            generator=self.generator if self.training else None,
        )
        anchors = Anchors([], [], layout)
        h, pos = self._begin(x[chosen])
        for block in self._blocks:
            k, v = block.keys_values(h, pos)
            anchors.keys.append(k)
            anchors.values.append(v)
            h = block(h, pos, layout, k, v, layout)
        return anchors

    def decode(
        self, anchors: Anchors, queries: Tensor, ptr: Tensor | Layout | None = None
    ) -> Tensor:
        """`[Q, out_channels]` at the points `queries [Q, in_channels]`, each by itself."""
        layout = queries_layout(queries, self.in_channels, ptr, anchors.layout.num_clouds)
        h, pos = self._begin(queries)
        for block, k, v in zip(self._blocks, anchors.keys, anchors.values, strict=True):
            h = block(h, pos, layout, k, v, anchors.layout)
        y: Tensor = self.head(h)
        return y

    def _begin(self, x: Tensor) -> tuple[Tensor, Tensor]:
        pos = x[:, : self.dim]
        return self.embed(torch.cat([x, self.waves(pos)[:, self.dim :]], dim=-1)), pos

    @property
    def _blocks(self) -> list["AnchorBlock"]:
        return [block for block in self.blocks if isinstance(block, AnchorBlock)]


class AnchorBlock(nn.Module):
    """Points read the anchors of their cloud; then an MLP."""

    frequencies: Tensor

    def __init__(
        self, channels: int, heads: int, mlp_channels: int, dim: int, max_frequency: float
    ) -> None:
        super().__init__()
        self.shape = (heads, head_width(channels, heads))
        pairs = self.shape[1] // (2 * dim)
        if pairs == 0:
            raise ValueError(
                f"hidden_channels / heads must be at least 2 dim = {2 * dim} for the rotary "
                f"embedding, got {channels} / {heads} = {self.shape[1]}"
            )
        frequencies = torch.tensor(max_frequency).pow(torch.linspace(0, 1, pairs))
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.lin_q, self.lin_k = nn.Linear(channels, channels), nn.Linear(channels, channels)
        self.lin_v, self.lin_out = nn.Linear(channels, channels), nn.Linear(channels, channels)
        self.mlp = gelu_mlp(channels, mlp_channels, channels)

    def keys_values(self, h: Tensor, pos: Tensor) -> tuple[Tensor, Tensor]:
        """`[A, H, D]` each, of anchors."""
        u = self.norm1(h)
        k = rotate(self.lin_k(u).view(-1, *self.shape), pos, self.frequencies)
        return k, self.lin_v(u).view(-1, *self.shape)

    def forward(
        self, h: Tensor, pos: Tensor, layout: Layout, k: Tensor, v: Tensor, anchors: Layout
    ) -> Tensor:
        """`[N, C]` to `[N, C]`, pointwise for given anchors."""
        q = self.lin_q(self.norm1(h)).view(-1, *self.shape)
        q = rotate(q, pos, self.frequencies)
        h = h + self.lin_out(pairwise_attention(q, k, v, layout, anchors).flatten(1))
        h = h + self.mlp(self.norm2(h))
        return h


def rotate(x: Tensor, pos: Tensor, frequencies: Tensor) -> Tensor:
    """Rotary embedding: pairs of channels turned by the products of coordinates and frequencies.

    Shapes:
        - **x:** `[N, H, D]`; **pos:** `[N, d]`; **frequencies:** `[K]`, 2 d K <= D: what is
          behind the first 2 d K channels stays as it is
    """
    angles = (pos.unsqueeze(-1) * frequencies.to(pos.dtype)).flatten(1).unsqueeze(1)  # [N, 1, d K]
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    pairs = angles.shape[-1]
    a, b, rest = x.split_with_sizes([pairs, pairs, x.shape[-1] - 2 * pairs], dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos, rest], dim=-1)
