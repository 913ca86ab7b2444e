"""LNO: the points of a cloud interact through learned modes."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from flare_geo.nn.block import BareBlock
from flare_geo.nn.latent_blocks import latent_block, process
from flare_geo.nn.mixer import SumMixer, layout_of
from flare_geo.nn.mlp import ResidualMLP, gelu_mlp
from flare_geo.nn.model import BlockModel
from flare_geo.ops import Layout, State, apply_state, flare_encode, merge_encodings


class LNO(BlockModel):
    r"""Latent neural operator of `"Latent Neural Operator for Solving Forward and Inverse PDE
    Problems" <https://arxiv.org/abs/2406.03923>`_.

    .. math::
        t = \mathrm{MLP}_t(x), \quad b = \mathrm{MLP}_b(x), \quad A = \mathrm{MLP}_a(t), \qquad
        z = \mathrm{softmax}_n(A)^\top b, \quad z \leftarrow \mathrm{blocks}(z), \quad
        y = \mathrm{MLP}_y(\mathrm{softmax}_m(A)\, z)

    One score map A `[N, M]`, without heads, serves both ways between the points and the M modes;
    the blocks are a pre-norm transformer on the modes. Cost O(N C (C + M)) and O(M^2 C) per
    block. The points interact through one sum: it streams and shards.

    As in the reference: x is both the place and the function observed there, the attention of the
    blocks is softmax attention, and time is not a separate input.

    Args:
        in_channels: input channels per point.
        out_channels: output channels per point.
        hidden_channels: width C, divisible by `heads`.
        num_layers: blocks on the modes.
        heads: number of heads of the blocks.
        num_modes: number M of modes.
        mlp_layers: inner layers of the four MLPs.

    Shapes:
        - **x:** `[N, in_channels]`; **ptr:** `[B+1]` or **batch:** `[N]`, sorted
        - **returns** `[N, out_channels]`

    Example:
        >>> model = LNO(3, 1, hidden_channels=32, num_layers=2, num_modes=16)
        >>> model(torch.randn(500, 3), ptr=torch.tensor([0, 200, 500])).shape
        torch.Size([500, 1])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        hidden_channels: int = 128,
        num_layers: int = 4,
        heads: int = 8,
        num_modes: int = 256,
        *,
        mlp_layers: int = 2,
    ) -> None:
        super().__init__(in_channels, out_channels)
        self.trunk = make_mlp(in_channels, hidden_channels, hidden_channels, mlp_layers)
        self.branch = make_mlp(in_channels, hidden_channels, hidden_channels, mlp_layers)
        mixer = ModeAttention(hidden_channels, num_layers, heads, num_modes, mlp_layers)
        self.blocks = nn.ModuleList([BareBlock(mixer)])
        self.head = make_mlp(hidden_channels, out_channels, hidden_channels, mlp_layers)

    def begin(self, x: Tensor) -> Tensor:
        """T and b side by side: `[N, 2C]`."""
        return torch.cat([self.trunk(x), self.branch(x)], dim=-1)

    def end(self, h: Tensor) -> Tensor:
        """`[N, C]` to `[N, out_channels]`."""
        y: Tensor = self.head(h)
        return y


class ModeAttention(SumMixer):
    """From the points to the modes, through the blocks, and back: `[N, 2C]` (t, b) to `[N, C]`."""

    merges = (merge_encodings,)

    def __init__(
        self, channels: int, num_layers: int, heads: int, num_modes: int, mlp_layers: int
    ) -> None:
        super().__init__()
        self.in_channels = 2 * channels
        self.scores = make_mlp(channels, num_modes, channels, mlp_layers)
        self.blocks = nn.ModuleList(
            latent_block(channels, heads, gelu_mlp(channels, 2 * channels, channels))
            for _ in range(num_layers)
        )

    def forward(
        self, x: Tensor, ptr: Tensor | Layout | None = None, pos: Tensor | None = None
    ) -> Tensor:
        """Both halves, with the score map computed once."""
        layout = layout_of(x, self.in_channels, ptr)
        t, b = x.chunk(2, dim=-1)
        r = self.scores.hidden(t)
        return self._answer(r, self.joined(self._sums(r, b, layout)), layout)

    def encode(
        self, x: Tensor, ptr: Tensor | Layout | None = None, states: Sequence[State] = ()
    ) -> State:
        """Z `[B, 1, M, C]` and lse `[B, 1, M]`."""
        t, b = x.chunk(2, dim=-1)
        return self._sums(self.scores.hidden(t), b, layout_of(x, self.in_channels, ptr))

    def decode(
        self, x: Tensor, states: Sequence[State], ptr: Tensor | Layout | None = None
    ) -> Tensor:
        """The answer at x, after the blocks on the modes."""
        r = self.scores.hidden(x.chunk(2, dim=-1)[0])
        return self._answer(r, states[0], layout_of(x, self.in_channels, ptr))

    def _sums(self, r: Tensor, b: Tensor, layout: Layout) -> State:
        """The scores are r W^T + bias: W holds the queries, and the bias is one for all points."""
        q = self.scores.lin_out.weight.to(r.dtype).unsqueeze(0)  # [1, M, C]
        return flare_encode(q, r.unsqueeze(1), b.to(r.dtype).unsqueeze(1), layout)

    def _answer(self, r: Tensor, state: State, layout: Layout) -> Tensor:
        z = process(self.blocks, state[0].squeeze(1).to(r.dtype))  # [B, M, C]
        weights = self.scores.lin_out(r).softmax(dim=-1).unsqueeze(1)  # [N, 1, M]
        return apply_state(weights, z.unsqueeze(1), layout).squeeze(1).to(r.dtype)


def make_mlp(in_channels: int, out_channels: int, channels: int, num_layers: int) -> ResidualMLP:
    """The residual MLP of LNO: exact GELU, residuals around the inner layers only."""
    return ResidualMLP(
        in_channels,
        out_channels,
        channels,
        num_layers,
        act="gelu",
        input_residual=False,
        output_residual=False,
    )
