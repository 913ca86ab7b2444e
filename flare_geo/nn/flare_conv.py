"""FLARE attention as a layer on packed point clouds."""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from flare_geo.nn import conditioned_queries
from flare_geo.nn.conditioned_queries import ConditionedQueries, start_near_identity
from flare_geo.nn.mixer import SumMixer, layout_of
from flare_geo.nn.mlp import Init, ResidualMLP, apply_together, reset_linears
from flare_geo.nn.norm import RMS_EPS, Norm, make_norm
from flare_geo.ops import (
    Layout,
    State,
    causal_flare_attention,
    causal_flare_step,
    flare_attention,
    flare_decode,
    flare_encode,
    merge_encodings,
)
from flare_geo.ops.residual_mlp import Activation

Queries = Literal["learned", "conditioned"]
LATENT_STD = {"paper": 0.1, "default": 1.0}
RMS_EPS_OF: dict[str, float] = {"learned": RMS_EPS, "conditioned": 1e-6}
"""Of all norms of a model with such queries."""


class FlareConv(SumMixer):
    r"""FLARE attention from `"FLARE: Fast Low-rank Attention Routing Engine"
    <https://arxiv.org/abs/2508.12594>`_: global mixing of a point cloud at linear cost.

    .. math::
        K = \mathrm{MLP}_k(x), \quad V = \mathrm{MLP}_v(x), \quad
        Z_h = \mathrm{softmax}_n(s\, Q_h K_h^\top)\, V_h, \quad
        Y_h = \mathrm{softmax}_m(s\, K_h Q_h^\top)\, Z_h, \quad
        x' = W\,[Y_1 \dots Y_H]

    Q holds M latents a head: learned, or made of each cloud as in `"FLARE++"
    <https://arxiv.org/abs/2608.11519>`_ (:class:`.ConditionedQueries`), where K is a linear with a
    norm behind it and V a linear. Points are a set: the layer is equivariant to their order and
    uses no `edge_index`. Clouds of a batch do not see each other and are never padded.

    Args:
        in_channels: width of x.
        out_channels: width of the result; as x if None. Must be divisible by `heads`.
        heads: number H of heads.
        num_latents: number M of latents a head.
        kv_layers: inner layers of the K and V residual MLPs, one number or (K, V); -1 makes each a
            single linear with a skip. None: 3, or plain linears with conditioned queries.
        scale: factor s of the scores. None: the paper's 1, or D^-1/2 with conditioned queries.
        qk_norm: whether queries and keys are normalised over the head width. None: with
            conditioned queries only.
        queries: ``"learned"``: the latents are parameters, the same for every cloud;
            ``"conditioned"``: FLARE++.
        init: ``"paper"`` as published, ``"default"`` PyTorch's linears and latents N(0, 1), which
            learns much faster on a small budget. Linears of conditioned queries start near the
            identity in both.
        backend: see :func:`flare_geo.ops.flare_attention`.
        kv_channels: hidden widths of the K and V MLPs, one number or (K, V); as out if None.
        act: activation of the K and V MLPs.
        norm: kind of the norms of queries and keys.
        shared_latents: whether all heads have the same M latents; for learned queries.
        num_latent_blocks: blocks of self-attention among the latents between encode and decode,
            see :class:`flare_geo.nn.latent_blocks.LatentBlocks`.
        gating: whether Y is multiplied by sigmoid(MLP_g(x)) before W, as in `"Gated Attention"
            <https://arxiv.org/abs/2505.06708>`_; the MLP is as that of K.
        share_k0_v0: see :class:`.ConditionedQueries`.
        causal: whether a point sees only itself and those before it in its cloud, see
            :func:`flare_geo.ops.causal_flare_attention`; for learned queries. Neither chunks nor
            ranks then: a sequence goes on by :meth:`step`.

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

    def __init__(
        self,
        in_channels: int,
        out_channels: int | None = None,
        heads: int = 8,
        num_latents: int = 64,
        *,
        kv_layers: int | tuple[int, int] | None = None,
        scale: float | None = None,
        qk_norm: bool | None = None,
        queries: Queries = "learned",
        init: Init = "paper",
        backend: str = "auto",
        kv_channels: int | tuple[int, int] | None = None,
        act: Activation = "gelu_tanh",
        norm: Norm = "layer",
        shared_latents: bool = False,
        num_latent_blocks: int = 0,
        gating: bool = False,
        share_k0_v0: bool = True,
        causal: bool = False,
    ) -> None:
        super().__init__()
        out_channels = in_channels if out_channels is None else out_channels
        if heads < 1 or out_channels % heads:
            raise ValueError(
                f"out_channels must be divisible by heads, got {out_channels} and {heads}"
            )
        if num_latents < 1:
            raise ValueError(f"num_latents must be at least 1, got {num_latents}")
        if queries not in RMS_EPS_OF:
            raise ValueError(f"queries must be 'learned' or 'conditioned', got '{queries}'")
        made = queries == "conditioned"
        if made and (shared_latents or causal):
            raise ValueError("shared_latents and causal are for queries='learned'")
        if causal and num_latent_blocks:
            raise ValueError("causal and num_latent_blocks exclude each other: latents of a prefix")
        self.in_channels, self.out_channels = in_channels, out_channels
        self.heads, self.num_latents = heads, num_latents
        width = out_channels // heads
        self.scale: float = (width**-0.5 if made else 1.0) if scale is None else scale
        self.init, self.backend, self.causal = init, backend, causal
        self.merges = () if causal else (merge_encodings,) * (1 + made)  # type: ignore[misc]
        self.plain_kv = made and kv_layers is None
        layers = kv_layers if isinstance(kv_layers, (tuple, list)) else (kv_layers,) * 2
        hidden = kv_channels if isinstance(kv_channels, (tuple, list)) else (kv_channels,) * 2

        def mlp(which: int) -> ResidualMLP:
            depth = layers[which]
            return ResidualMLP(
                in_channels,
                out_channels,
                hidden[which],
                (-1 if made else 3) if depth is None else depth,
                act=act,
                input_residual=not self.plain_kv,
                output_residual=not self.plain_kv,
                backend=backend,
            )

        self.q = nn.Parameter(Tensor(1 if shared_latents else heads, num_latents, width))
        self.k_mlp, self.v_mlp = mlp(0), mlp(1)
        self.g_mlp = mlp(0) if gating else None
        eps, normed = RMS_EPS_OF[queries], made if qk_norm is None else qk_norm
        self.q_norm, self.k_norm = (
            make_norm(norm, width, rms_eps=eps, affine=affine) if normed else nn.Identity()
            for affine in (not made, True)
        )
        self.conditioned: ConditionedQueries | None = None
        if made:
            sizes = (in_channels, heads, width, num_latents)
            self.conditioned = ConditionedQueries(
                *sizes, scale=self.scale, norm=norm, rms_eps=eps, share_k0_v0=share_k0_v0
            )
        self.latent_blocks: nn.Module | None = None
        if num_latent_blocks:
            from flare_geo.nn.latent_blocks import LatentBlocks  # which are built of mixers

            self.latent_blocks = LatentBlocks(out_channels, heads, num_latent_blocks)
        self.lin_out = nn.Linear(out_channels, out_channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all parameters anew, as `init` says."""
        reset_linears(self, self.init)
        std = LATENT_STD[self.init]
        if self.conditioned is not None:
            std = conditioned_queries.LATENT_STD
            self.conditioned.reset_parameters()
        nn.init.normal_(self.q, std=std)
        for mlp in (self.k_mlp, self.v_mlp) if self.plain_kv else ():
            start_near_identity(mlp.lin_out)

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
        q, k, v = self._heads(x, states)
        if self.causal:
            if self.join is not None:
                raise ValueError("points of a causal layer are in order: they cannot be spread")
            y = causal_flare_attention(q, k, v, layout, scale=self.scale)
        elif self.join is None and self.latent_blocks is None:
            y = flare_attention(q, k, v, layout, scale=self.scale, backend=self.backend)
        else:
            own = flare_encode(q, k, v, layout, scale=self.scale, backend=self.backend)
            y = self._read(q, k, self.joined(own, len(states))[0], layout)
        return self._out(y, x)

    def encode(
        self, x: Tensor, ptr: Tensor | Layout | None = None, states: Sequence[State] = ()
    ) -> State:
        """First half: what :func:`flare_geo.ops.merge_encodings` joins for parts of clouds.

        Shapes:
            - **x:** `[N, in_channels]`; **states:** none, or the one pair of conditioned queries;
              **returns** z `[B, H, M, D]` and lse `[B, H, M]`
        """
        layout = layout_of(x, self.in_channels, ptr)
        if self.conditioned is not None and not states:
            return self.conditioned.encode(x, layout, self.backend)
        q, k, v = self._heads(x, states)
        return flare_encode(q, k, v, layout, scale=self.scale, backend=self.backend)

    def decode(
        self, x: Tensor, states: Sequence[State], ptr: Tensor | Layout | None = None
    ) -> Tensor:
        """Second half, pointwise: x may be other points than those that were encoded.

        Shapes:
            - **x:** `[N, in_channels]`; **states:** a pair (z, lse) for each of the sums;
              **returns** `[N, out_channels]`
        """
        layout = layout_of(x, self.in_channels, ptr)
        q, k, _ = self._heads(x, states, values=False)
        return self._out(self._read(q, k, states[-1][0], layout), x)

    def step(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """The next point of each cloud of a causal layer, in memory that knows no length.

        Args:
            x: one point a cloud.
            state: what the step before gave; None at the start.

        Shapes:
            - **x:** `[B, in_channels]`; **returns** `[B, out_channels]` and the state
        """
        if not self.causal:
            raise ValueError("step is for causal=True: else every point changes all others")
        q, k, v = self._heads(x)
        y, state = causal_flare_step(q, k, v, state, scale=self.scale)
        return self._out(y, x), state

    def routing(self, x: Tensor, ptr: Tensor | Layout | None = None) -> tuple[Tensor, Tensor]:
        """What decides who reads what: queries `[H, M, D]` or `[B, H, M, D]`, keys `[N, H, D]`."""
        states = [] if self.conditioned is None else [self.encode(x, ptr)]
        return self._heads(x, states, values=False)[:2]

    def _read(self, q: Tensor, k: Tensor, z: Tensor, layout: Layout) -> Tensor:
        z = z.to(k.dtype)
        if self.latent_blocks is not None:
            z = self.latent_blocks(z).to(k.dtype)
        return flare_decode(q, k, z, layout, scale=self.scale, backend=self.backend)

    def _out(self, y: Tensor, x: Tensor) -> Tensor:
        y = y.flatten(-2)
        if self.g_mlp is not None:
            y = y * self.g_mlp(x).sigmoid()
        out: Tensor = self.lin_out(y)
        return out

    def _heads(
        self, x: Tensor, states: Sequence[State] = (), values: bool = True
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries `[H, M, D]`, or `[B, H, M, D]` that the first of the states makes, and keys and
        values `[N, H, D]`, in one dtype; without values the keys stand for them.
        """
        mlps = [self.k_mlp, self.v_mlp] if values else [self.k_mlp]
        heads = (self.heads, self.out_channels // self.heads)
        points = [y.unflatten(-1, heads) for y in apply_together(mlps, x)]  # type: ignore[no-untyped-call]
        k, v = points[0], points[-1]
        q = self.q_norm(self.q.expand(self.heads, -1, -1))
        if self.conditioned is not None:
            q = self.conditioned(q, states[0][0])
        return q.to(v.dtype), self.k_norm(k).to(v.dtype), v

    @property
    def is_plain(self) -> bool:
        """Whether this is the paper's layer and nothing more: what fused kernels know."""
        extras = (self.conditioned, self.latent_blocks, self.g_mlp)
        return not self.causal and all(module is None for module in extras)

    def extra_repr(self) -> str:
        """Sizes, for `print(model)`."""
        return (
            f"{self.in_channels}, {self.out_channels}, heads={self.heads}, "
            f"num_latents={self.num_latents}, scale={self.scale}"
        )
