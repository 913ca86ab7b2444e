"""The one residual block: a mixer and a feed-forward network, each behind a norm."""

from collections.abc import Sequence

from torch import Tensor, nn

from flare_geo.nn.cpp_block import cpp_block
from flare_geo.nn.flare_conv import RMS_EPS_OF, FlareConv, Queries
from flare_geo.nn.mixer import SumMixer, layout_of
from flare_geo.nn.mlp import Init, ResidualMLP, reset_linears
from flare_geo.nn.norm import Norm, make_norm
from flare_geo.ops import Layout, State
from flare_geo.ops.residual_mlp import Activation


class Block(nn.Module):
    r"""Pre-norm residual block around any mixer.

    .. math::
        x \leftarrow x + \mathrm{mixer}(\mathrm{norm}_1(x)), \qquad
        x \leftarrow x + \mathrm{MLP}(\mathrm{norm}_2(x))

    Args:
        mixer: called with x, `ptr` and `pos`.
        mlp: pointwise.
        norm1: before the mixer.
        norm2: before the MLP.

    Shapes:
        - **x:** `[N, C]`; **ptr:** `[B+1]`; **pos:** `[N, d]`, for mixers that want it;
          **returns** `[N, C]`
    """

    def __init__(self, mixer: nn.Module, mlp: nn.Module, norm1: nn.Module, norm2: nn.Module):
        super().__init__()
        self.norm1, self.conv, self.norm2, self.mlp = norm1, mixer, norm2, mlp

    def forward(
        self, x: Tensor, ptr: Tensor | Layout | None = None, pos: Tensor | None = None
    ) -> Tensor:
        """`[N, C]` to `[N, C]`."""
        x = x + self.conv(self.norm1(x), ptr, pos=pos)
        x = x + self.mlp(self.norm2(x))
        return x

    @property
    def sums(self) -> SumMixer:
        """The mixer, where it can be cut.

        Raises:
            ValueError: if its points meet in other ways than in sums.
        """
        if not isinstance(self.conv, SumMixer) or not self.conv.merges:
            raise ValueError(
                f"the points of a {type(self.conv).__name__} meet pair by pair, or in order: it "
                "can be neither cut into chunks nor spread over ranks"
            )
        return self.conv

    def encode(
        self, x: Tensor, ptr: Tensor | Layout | None = None, states: Sequence[State] = ()
    ) -> State:
        """The next state of the mixer, see :meth:`flare_geo.nn.mixer.SumMixer.encode`."""
        return self.sums.encode(self.norm1(x), ptr, states)

    def decode(
        self, x: Tensor, states: Sequence[State], ptr: Tensor | Layout | None = None
    ) -> Tensor:
        """What :meth:`forward` gives for points of clouds whose states are known: pointwise."""
        x = x + self.sums.decode(self.norm1(x), states, ptr)
        x = x + self.mlp(self.norm2(x))
        return x


class FlareBlock(Block):
    r"""Block of `FLARE <https://arxiv.org/abs/2508.12594>`_: :class:`FlareConv` and a residual MLP.

    Args:
        channels: width of x.
        heads: number H of heads.
        num_latents: number M of latents a head.
        kv_layers: as the other options with no further word, see :class:`FlareConv`.
        ffn_layers: inner layers of the feed-forward residual MLP.
        kv_channels: hidden widths of the K and V MLPs; `channels` if None.
        ffn_channels: hidden width of the feed-forward MLP; `channels` if None.
        scale: factor of the scores.
        qk_norm: whether queries and keys are normalised.
        act: activation of all MLPs.
        norm: ``"layer"`` or ``"rms"``.
        init: ``"paper"`` or ``"default"``.
        backend: see :func:`flare_geo.ops.flare_attention`.
        ffn_act: activation of the feed-forward MLP; `act` if None.
        queries: see :class:`FlareConv`.
        mixer: another mixer in place of that FlareConv.
        mlp: another feed-forward network, for blocks that share one.

    Shapes:
        - **x:** `[N, channels]`; **ptr:** `[B+1]` or **batch:** `[N]`; **returns** `[N, channels]`

    Example:
        >>> FlareBlock(64)(torch.randn(500, 64), ptr=torch.tensor([0, 200, 500])).shape
        torch.Size([500, 64])
    """

    def __init__(
        self,
        channels: int,
        heads: int = 8,
        num_latents: int = 64,
        *,
        kv_layers: int | tuple[int, int] | None = None,
        ffn_layers: int = 3,
        kv_channels: int | tuple[int, int] | None = None,
        ffn_channels: int | None = None,
        scale: float | None = None,
        qk_norm: bool | None = None,
        act: Activation = "gelu_tanh",
        norm: Norm = "layer",
        init: Init = "paper",
        backend: str = "auto",
        ffn_act: Activation | None = None,
        queries: Queries = "learned",
        mixer: nn.Module | None = None,
        mlp: nn.Module | None = None,
    ) -> None:
        conv = mixer or FlareConv(
            channels,
            heads=heads,
            num_latents=num_latents,
            kv_layers=kv_layers,
            scale=scale,
            qk_norm=qk_norm,
            queries=queries,
            init=init,
            backend=backend,
            kv_channels=kv_channels,
            act=act,
            norm=norm,
        )
        if mlp is None:
            mlp = ResidualMLP(
                channels, channels, ffn_channels, ffn_layers, act=ffn_act or act, backend=backend
            )
            reset_linears(mlp, init)
        norm1, norm2 = (make_norm(norm, channels, rms_eps=RMS_EPS_OF[queries]) for _ in range(2))
        super().__init__(conv, mlp, norm1, norm2)
        self.channels = channels

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        ptr: Tensor | Layout | None = None,
        batch: Tensor | None = None,
        pos: Tensor | None = None,
    ) -> Tensor:
        """`[N, channels]` to `[N, channels]`."""
        layout = layout_of(x, self.channels, ptr, batch)
        if isinstance(self.conv, FlareConv) and self.conv.backend == "cpp":
            y = cpp_block(self, x, layout)
            if y is not None:
                return y
        return super().forward(x, layout, pos)
