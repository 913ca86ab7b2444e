"""The block of FLARE."""

from torch import Tensor, nn

from flare_geo.nn.block import Block
from flare_geo.nn.flare.conv import FlareConv
from flare_geo.nn.flare.fused import Fused, cpp_block
from flare_geo.nn.flare.heads import FlareHeads
from flare_geo.nn.mixer import layout_of
from flare_geo.nn.mlp import ResidualMLP, reset_linears
from flare_geo.ops import Layout


class FlareBlock(Block):
    r"""Block of `FLARE <https://arxiv.org/abs/2508.12594>`_, made of built parts.

    Args:
        channels: width of x.
        mixer: mixes the points; None: ``FlareConv(channels)``.
        mlp: the feed-forward network; None: ``ResidualMLP(channels)``, started as the paper's.
        norm1: before the mixer; None: LayerNorm.
        norm2: before the MLP; None: LayerNorm.
        fused: called with the parts, x and the layout before these are run one by one; computes
            the whole block, or returns None where it cannot.

    Shapes:
        - **x:** `[N, channels]`; **ptr:** `[B+1]` or **batch:** `[N]`; **returns** `[N, channels]`

    Example:
        >>> block = FlareBlock(64, FlareConv(64, heads=4, num_latents=32))
        >>> block(torch.randn(500, 64), ptr=torch.tensor([0, 200, 500])).shape
        torch.Size([500, 64])
    """

    def __init__(
        self,
        channels: int,
        mixer: nn.Module | None = None,
        mlp: nn.Module | None = None,
        norm1: nn.Module | None = None,
        norm2: nn.Module | None = None,
        *,
        fused: Fused | None = None,
    ) -> None:
        if mlp is None:
            mlp = ResidualMLP(channels)
            reset_linears(mlp, "paper")
        super().__init__(
            FlareConv(channels) if mixer is None else mixer,
            mlp,
            nn.LayerNorm(channels) if norm1 is None else norm1,
            nn.LayerNorm(channels) if norm2 is None else norm2,
        )
        self.channels, self.fused = channels, fused

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        ptr: Tensor | Layout | None = None,
        batch: Tensor | None = None,
        pos: Tensor | None = None,
    ) -> Tensor:
        """`[N, channels]` to `[N, channels]`."""
        layout = layout_of(x, self.channels, ptr, batch)
        if self.fused is not None:
            y = self.fused((self.norm1, self.conv, self.norm2, self.mlp), x, layout)
            if y is not None:
                return y
        return super().forward(x, layout, pos)

    @property
    def has_cpp(self) -> bool:
        """Whether there are C++ kernels for the mixer: for FLARE of some head widths."""
        from flare_geo.ops import cpp

        return isinstance(self.conv, FlareHeads) and self.conv.width in cpp.WIDTHS

    def take_cpp(self) -> None:
        """Run as one C++ operator where that does what the block does, else by what kernels there
        are for the parts; nothing changes where another backend was asked for.
        """
        for part in (self.conv, self.mlp):
            if isinstance(part, (FlareHeads, ResidualMLP)):
                part.take_cpp()
        if isinstance(self.conv, FlareConv) and self.conv.backend == "cpp":
            self.fused = cpp_block
