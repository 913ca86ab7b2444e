"""Self-attention among the latents of a cloud, between encode and decode."""

from torch import Tensor, nn

from flare_geo.nn.encode_process_decode import latent_block, process
from flare_geo.nn.mlp import ResidualMLP


class LatentBlocks(nn.ModuleList):
    r"""Blocks of a Transformer on the M latents of each cloud, heads side by side: an ablation of
    `"FLARE" <https://arxiv.org/abs/2508.12594>`_.

    .. math::
        z \leftarrow z + \mathrm{attention}(\mathrm{LN}_1(z)), \qquad
        z \leftarrow z + W_2\, \mathrm{gelu}(W_1\, \mathrm{LN}_2(z))

    They act on the encoding of whole clouds, so whatever can be cut stays so. Cost O(M^2 C) a
    cloud and block, whatever the number of points.

    Args:
        channels: width C = H D of all heads together.
        heads: number H of heads, also of the self-attention.
        num_blocks: how many.

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
