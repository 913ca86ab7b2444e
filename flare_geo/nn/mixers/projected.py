"""What the attentions without softmax have in common: projections, norm, output."""

from collections.abc import Sequence

from torch import Tensor, nn

from flare_geo.nn.mixer import SumMixer, head_width
from flare_geo.nn.mlp import ResidualMLP, apply_together
from flare_geo.ops import merge_sums


class ProjectedMixer(SumMixer):
    """Residual projections of x into heads before, a norm and a linear behind what a subclass does.

    Args:
        channels: width C, divisible by `heads`.
        heads: number H of heads, of width D = C / H.
        names: of the projections.
        num_layers: inner layers of each projection; -1 is `x + W x`.
    """

    merges = (merge_sums,)

    def __init__(
        self, channels: int, heads: int, names: Sequence[str], *, num_layers: int = -1
    ) -> None:
        super().__init__()
        self.in_channels, self.heads = channels, heads
        self.width = head_width(channels, heads)
        self.mlps = nn.ModuleDict(
            {name: ResidualMLP(channels, num_layers=num_layers) for name in names}
        )
        self.norm = nn.LayerNorm(channels)
        self.lin_out = nn.Linear(channels, channels)

    def project(self, x: Tensor, *names: str) -> list[Tensor]:
        """`[N, H, D]` of each name."""
        mlps: list[ResidualMLP] = [self.mlps[name] for name in names]  # type: ignore[misc]
        shape = (x.shape[0], self.heads, self.width)
        return [y.view(shape) for y in apply_together(mlps, x)]

    def finish(self, y: Tensor, x: Tensor) -> Tensor:
        """`[N, H, D]` to `[N, channels]`, in the dtype of x."""
        out: Tensor = self.lin_out(self.norm(y.to(x.dtype).flatten(1)))
        return out
