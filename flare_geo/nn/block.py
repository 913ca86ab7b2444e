"""The one residual block: a mixer and a feed-forward network, each behind a norm."""

from torch import Tensor, nn

from flare_geo.nn.cpp_block import cpp_block
from flare_geo.nn.flare_conv import FlareConv, layout_of
from flare_geo.nn.mlp import Init, ResidualMLP, reset_linears
from flare_geo.nn.norm import Norm, make_norm
from flare_geo.ops import Layout
from flare_geo.ops.chain import Activation


class FlareBlock(nn.Module):
    r"""Pre-norm residual block of `FLARE <https://arxiv.org/abs/2508.12594>`_.

    .. math::
        x \leftarrow x + \mathrm{FlareConv}(\mathrm{norm}_1(x)), \qquad
        x \leftarrow x + \mathrm{MLP}(\mathrm{norm}_2(x))

    Args:
        channels: width of x.
        heads: number H of heads.
        num_latents: number M of latents a head.
        kv_layers: see :class:`FlareConv`.
        ffn_layers: inner layers of the feed-forward residual MLP.
        kv_channels: hidden widths of the K and V MLPs; `channels` if None.
        ffn_channels: hidden width of the feed-forward MLP; `channels` if None.
        scale: factor of the scores.
        qk_norm: whether queries and keys are normalised.
        act: activation of all MLPs.
        norm: ``"layer"`` or ``"rms"``.
        init: ``"paper"`` or ``"default"``.
        backend: see :func:`flare_geo.ops.flare_attention`.

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
        kv_layers: int | tuple[int, int] = 3,
        ffn_layers: int = 3,
        kv_channels: int | tuple[int, int] | None = None,
        ffn_channels: int | None = None,
        scale: float = 1.0,
        qk_norm: bool = False,
        act: Activation = "gelu_tanh",
        norm: Norm = "layer",
        init: Init = "paper",
        backend: str = "auto",
    ) -> None:
        super().__init__()
        self.norm1 = make_norm(norm, channels)
        self.conv = FlareConv(
            channels,
            heads=heads,
            num_latents=num_latents,
            kv_layers=kv_layers,
            scale=scale,
            qk_norm=qk_norm,
            init=init,
            backend=backend,
            kv_channels=kv_channels,
            act=act,
            norm=norm,
        )
        self.norm2 = make_norm(norm, channels)
        self.mlp = ResidualMLP(
            channels, channels, ffn_channels, ffn_layers, act=act, backend=backend
        )
        reset_linears(self.mlp, init)

    def forward(
        self, x: Tensor, ptr: Tensor | Layout | None = None, batch: Tensor | None = None
    ) -> Tensor:
        """`[N, channels]` to `[N, channels]`."""
        layout = layout_of(x, self.conv.in_channels, ptr, batch)
        if self.conv.backend == "cpp" and (y := cpp_block(self, x, layout)) is not None:
            return y
        x = x + self.conv(self.norm1(x), layout)
        x = x + self.mlp(self.norm2(x))
        return x

    def encode(
        self, x: Tensor, ptr: Tensor | Layout | None = None, batch: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """`z [B, H, M, D]` and `lse [B, H, M]` of the mixer, see :meth:`FlareConv.encode`."""
        return self.conv.encode(self.norm1(x), ptr, batch)

    def decode(
        self,
        x: Tensor,
        z: Tensor,
        ptr: Tensor | Layout | None = None,
        batch: Tensor | None = None,
    ) -> Tensor:
        """What :meth:`forward` gives for points of clouds whose latents are known: pointwise."""
        x = x + self.conv.decode(self.norm1(x), z, ptr, batch)
        x = x + self.mlp(self.norm2(x))
        return x
