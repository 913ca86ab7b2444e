"""Causal FLARE as a layer: sequences, each point sees itself and those before it."""

from typing import ClassVar

from torch import Tensor

from flare_geo.nn.flare.heads import FlareHeads
from flare_geo.nn.mixer import layout_of
from flare_geo.ops import Layout, State, causal_flare_attention, causal_flare_step


class CausalFlareConv(FlareHeads):
    """FLARE in which a point sees only itself and those before it in its cloud, see
    :func:`flare_geo.ops.causal_flare_attention`.

    The order of the points counts. A causal layer cannot be chunked or sharded; continue a sequence
    with :meth:`step`.

    Args:
        in_channels: width of x; this and all other arguments as for :class:`FlareConv`, but the
            queries are ``"learned"`` or ``"shared"``, there are no `latents`, and `backend` is that
            of the K and V MLPs alone.

    Shapes:
        - **x:** `[N, in_channels]`; **ptr:** `[B+1]`; **returns** `[N, out_channels]`

    Example:
        >>> conv = CausalFlareConv(16, heads=4, num_latents=32)
        >>> conv(torch.randn(500, 16), ptr=torch.tensor([0, 200, 500])).shape
        torch.Size([500, 16])
    """

    kinds: ClassVar[tuple[str, ...]] = ("learned", "shared")

    def forward(
        self, x: Tensor, ptr: Tensor | Layout | None = None, pos: Tensor | None = None
    ) -> Tensor:
        """Mix the points of each cloud: `[N, in_channels]` to `[N, out_channels]`."""
        layout = layout_of(x, self.in_channels, ptr)
        q, k, v = self.heads_of(x)
        return self.output(causal_flare_attention(q, k, v, layout, scale=self.scale), x)

    def step(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """The next point of each cloud, in memory that does not depend on the length.

        Args:
            x: one point per cloud.
            state: what the step before returned; None at the start.

        Shapes:
            - **x:** `[B, in_channels]`; **returns** `[B, out_channels]` and the state
        """
        q, k, v = self.heads_of(x)
        y, state = causal_flare_step(q, k, v, state, scale=self.scale)
        return self.output(y, x), state
