"""FLARE++ in its two published forms: latent queries are made from the cloud that they read."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from flare_geo.nn.flare.conv import FlareConv
from flare_geo.nn.flare.queries import ConditionedQueries
from flare_geo.nn.mixer import SumMixer, head_width, layout_of
from flare_geo.nn.norm import Norm
from flare_geo.ops import (
    Layout,
    State,
    flare_attention,
    flare_decode,
    flare_encode,
    merge_encodings,
)


class FlarePlusPlus(FlareConv):
    """`"FLARE++" <https://arxiv.org/abs/2608.11519>`_ in the gated, normalised form of its authors'
    code: :class:`FlareConv` with :class:`flare_geo.nn.flare.queries.ConditionedQueries`.

    Args:
        channels: width C, divisible by `heads`.
        heads: number H of heads.
        num_latents: number M of latents per head.
        share_k0_v0: whether the first keys are also the first values.
        scale: factor of the scores; D^-1/2 if None.
        norm: kind of the norms of queries and keys.
        backend: see :func:`flare_geo.ops.flare_attention`.

    Shapes:
        - **x:** `[N, channels]`; **ptr:** `[B+1]`; **returns** `[N, channels]`

    Example:
        >>> FlarePlusPlus(64)(torch.randn(500, 64), ptr=torch.tensor([0, 200, 500])).shape
        torch.Size([500, 64])
    """

    def __init__(
        self,
        channels: int,
        heads: int = 8,
        *,
        num_latents: int = 64,
        share_k0_v0: bool = True,
        scale: float | None = None,
        norm: Norm = "layer",
        backend: str = "auto",
    ) -> None:
        super().__init__(
            channels,
            heads=heads,
            num_latents=num_latents,
            queries=ConditionedQueries(
                channels,
                heads,
                head_width(channels, heads),
                num_latents,
                scale=scale,
                norm=norm,
                share_k0_v0=share_k0_v0,
            ),
            scale=scale,
            norm=norm,
            backend=backend,
        )


class FlarePlusPlusPure(SumMixer):
    r"""`"FLARE++" <https://arxiv.org/abs/2608.11519>`_ without norms and gate, as in the first
    version of the paper and in PhysicsNeMo (`physicsnemo.nn.FLAREPlusPlus`).

    .. math::
        [K_0\, V_0\, K\, V] = W x, \quad
        Q_h = \mathrm{softmax}_n(s\, q_h K_{0h}^\top)\, V_{0h}, \quad
        Z_h = \mathrm{softmax}_n(s\, Q_h K_h^\top)\, V_h, \quad
        Y_h = \mathrm{softmax}_m(s\, K_h Q_h^\top)\, Z_h

    Two softmaxes over the points, one after the other: O(N C (C + M)) time, states of H M (D + 1)
    numbers per cloud. PhysicsNeMo's state dict can be loaded as it is. There is no dropout.

    Args:
        channels: width C.
        heads: number H of heads.
        num_latents: number M of latents per head.
        head_channels: width D per head; C / H if None.
        scale: factor s of the scores; D^-1/2 if None.
        backend: see :func:`flare_geo.ops.flare_attention`.

    Shapes:
        - **x:** `[N, channels]`; **ptr:** `[B+1]`; **returns** `[N, channels]`

    Example:
        >>> FlarePlusPlusPure(64)(torch.randn(500, 64), ptr=torch.tensor([0, 200, 500])).shape
        torch.Size([500, 64])
    """

    merges = (merge_encodings, merge_encodings)

    def __init__(
        self,
        channels: int,
        heads: int = 8,
        *,
        num_latents: int = 64,
        head_channels: int | None = None,
        scale: float | None = None,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        width = head_width(channels, heads) if head_channels is None else head_channels
        self.in_channels, self.heads, self.backend = channels, heads, backend
        self.scale: float = width**-0.5 if scale is None else scale
        self.q_seed = nn.Parameter(torch.randn(1, heads, num_latents, width))
        self.in_projection = nn.Linear(channels, 4 * heads * width)
        self.out_linear = nn.Linear(heads * width, channels)

    def forward(
        self, x: Tensor, ptr: Tensor | Layout | None = None, pos: Tensor | None = None
    ) -> Tensor:
        """Mix the points of each cloud."""
        layout, (k0, v0, k, v) = layout_of(x, self.in_channels, ptr), self._project(x, 0, 4)
        q, _ = self.joined(self._encode(self.q_seed[0], k0, v0, layout), 0)
        if self.join is None:
            y = flare_attention(q, k, v, layout, scale=self.scale, backend=self.backend)
        else:
            z, _ = self.joined(self._encode(q, k, v, layout), 1)
            y = flare_decode(q, k, z, layout, scale=self.scale, backend=self.backend)
        return self._out(y)

    def encode(
        self, x: Tensor, ptr: Tensor | Layout | None = None, states: Sequence[State] = ()
    ) -> State:
        """First the queries `[B, H, M, D]`, then z `[B, H, M, D]`, each with its lse."""
        layout = layout_of(x, self.in_channels, ptr)
        k, v = self._project(x, 2 * len(states), 2)
        return self._encode(states[0][0] if states else self.q_seed[0], k, v, layout)

    def decode(
        self, x: Tensor, states: Sequence[State], ptr: Tensor | Layout | None = None
    ) -> Tensor:
        """`[N, channels]` at any points."""
        layout = layout_of(x, self.in_channels, ptr)
        (k,) = self._project(x, 2, 1)
        q, z = (state[0].to(k.dtype) for state in states)
        return self._out(flare_decode(q, k, z, layout, scale=self.scale, backend=self.backend))

    def _project(self, x: Tensor, first: int, count: int) -> tuple[Tensor, ...]:
        """`[N, H, D]` of `count` of K0, V0, K, V, from the one that is `first`."""
        width = self.out_linear.in_features
        rows = slice(first * width, (first + count) * width)
        y = linear(x, self.in_projection.weight[rows], self.in_projection.bias[rows])
        return y.view(len(x), count, self.heads, width // self.heads).unbind(1)

    def _encode(self, q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> State:
        q = q.to(v.dtype)
        return flare_encode(q, k, v, layout, scale=self.scale, backend=self.backend)

    def _out(self, y: Tensor) -> Tensor:
        out: Tensor = self.out_linear(y.flatten(-2))
        return out
