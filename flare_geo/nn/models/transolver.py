"""The Transolver model: embedding, blocks, head; for any mixer."""

from typing import Any

import torch
from torch import Tensor, nn

from flare_geo.nn.block import Block
from flare_geo.nn.mixers import make_mixer
from flare_geo.nn.mlp import ResidualMLP
from flare_geo.nn.model import BlockModel


class Transolver(BlockModel):
    r"""`"Transolver: A Fast Transformer Solver for PDEs on General Geometries"
    <https://arxiv.org/abs/2402.02366>`_, a skeleton that others took over.

    .. math::
        h = \mathrm{MLP}(x) + p, \qquad
        h \leftarrow h + \mathrm{mixer}(\mathrm{LN}(h)), \quad
        h \leftarrow h + \mathrm{MLP}(\mathrm{LN}(h)), \qquad
        y = W\, \mathrm{LN}(h)

    Each MLP is two linears with GELU between them, 2 C wide in the embedding; p is one learned
    vector for all points. The defaults are those of the comparisons with FLARE.

    - Transolver++ (https://arxiv.org/abs/2502.02414) is ``mixer="transolver_plus"``.
    - PhysicsNeMo's FLARE is ``mixer="physicsnemo_flare", placeholder=False``, with the coordinates
      (its `embedding`) before the other inputs, and its FLARE++ the same with
      ``mixer="flare_plus_plus_pure"``.

    Args:
        in_channels: input channels per point.
        out_channels: output channels per point.
        hidden_channels: width C.
        num_layers: number of blocks.
        heads: number of heads.
        mlp_ratio: width of the blocks' MLPs over C.
        placeholder: whether there is a vector p.
        mixer: a name of :data:`flare_geo.nn.MIXERS`.
        mixer_args: its arguments.
        checkpoint_blocks: keep only the input of each block for the backward pass.

    Shapes:
        - **x:** `[N, in_channels]`; **ptr:** `[B+1]` or **batch:** `[N]` sorted
        - **returns** `[N, out_channels]`

    Example:
        >>> model = Transolver(3, 1, hidden_channels=32, num_layers=2)
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
        *,
        mlp_ratio: float = 1.0,
        placeholder: bool = True,
        mixer: str = "transolver",
        mixer_args: dict[str, Any] | None = None,
        checkpoint_blocks: bool = False,
    ) -> None:
        super().__init__(in_channels, out_channels)
        self.checkpoint_blocks = checkpoint_blocks
        width = hidden_channels
        self.embed = _two_linears(in_channels, 2 * width, width)
        self.blocks = nn.ModuleList(
            Block(
                make_mixer(mixer, width, heads, mixer_args),
                _two_linears(width, int(mlp_ratio * width), width),
                nn.LayerNorm(width),
                nn.LayerNorm(width),
            )
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, out_channels)
        for module in self.modules():  # as the authors' code
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        self.placeholder = nn.Parameter(torch.rand(width) / width) if placeholder else None

    def begin(self, x: Tensor) -> Tensor:
        """Embedding: `[N, in_channels]` to `[N, C]`."""
        h: Tensor = self.embed(x)
        return h if self.placeholder is None else h + self.placeholder

    def end(self, h: Tensor) -> Tensor:
        """Norm and head: `[N, C]` to `[N, out_channels]`."""
        y: Tensor = self.head(self.norm(h))
        return y


def _two_linears(in_channels: int, hidden_channels: int, out_channels: int) -> ResidualMLP:
    return ResidualMLP(
        in_channels,
        out_channels,
        hidden_channels,
        0,
        act="gelu",
        input_residual=False,
        output_residual=False,
    )
