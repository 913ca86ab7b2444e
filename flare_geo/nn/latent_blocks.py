"""Self-attention among the latents of a cloud, between encode and decode."""

from collections.abc import Iterable

from torch import Tensor, nn

from flare_geo.nn.attention import SoftmaxAttention
from flare_geo.nn.block import Block
from flare_geo.nn.mlp import ResidualMLP
from flare_geo.ops import equal_layout


def latent_block(channels: int, heads: int, mlp: nn.Module, *, qkv_bias: bool = True) -> Block:
    """Transformer block for latents."""
    attention = SoftmaxAttention(channels, heads, qkv_bias=qkv_bias)
    return Block(attention, mlp, nn.LayerNorm(channels), nn.LayerNorm(channels))


def process(blocks: Iterable[nn.Module], z: Tensor) -> Tensor:
    """Latents `[B, M, C]` through blocks: those of a cloud see each other, none sees another's."""
    layout = equal_layout(z.shape[0], z.shape[1], z.device)
    flat = z.flatten(0, 1)
    for block in blocks:
        flat = block(flat, layout)
    return flat.view_as(z)


class LatentBlocks(nn.ModuleList):
    r"""Blocks of a Transformer on the M latents of each cloud, heads side by side: an ablation of
    `"FLARE" <https://arxiv.org/abs/2508.12594>`_.

    .. math::
        z \leftarrow z + \mathrm{attention}(\mathrm{LN}_1(z)), \qquad
        z \leftarrow z + W_2\, \mathrm{gelu}(W_1\, \mathrm{LN}_2(z))

    They act on the encoding of whole clouds, so a layer with them can still be chunked and
    sharded. Cost O(M^2 C) per cloud and block, whatever the number of points.

    Args:
        channels: width C = H D of all heads together.
        heads: number H of heads, also of the self-attention.
        num_blocks: number of blocks.

    Shapes:
        - **z:** `[B, H, M, D]`; **returns** `[B, H, M, D]`
    """

    def __init__(self, channels: int, heads: int, num_blocks: int) -> None:
        super().__init__(
            latent_block(
                channels,
                heads,
                ResidualMLP(channels, channels, 4 * channels, num_layers=0, act="gelu"),
            )
            for _ in range(num_blocks)
        )

    def forward(self, z: Tensor) -> Tensor:
        """All blocks."""
        side_by_side = z.transpose(1, 2)  # [B, M, H, D]
        mixed = process(self, side_by_side.flatten(2))
        return mixed.view(side_by_side.shape).transpose(1, 2)
