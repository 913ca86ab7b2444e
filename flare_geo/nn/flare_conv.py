"""FLARE attention as a layer on packed point clouds."""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from flare_geo.nn.mixer import SumMixer, layout_of
from flare_geo.nn.mlp import Init, ResidualMLP, apply_together, reset_linears
from flare_geo.nn.norm import Norm, make_norm
from flare_geo.ops import (
    Layout,
    State,
    flare_attention,
    flare_decode,
    flare_encode,
    merge_encodings,
)
from flare_geo.ops.chain import Activation

LATENT_STD = {"paper": 0.1, "default": 1.0}


class FlareConv(SumMixer):
    r"""FLARE attention from `"FLARE: Fast Low-rank Attention Routing Engine"
    <https://arxiv.org/abs/2508.12594>`_: global mixing of a point cloud at linear cost.

    .. math::
        K = \mathrm{MLP}_k(x), \quad V = \mathrm{MLP}_v(x), \quad
        Z_h = \mathrm{softmax}_n(s\, Q_h K_h^\top)\, V_h, \quad
        Y_h = \mathrm{softmax}_m(s\, K_h Q_h^\top)\, Z_h, \quad
        x' = W\,[Y_1 \dots Y_H]

    Q holds M learned latents a head. Points are a set: the layer is equivariant to their order and
    uses no `edge_index`. Clouds of a batch do not see each other and are never padded.

    Args:
        in_channels: width of x.
        out_channels: width of the result; as x if None. Must be divisible by `heads`.
        heads: number H of heads.
        num_latents: number M of latents a head.
        kv_layers: inner layers of the K and V residual MLPs, one number or (K, V); -1 makes each a
            single linear with a skip.
        scale: factor s of the scores; the paper's is 1.
        qk_norm: whether queries and keys are normalised over the head width.
        queries: ``"learned"``: the latents are parameters, the same for every cloud.
        init: ``"paper"`` as published, ``"default"`` PyTorch's linears and latents N(0, 1), which
            learns much faster on a small budget.
        backend: see :func:`flare_geo.ops.flare_attention`.
        kv_channels: hidden widths of the K and V MLPs, one number or (K, V); as out if None.
        act: activation of the K and V MLPs.
        norm: kind of the norm that `qk_norm` uses.

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

    merges = (merge_encodings,)

    def __init__(
        self,
        in_channels: int,
        out_channels: int | None = None,
        heads: int = 8,
        num_latents: int = 64,
        *,
        kv_layers: int | tuple[int, int] = 3,
        scale: float = 1.0,
        qk_norm: bool = False,
        queries: Literal["learned"] = "learned",
        init: Init = "paper",
        backend: str = "auto",
        kv_channels: int | tuple[int, int] | None = None,
        act: Activation = "gelu_tanh",
        norm: Norm = "layer",
    ) -> None:
        super().__init__()
        out_channels = in_channels if out_channels is None else out_channels
        if heads < 1 or out_channels % heads:
            raise ValueError(
                f"out_channels must be divisible by heads, got {out_channels} and {heads}"
            )
        if num_latents < 1:
            raise ValueError(f"num_latents must be at least 1, got {num_latents}")
        if queries != "learned":
            raise ValueError(f"queries must be 'learned', got '{queries}'")
        self.in_channels, self.out_channels = in_channels, out_channels
        self.heads, self.num_latents = heads, num_latents
        self.scale, self.init, self.backend = scale, init, backend
        width = out_channels // heads
        layers = (kv_layers, kv_layers) if isinstance(kv_layers, int) else kv_layers
        hidden = kv_channels if isinstance(kv_channels, (tuple, list)) else (kv_channels,) * 2
        self.q = nn.Parameter(Tensor(heads, num_latents, width))
        self.k_mlp = ResidualMLP(
            in_channels, out_channels, hidden[0], layers[0], act=act, backend=backend
        )
        self.v_mlp = ResidualMLP(
            in_channels, out_channels, hidden[1], layers[1], act=act, backend=backend
        )
        self.q_norm = make_norm(norm, width) if qk_norm else nn.Identity()
        self.k_norm = make_norm(norm, width) if qk_norm else nn.Identity()
        self.lin_out = nn.Linear(out_channels, out_channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all parameters anew, as `init` says."""
        reset_linears(self, self.init)
        nn.init.normal_(self.q, std=LATENT_STD[self.init])

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        ptr: Tensor | Layout | None = None,
        batch: Tensor | None = None,
        pos: Tensor | None = None,
    ) -> Tensor:
        """Mix the points of each cloud: `[N, in_channels]` to `[N, out_channels]`."""
        layout = layout_of(x, self.in_channels, ptr, batch)
        k, v = apply_together([self.k_mlp, self.v_mlp], x)
        q, k, v = self._heads(k, v)
        if self.join is None:
            y = flare_attention(q, k, v, layout, scale=self.scale, backend=self.backend)
        else:
            z, _ = self.joined(
                flare_encode(q, k, v, layout, scale=self.scale, backend=self.backend)
            )
            y = flare_decode(q, k, z, layout, scale=self.scale, backend=self.backend)
        return self._out(y)

    def encode(
        self, x: Tensor, ptr: Tensor | Layout | None = None, states: Sequence[State] = ()
    ) -> State:
        """First half: what :func:`flare_geo.ops.merge_encodings` joins for parts of clouds.

        Shapes:
            - **x:** `[N, in_channels]`; **returns** z `[B, H, M, D]` and lse `[B, H, M]`
        """
        layout = layout_of(x, self.in_channels, ptr)
        q, k, v = self._heads(*apply_together([self.k_mlp, self.v_mlp], x))
        return flare_encode(q, k, v, layout, scale=self.scale, backend=self.backend)

    def decode(
        self, x: Tensor, states: Sequence[State], ptr: Tensor | Layout | None = None
    ) -> Tensor:
        """Second half, pointwise: x may be other points than those that were encoded.

        Shapes:
            - **x:** `[N, in_channels]`; **states:** one pair (z, lse); **returns**
              `[N, out_channels]`
        """
        layout = layout_of(x, self.in_channels, ptr)
        k = self.k_mlp(x)
        q, k, _ = self._heads(k, k)
        z = states[0][0].to(k.dtype)
        return self._out(flare_decode(q, k, z, layout, scale=self.scale, backend=self.backend))

    def _out(self, y: Tensor) -> Tensor:
        out: Tensor = self.lin_out(y.flatten(-2))
        return out

    def _heads(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`q [H, M, D]` and `k, v [N, H, D]` in one dtype, from the keys and values `[N, C]`."""
        heads = (self.heads, self.out_channels // self.heads)
        k, v = k.unflatten(-1, heads), v.unflatten(-1, heads)  # type: ignore[no-untyped-call]
        return self.q_norm(self.q).to(v.dtype), self.k_norm(k).to(v.dtype), v

    def extra_repr(self) -> str:
        """Sizes, for `print(model)`."""
        return (
            f"{self.in_channels}, {self.out_channels}, heads={self.heads}, "
            f"num_latents={self.num_latents}, scale={self.scale}"
        )
