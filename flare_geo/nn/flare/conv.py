"""FLARE attention as a layer on packed point clouds."""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from flare_geo.nn.flare.heads import FlareHeads
from flare_geo.nn.mixer import SumMixer, layout_of
from flare_geo.ops import (
    Layout,
    Merge,
    State,
    flare_attention,
    flare_decode,
    flare_encode,
    merge_encodings,
)


class FlareConv(FlareHeads, SumMixer):
    r"""FLARE attention from `"FLARE: Fast Low-rank Attention Routing Engine"
    <https://arxiv.org/abs/2508.12594>`_: global mixing of a point cloud at linear cost.

    .. math::
        K = \mathrm{MLP}_k(x), \quad V = \mathrm{MLP}_v(x), \quad
        Z_h = \mathrm{softmax}_n(s\, Q_h K_h^\top)\, V_h, \quad
        Y_h = \mathrm{softmax}_m(s\, K_h Q_h^\top)\, Z_h, \quad
        x' = W\,[Y_1 \dots Y_H]

    Q holds M latents per head. They are parameters, or made from each cloud as in `"FLARE++"
    <https://arxiv.org/abs/2608.11519>`_, where K is a linear with a norm behind it and V a linear.
    Points are a set: the layer is equivariant to their order and uses no `edge_index`. Clouds of a
    batch do not see each other and are never padded.

    Args:
        in_channels: width of x.
        out_channels: width of the result; as x if None. Must be divisible by `heads`.
        heads: number H of heads.
        num_latents: number M of latents per head.
        kv_layers: inner layers of the K and V residual MLPs, one number or (K, V); -1 makes each a
            single linear with a skip. None: 3, or plain linears with conditioned queries.
        scale: factor s of the scores. None: the paper's 1, or D^-1/2 with conditioned queries.
        qk_norm: whether queries and keys are normalised over the head width. None: with
            conditioned queries only.
        queries: ``"learned"``: the latents are parameters, the same for every cloud; ``"shared"``:
            they are the same for all heads, too; ``"conditioned"``: FLARE++; or a built
            :class:`.ConditionedQueries`.
        init: ``"paper"`` as published, ``"default"`` PyTorch's linears and latents N(0, 1), which
            learns much faster on a small budget. Linears of conditioned queries start near the
            identity in both.
        backend: see :func:`flare_geo.ops.flare_attention`; with ``"cpp"`` the MLPs, too, take the
            C++ kernels where these fit.
        kv_channels: hidden widths of the K and V MLPs, one number or (K, V); as out if None.
        act: activation of the K and V MLPs.
        norm: kind of the norms of queries and keys.
        gate: a pointwise module from x to `[N, out_channels]`; Y is multiplied by its sigmoid
            before W, as in `"Gated Attention" <https://arxiv.org/abs/2505.06708>`_.
        latents: a module that processes z `[B, H, M, D]` between encode and decode, such as
            :class:`flare_geo.nn.latent_blocks.LatentBlocks`.

    Shapes:
        - **x:** `[N, in_channels]`, the points of all clouds end to end
        - **ptr:** `[B+1]` int64 where each cloud starts, or **batch:** `[N]` int64, sorted; neither
          means one cloud
        - **returns** `[N, out_channels]`

    Raises:
        ValueError: if `ptr` does not fit N, `batch` is not sorted, or x has another width.

    Example:
        >>> conv = FlareConv(16, 32, heads=4, num_latents=64)
        >>> conv(torch.randn(500, 16), ptr=torch.tensor([0, 200, 500])).shape
        torch.Size([500, 32])
    """

    options: ClassVar[tuple[str, ...]] = (*FlareHeads.options, "num_latent_blocks", "share_k0_v0")

    @property
    def merges(self) -> tuple[Merge, ...]:
        """One merge function per reduction: conditioned queries are one more."""
        return (merge_encodings,) * (1 if self.conditioned is None else 2)

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        ptr: Tensor | Layout | None = None,
        batch: Tensor | None = None,
        pos: Tensor | None = None,
    ) -> Tensor:
        """Mix the points of each cloud: `[N, in_channels]` to `[N, out_channels]`."""
        layout = layout_of(x, self.in_channels, ptr, batch)
        states: list[State] = []
        if self.conditioned is not None:
            states.append(self.joined(self.conditioned.encode(x, layout, self.backend)))
        q, k, v = self.heads_of(x, states)
        if self.join is None and self.latent_blocks is None:
            y = flare_attention(q, k, v, layout, scale=self.scale, backend=self.backend)
        else:
            state = flare_encode(q, k, v, layout, scale=self.scale, backend=self.backend)
            y = self._read(q, k, self.joined(state, len(states))[0], layout)
        return self.output(y, x)

    def encode(
        self, x: Tensor, ptr: Tensor | Layout | None = None, states: Sequence[State] = ()
    ) -> State:
        """First half: what :func:`flare_geo.ops.merge_encodings` merges for chunks of clouds.

        Shapes:
            - **x:** `[N, in_channels]`; **states:** none, or the one pair of conditioned queries;
              **returns** z `[B, H, M, D]` and lse `[B, H, M]`
        """
        layout = layout_of(x, self.in_channels, ptr)
        if self.conditioned is not None and not states:
            return self.conditioned.encode(x, layout, self.backend)
        q, k, v = self.heads_of(x, states)
        return flare_encode(q, k, v, layout, scale=self.scale, backend=self.backend)

    def decode(
        self, x: Tensor, states: Sequence[State], ptr: Tensor | Layout | None = None
    ) -> Tensor:
        """Second half, pointwise: x may be other points than those that were encoded.

        Shapes:
            - **x:** `[N, in_channels]`; **states:** a pair (z, lse) per reduction;
              **returns** `[N, out_channels]`
        """
        layout = layout_of(x, self.in_channels, ptr)
        q, k, _ = self.heads_of(x, states, values=False)
        return self.output(self._read(q, k, states[-1][0], layout), x)

    def routing(self, x: Tensor, ptr: Tensor | Layout | None = None) -> tuple[Tensor, Tensor]:
        """What decides who reads what: queries `[H, M, D]` or `[B, H, M, D]`, keys `[N, H, D]`."""
        states = [] if self.conditioned is None else [self.encode(x, ptr)]
        return self.heads_of(x, states, values=False)[:2]

    def take_cpp(self) -> None:
        """Take the C++ kernels: the attention unless another backend was asked for, the MLPs where
        these fit a call.
        """
        super().take_cpp()
        if self.backend == "auto":
            self.backend = "cpp"

    def _read(self, q: Tensor, k: Tensor, z: Tensor, layout: Layout) -> Tensor:
        z = z.to(k.dtype)
        if self.latent_blocks is not None:
            z = self.latent_blocks(z).to(k.dtype)
        return flare_decode(q, k, z, layout, scale=self.scale, backend=self.backend)
