"""Perceiver IO: one cross attention to latents, a transformer on them, one cross attention back."""

from collections.abc import Sequence
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from flare_geo.nn.attention import CrossBlock, CrossDecode, CrossEncode
from flare_geo.nn.block import BareBlock
from flare_geo.nn.latent_blocks import latent_block, process
from flare_geo.nn.mixer import SumMixer, layout_of
from flare_geo.nn.mlp import Init, ResidualMLP, reset_linears
from flare_geo.nn.model import BlockModel
from flare_geo.ops import Layout, Merge, State, merge_encodings


class PerceiverIO(BlockModel):
    r"""Model of `"Perceiver IO: A General Architecture for Structured Inputs & Outputs"
    <https://arxiv.org/abs/2107.14795>`_ between fields on the same points.

    .. math::
        h = \mathrm{MLP}(x), \quad z = \mathrm{Attn}(q, \mathrm{LN}\,h), \quad
        z \leftarrow \mathrm{blocks}(z), \quad
        y = \mathrm{MLP}(\mathrm{LN}\,\mathrm{Attn}(\mathrm{LN}\,h, \mathrm{LN}\,z))

    M learned queries read the points, the points read the latents. Cost O(N M C) and O(M^2 C)
    per block. The points interact through one sum, with `cross_attn` through one more per block: it
    streams and shards.

    As in the reference, the two cross attentions have neither residual nor MLP (the paper has
    both), and the output queries are the embedded points.

    Args:
        in_channels: input channels per point.
        out_channels: output channels per point.
        hidden_channels: width C, divisible by `heads`.
        num_layers: blocks on the latents.
        heads: number of heads.
        num_latents: number M of latents.
        mlp_ratio: hidden width of the blocks' MLPs over C.
        cross_attn: each block lets the latents read the points again, in place of each other.
        io_layers: inner layers of the embedding and of the head.
        init: ``"paper"`` as the FLARE family starts, or ``"default"``.

    Shapes:
        - **x:** `[N, in_channels]`; **ptr:** `[B+1]` or **batch:** `[N]`, sorted
        - **returns** `[N, out_channels]`

    Example:
        >>> model = PerceiverIO(3, 1, hidden_channels=32, num_layers=2, num_latents=16)
        >>> model(torch.randn(500, 3), ptr=torch.tensor([0, 200, 500])).shape
        torch.Size([500, 1])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        hidden_channels: int = 128,
        num_layers: int = 8,
        heads: int = 8,
        num_latents: int = 512,
        *,
        mlp_ratio: float = 4,
        cross_attn: bool = False,
        io_layers: int = 2,
        init: Init = "paper",
    ) -> None:
        super().__init__(in_channels, out_channels)
        channels = hidden_channels
        self.embed = ResidualMLP(in_channels, channels, channels, io_layers, input_residual=False)
        mixer = LatentTransformer(channels, num_layers, heads, num_latents, mlp_ratio, cross_attn)
        self.blocks = nn.ModuleList([BareBlock(mixer)])
        self.norm = nn.LayerNorm(channels)
        self.head = ResidualMLP(channels, out_channels, channels, io_layers, output_residual=False)
        reset_linears(self, init)

    def begin(self, x: Tensor) -> Tensor:
        """`[N, in_channels]` to `[N, C]`."""
        h: Tensor = self.embed(x)
        return h

    def end(self, h: Tensor) -> Tensor:
        """`[N, C]` to `[N, out_channels]`."""
        y: Tensor = self.head(self.norm(h))
        return y


class LatentTransformer(SumMixer):
    """From the points to the latents, through the blocks, and back: `[N, C]` to `[N, C]`."""

    merges: ClassVar[tuple[Merge, ...]] = (merge_encodings,)

    def __init__(
        self,
        channels: int,
        num_layers: int,
        heads: int,
        num_latents: int,
        mlp_ratio: float,
        cross_attn: bool,
    ) -> None:
        super().__init__()
        self.in_channels, self.cross_attn = channels, cross_attn
        self.q = nn.Parameter(0.1 * torch.randn(num_latents, channels))
        self.pool = CrossEncode(channels, heads)
        mlps = [
            ResidualMLP(
                channels,
                channels,
                int(mlp_ratio * channels),
                0,
                input_residual=False,
                output_residual=False,
            )
            for _ in range(num_layers)
        ]
        if cross_attn:
            self.merges = (merge_encodings,) * (1 + num_layers)  # type: ignore[misc]
            self.blocks = nn.ModuleList(CrossBlock(channels, heads, mlp) for mlp in mlps)
        else:
            self.blocks = nn.ModuleList(
                latent_block(channels, heads, mlp, qkv_bias=False) for mlp in mlps
            )
        self.read = CrossDecode(channels, heads)

    def forward(
        self, x: Tensor, ptr: Tensor | Layout | None = None, pos: Tensor | None = None
    ) -> Tensor:
        """All of it, with each block computed once."""
        layout = layout_of(x, self.in_channels, ptr)
        z = self.pool.latents(self.joined(self.pool.encode(self.q, x, layout)))
        if self.cross_attn:
            for i, block in enumerate(self._cross_blocks, start=1):
                z = block.update(z, self.joined(block.encode(z, x, layout), i))
        else:
            z = process(self.blocks, z)
        y: Tensor = self.read(x, z, layout)
        return y

    def encode(
        self, x: Tensor, ptr: Tensor | Layout | None = None, states: Sequence[State] = ()
    ) -> State:
        """Z `[B, H, M, D]` and lse `[B, H, M]`."""
        layout = layout_of(x, self.in_channels, ptr)
        if not states:
            return self.pool.encode(self.q, x, layout)
        block = self._cross_blocks[len(states) - 1]
        return block.encode(self._latents(states), x, layout)

    def decode(
        self, x: Tensor, states: Sequence[State], ptr: Tensor | Layout | None = None
    ) -> Tensor:
        """What each point reads from the latents of its cloud."""
        z = self._latents(states)
        if not self.cross_attn:
            z = process(self.blocks, z)
        y: Tensor = self.read(x, z, layout_of(x, self.in_channels, ptr))
        return y

    def _latents(self, states: Sequence[State]) -> Tensor:
        """`[B, M, C]` after what the latents have read."""
        z = self.pool.latents(states[0])
        for block, state in zip(self._cross_blocks, states[1:], strict=False):
            z = block.update(z, state)
        return z

    @property
    def _cross_blocks(self) -> list[CrossBlock]:
        return cast(list[CrossBlock], list(self.blocks))
