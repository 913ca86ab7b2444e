"""The layer that PhysicsNeMo calls FLARE, with its weights."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from flare_geo.nn.mixer import SumMixer, head_width, layout_of
from flare_geo.ops import (
    Layout,
    State,
    flare_attention,
    flare_decode,
    flare_encode,
    merge_encodings,
)


class PhysicsNeMoFlare(SumMixer):
    r"""FLARE attention as `physicsnemo.nn` 2.2 has it: its state dict can be loaded as it is.

    .. math::
        X = \mathrm{heads}(W_x x), \quad K = W_k X, \quad V = W_v X, \quad
        Z = \mathrm{softmax}_n(Q K^\top)\, V, \quad
        x' = W\, \mathrm{softmax}_m(K Q^\top)\, Z

    What differs from :class:`flare_geo.nn.FlareConv`: keys and values are linear, by one pair of
    matrices for all heads, and the heads may be wider or narrower than C / H. Of `"FLARE"
    <https://arxiv.org/abs/2508.12594>`_. O(N M C) time, a state of H M (D + 1) numbers per cloud.

    Args:
        channels: width C.
        heads: number H of heads.
        num_latents: number M of queries per head.
        head_channels: width D per head; C / H if None.
        backend: see :func:`flare_geo.ops.flare_attention`.

    Shapes:
        - **x:** `[N, channels]`; **ptr:** `[B+1]`; **returns** `[N, channels]`

    Example:
        >>> PhysicsNeMoFlare(64)(torch.randn(500, 64), ptr=torch.tensor([0, 200, 500])).shape
        torch.Size([500, 64])
    """

    merges = (merge_encodings,)

    def __init__(
        self,
        channels: int,
        heads: int = 8,
        *,
        num_latents: int = 64,
        head_channels: int | None = None,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        width = head_width(channels, heads) if head_channels is None else head_channels
        self.in_channels, self.heads, self.width = channels, heads, width
        self.backend = backend
        self.q_global = nn.Parameter(torch.randn(1, heads, num_latents, width))
        self.in_project_x = nn.Linear(channels, heads * width)
        self.self_k = nn.Linear(width, width)
        self.self_v = nn.Linear(width, width)
        self.out_linear = nn.Linear(heads * width, channels)

    def forward(
        self, x: Tensor, ptr: Tensor | Layout | None = None, pos: Tensor | None = None
    ) -> Tensor:
        """Mix the points of each cloud: `[N, channels]` to `[N, channels]`."""
        layout = layout_of(x, self.in_channels, ptr)
        heads = self._heads(x)
        k, v = self.self_k(heads), self.self_v(heads)
        q = self._queries(k)
        if self.join is None:
            y = flare_attention(q, k, v, layout, backend=self.backend)
        else:
            z, _ = self.joined(flare_encode(q, k, v, layout, backend=self.backend))
            y = flare_decode(q, k, z, layout, backend=self.backend)
        return self._out(y)

    def encode(
        self, x: Tensor, ptr: Tensor | Layout | None = None, states: Sequence[State] = ()
    ) -> State:
        """Z `[B, H, M, D]` and lse `[B, H, M]`."""
        layout = layout_of(x, self.in_channels, ptr)
        heads = self._heads(x)
        k, v = self.self_k(heads), self.self_v(heads)
        return flare_encode(self._queries(k), k, v, layout, backend=self.backend)

    def decode(
        self, x: Tensor, states: Sequence[State], ptr: Tensor | Layout | None = None
    ) -> Tensor:
        """What the points read from the latents of their cloud: pointwise."""
        layout = layout_of(x, self.in_channels, ptr)
        k = self.self_k(self._heads(x))
        z = states[0][0].to(k.dtype)
        return self._out(flare_decode(self._queries(k), k, z, layout, backend=self.backend))

    def _queries(self, k: Tensor) -> Tensor:
        return self.q_global[0].to(k.dtype)

    def _heads(self, x: Tensor) -> Tensor:
        y: Tensor = self.in_project_x(x)
        return y.view(x.shape[0], self.heads, self.width)

    def _out(self, y: Tensor) -> Tensor:
        out: Tensor = self.out_linear(y.flatten(1))
        return out
