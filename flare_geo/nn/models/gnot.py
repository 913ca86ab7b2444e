"""GNOT: cross and self attention of linear cost, and experts chosen by the place."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from flare_geo.nn.block import BareBlock
from flare_geo.nn.mixer import SumMixer, layout_of
from flare_geo.nn.mixers.gnot import GNOTAttention
from flare_geo.nn.mlp import Init, gelu_mlp, reset_linears
from flare_geo.nn.model import BlockModel
from flare_geo.ops import Layout, State, merge_sums


class GNOT(BlockModel):
    r"""Model of `"GNOT: A General Neural Operator Transformer for Operator Learning"
    <https://arxiv.org/abs/2302.14376>`_, with one input function, that of x.

    .. math::
        X_0 = \mathrm{MLP}_x(x), \qquad f = \mathrm{MLP}_z(x) + p, \qquad
        g = \mathrm{softmax}_e(\mathrm{MLP}_g(x))

    .. math::
        h &= X_0 + \mathrm{LA}(\mathrm{LN}\,X_0, \mathrm{LN}\,f), \qquad
        h \leftarrow h + \mathrm{LN} \textstyle\sum_e g_e E^1_e(h) \\
        h &\leftarrow h + \mathrm{LA}(\mathrm{LN}\,h, \mathrm{LN}\,h), \qquad
        f \leftarrow h + \mathrm{LN} \textstyle\sum_e g_e E^2_e(h)

    LA is :class:`flare_geo.nn.mixers.gnot.GNOTAttention`, p a learned vector. The points interact
    through two sums per block: O(N C D) per block, it streams and shards.

    As in the reference, every block begins again from :math:`X_0` and carries f, of which only keys
    and values are taken; in the original the query stream is carried and f stays as it is.

    Args:
        in_channels: input channels per point; the experts are chosen by all of them.
        out_channels: output channels per point.
        hidden_channels: width C, divisible by `heads`.
        num_layers: number of blocks.
        heads: number of heads.
        num_experts: number of experts of each of the two MLPs of a block.
        mlp_ratio: hidden width of the experts over C.
        init: ``"paper"`` as published, or ``"default"``.

    Shapes:
        - **x:** `[N, in_channels]`; **ptr:** `[B+1]` or **batch:** `[N]`, sorted
        - **returns** `[N, out_channels]`

    Example:
        >>> model = GNOT(3, 1, hidden_channels=32, num_layers=2)
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
        num_experts: int = 3,
        mlp_ratio: float = 2,
        init: Init = "paper",
    ) -> None:
        super().__init__(in_channels, out_channels)
        self.hidden_channels = hidden_channels
        channels, wide = hidden_channels, 2 * hidden_channels
        self.embed_x = gelu_mlp(in_channels, wide, channels)
        self.embed_f = gelu_mlp(in_channels, wide, channels)
        self.placeholder = nn.Parameter(torch.rand(channels) / channels)
        self.blocks = nn.ModuleList(
            BareBlock(
                GNOTLayer(in_channels, channels, heads, num_experts, int(mlp_ratio * channels))
            )
            for _ in range(num_layers)
        )
        self.head = gelu_mlp(channels, wide, out_channels)
        reset_linears(self, init)

    def begin(self, x: Tensor) -> Tensor:
        """x, X_0 and f side by side: `[N, in_channels + 2C]`."""
        return torch.cat([x, self.embed_x(x), self.embed_f(x) + self.placeholder], dim=-1)

    def end(self, h: Tensor) -> Tensor:
        """`[N, in_channels + 2C]` to `[N, out_channels]`, of f."""
        y: Tensor = self.head(h[:, -self.hidden_channels :])
        return y


class GNOTLayer(SumMixer):
    """One block; x, X_0 and f go through it side by side, and f is what changes."""

    merges = (merge_sums, merge_sums)

    def __init__(
        self,
        place_channels: int,
        channels: int,
        heads: int,
        num_experts: int,
        expert_channels: int,
    ) -> None:
        super().__init__()
        self.widths = [place_channels, channels, channels]
        self.in_channels = sum(self.widths)
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(5))
        self.cross_attn = GNOTAttention(channels, heads)
        self.self_attn = GNOTAttention(channels, heads)
        self.experts1, self.experts2 = (
            nn.ModuleList(gelu_mlp(channels, expert_channels, channels) for _ in range(num_experts))
            for _ in range(2)
        )
        self.gate = gelu_mlp(place_channels, 2 * channels, 2 * channels, num_experts)

    def forward(
        self, x: Tensor, ptr: Tensor | Layout | None = None, pos: Tensor | None = None
    ) -> Tensor:
        """Both sums, with nothing computed twice."""
        layout = layout_of(x, self.in_channels, ptr)
        h = self._crossed(x, self.joined(self._cross_sums(x, layout), 0), layout)
        return self._answer(x, h, self.joined(self._self_sums(h, layout), 1), layout)

    def encode(
        self, x: Tensor, ptr: Tensor | Layout | None = None, states: Sequence[State] = ()
    ) -> State:
        """The sums of :meth:`GNOTAttention.encode`: first over f, then over h."""
        layout = layout_of(x, self.in_channels, ptr)
        if not states:
            return self._cross_sums(x, layout)
        return self._self_sums(self._crossed(x, states[0], layout), layout)

    def decode(
        self, x: Tensor, states: Sequence[State], ptr: Tensor | Layout | None = None
    ) -> Tensor:
        """x, X_0 and the new f at x."""
        layout = layout_of(x, self.in_channels, ptr)
        return self._answer(x, self._crossed(x, states[0], layout), states[1], layout)

    def _cross_sums(self, x: Tensor, layout: Layout) -> State:
        f = x.split_with_sizes(self.widths, dim=-1)[2]
        return self.cross_attn.encode(self.norms[1](f), layout)

    def _self_sums(self, h: Tensor, layout: Layout) -> State:
        return self.self_attn.encode(self.norms[3](h), layout)

    def _crossed(self, x: Tensor, state: State, layout: Layout) -> Tensor:
        place, x_0, _ = x.split_with_sizes(self.widths, dim=-1)
        h: Tensor = x_0 + self.cross_attn.decode(self.norms[0](x_0), [state], layout)
        h = h + self.norms[2](self._mixture(self.experts1, place, h))
        return h

    def _answer(self, x: Tensor, h: Tensor, state: State, layout: Layout) -> Tensor:
        place, x_0, _ = x.split_with_sizes(self.widths, dim=-1)
        h = h + self.self_attn.decode(self.norms[3](h), [state], layout)
        f = h + self.norms[4](self._mixture(self.experts2, place, h))
        return torch.cat([place, x_0, f], dim=-1)

    def _mixture(self, experts: nn.ModuleList, place: Tensor, h: Tensor) -> Tensor:
        weights = self.gate(place).softmax(dim=-1)  # [N, E]
        outputs = torch.stack([expert(h) for expert in experts], dim=-1)  # [N, C, E]
        return torch.matmul(outputs, weights.unsqueeze(-1)).squeeze(-1)
