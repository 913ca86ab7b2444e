"""The heads of FLARE: latent queries, keys and values of the points, and the linear behind them."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, Self

from torch import Tensor, nn

from flare_geo.nn.flare.queries import ConditionedQueries, start_near_identity
from flare_geo.nn.latent_blocks import LatentBlocks
from flare_geo.nn.mixer import SumMixer, head_width
from flare_geo.nn.mlp import Init, ResidualMLP, apply_together, reset_linears
from flare_geo.nn.norm import RMS_EPS, Norm, make_norm
from flare_geo.ops import State
from flare_geo.ops.residual_mlp import Activation

Queries = Literal["learned", "shared", "conditioned"]


class Variant(NamedTuple):
    """What the paper of a kind of queries has: all that the kind decides."""

    kv_layers: int
    """Inner layers of the K and V residual MLPs."""
    kv_skips: bool
    """Whether these have their outer skips; linears without them start near the identity."""
    scale_power: float
    """The factor of the scores is the head width D to this power."""
    qk_norm: bool
    """Whether queries and keys are normalised."""
    q_affine: bool
    """Whether the norm of the queries has weights."""
    rms_eps: float
    """RMSNorm epsilon used throughout a model, by kind of query."""
    latent_std: Mapping[str, float]
    """Standard deviation of the latents at the start, by `init`."""


LEARNED = Variant(3, True, 0.0, False, True, RMS_EPS, {"paper": 0.1, "default": 1.0})
CONDITIONED = Variant(-1, False, -0.5, True, False, 1e-6, {"paper": 0.02, "default": 0.02})
VARIANTS = {"learned": LEARNED, "shared": LEARNED, "conditioned": CONDITIONED}


def variant_of(queries: str, kinds: Sequence[str] = tuple(VARIANTS)) -> Variant:
    """What the paper of a kind of queries has.

    Raises:
        ValueError: if `queries` is not one of the kinds.
    """
    if queries not in kinds:
        names = " or ".join(f"'{name}'" for name in kinds)
        raise ValueError(f"queries must be {names}, got '{queries}'")
    return VARIANTS[queries]


class FlareHeads(nn.Module):
    """What FLARE and its causal form share: weights, and queries, keys and values made with them.

    The arguments are those of :class:`flare_geo.nn.FlareConv`.
    """

    kinds: ClassVar[tuple[str, ...]] = tuple(VARIANTS)
    """The kinds of queries that the layer can have."""

    options: ClassVar[tuple[str, ...]] = (
        *("num_latents", "kv_layers", "scale", "qk_norm", "queries", "init", "backend"),
        *("kv_channels", "act", "norm", "shared_latents", "gating"),
    )
    """What :meth:`from_options` takes."""

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
        queries: Queries | ConditionedQueries = "learned",
        init: Init = "paper",
        backend: str = "auto",
        kv_channels: int | tuple[int, int] | None = None,
        act: Activation = "gelu_tanh",
        norm: Norm = "layer",
        gate: nn.Module | None = None,
        latents: nn.Module | None = None,
    ) -> None:
        super().__init__()
        out_channels = in_channels if out_channels is None else out_channels
        width = head_width(out_channels, heads)
        if num_latents < 1:
            raise ValueError(f"num_latents must be at least 1, got {num_latents}")
        kind = queries if isinstance(queries, str) else "conditioned"
        if latents is not None and not isinstance(self, SumMixer):
            raise ValueError("latents process the encoding of a whole cloud; here there is none")
        variant = variant_of(kind, self.kinds)
        self.in_channels, self.out_channels = in_channels, out_channels
        self.heads, self.num_latents, self.width = heads, num_latents, width
        self.scale: float = width**variant.scale_power if scale is None else scale
        self.init, self.backend, self.latent_std = init, backend, variant.latent_std
        self.q = nn.Parameter(Tensor(1 if kind == "shared" else heads, num_latents, width))
        self.kv_is_plain = kv_layers is None and not variant.kv_skips
        sizes = (in_channels, out_channels)
        self.k_mlp, self.v_mlp = (
            _projection(variant, *sizes, kv_layers, kv_channels, which, act) for which in range(2)
        )
        self.g_mlp = gate
        normed = variant.qk_norm if qk_norm is None else qk_norm
        self.q_norm, self.k_norm = (
            make_norm(norm, width, rms_eps=variant.rms_eps, affine=affine)
            if normed
            else nn.Identity()
            for affine in (variant.q_affine, True)
        )
        if queries == "conditioned":
            queries = ConditionedQueries(
                in_channels, heads, width, num_latents, scale=self.scale, norm=norm
            )
        self.conditioned = None if isinstance(queries, str) else queries
        if self.conditioned is not None and self.conditioned.q0.shape != self.q.shape:
            raise ValueError(
                f"queries must be for [H, M, D] = {list(self.q.shape)}, got "
                f"{list(self.conditioned.q0.shape)}"
            )
        self.latent_blocks = latents
        self.lin_out = nn.Linear(out_channels, out_channels)
        self.reset_parameters()
        if backend == "cpp":
            self.take_cpp()

    @classmethod
    def from_options(cls, channels: int, heads: int, options: Mapping[str, Any]) -> Self:
        """A layer from options that JSON can hold: numbers, words and flags in place of parts.

        Args:
            channels: width of x and of the result.
            heads: number H of heads.
            options: some of :attr:`options`: arguments of the layer; `gating` for a gate that is a
                residual MLP like that of K; `num_latent_blocks` for :class:`LatentBlocks`;
                `share_k0_v0` for :class:`ConditionedQueries`; `shared_latents`, which older
                checkpoints have in place of ``queries="shared"``.
        """
        given = dict(options)
        if given.pop("shared_latents", False):
            if given.get("queries", "learned") == "conditioned":
                raise ValueError("shared_latents is for queries='learned', got 'conditioned'")
            given["queries"] = "shared"
        kind = given.get("queries", "learned")
        if not given.pop("share_k0_v0", True):
            if kind != "conditioned":
                raise ValueError(f"share_k0_v0 is for queries='conditioned', got '{kind}'")
            given["queries"] = ConditionedQueries(
                channels,
                heads,
                head_width(channels, heads),
                given.get("num_latents", 64),
                scale=given.get("scale"),
                norm=given.get("norm", "layer"),
                share_k0_v0=False,
            )
        if given.pop("gating", False):
            layers, hidden = given.get("kv_layers"), given.get("kv_channels")
            act = given.get("act", "gelu_tanh")
            given["gate"] = _projection(VARIANTS[kind], channels, channels, layers, hidden, 0, act)
        if count := given.pop("num_latent_blocks", 0):
            given["latents"] = LatentBlocks(channels, heads, count)
        return cls(channels, heads=heads, **given)

    def reset_parameters(self) -> None:
        """Draw all parameters anew, as `init` says."""
        reset_linears(self, self.init)
        if self.conditioned is not None:
            self.conditioned.reset_parameters()
        nn.init.normal_(self.q, std=self.latent_std[self.init])
        for mlp in (self.k_mlp, self.v_mlp) if self.kv_is_plain else ():
            start_near_identity(mlp.lin_out)

    def take_cpp(self) -> None:
        """Let the residual MLPs take the C++ kernels where these fit a call."""
        for module in self.modules():
            if isinstance(module, ResidualMLP):
                module.take_cpp()

    def heads_of(
        self, x: Tensor, states: Sequence[State] = (), values: bool = True
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries `[H, M, D]`, or `[B, H, M, D]` that the first of the states makes, and keys and
        values `[N, H, D]`, in one dtype; without values the keys stand for them.
        """
        mlps = [self.k_mlp, self.v_mlp] if values else [self.k_mlp]
        shape = (self.heads, self.width)
        points = [y.unflatten(-1, shape) for y in apply_together(mlps, x)]  # type: ignore[no-untyped-call]
        k, v = points[0], points[-1]
        q = self.q_norm(self.q.expand(self.heads, -1, -1))
        if self.conditioned is not None:
            q = self.conditioned(q, states[0][0])
        return q.to(v.dtype), self.k_norm(k).to(v.dtype), v

    def output(self, y: Tensor, x: Tensor) -> Tensor:
        """The gate and the linear behind: `[N, H, D]` to `[N, out_channels]`."""
        y = y.flatten(-2)
        if self.g_mlp is not None:
            y = y * self.g_mlp(x).sigmoid()
        out: Tensor = self.lin_out(y)
        return out

    def extra_repr(self) -> str:
        """Sizes, for `print(model)`."""
        return (
            f"{self.in_channels}, {self.out_channels}, heads={self.heads}, "
            f"num_latents={self.num_latents}, scale={self.scale}"
        )


def _projection(
    variant: Variant,
    in_channels: int,
    out_channels: int,
    layers: int | tuple[int, int] | None,
    hidden: int | tuple[int, int] | None,
    which: int,
    act: Activation,
) -> ResidualMLP:
    """The residual MLP of K (`which` is 0) or V (1)."""
    depth, width = (
        pair[which] if isinstance(pair, (tuple, list)) else pair for pair in (layers, hidden)
    )
    skips = variant.kv_skips or layers is not None
    return ResidualMLP(
        in_channels,
        out_channels,
        width,
        variant.kv_layers if depth is None else depth,
        act=act,
        input_residual=skips,
        output_residual=skips,
    )
