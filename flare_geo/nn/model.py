"""What a surrogate can hold and `flare-geo train` can train."""

from typing import Any

from torch import Tensor, nn

from flare_geo.ops import Layout


class PointModel(nn.Module):
    """A model from point features to point features; subclass it to train your own from a YAML.

    A YAML names the class (`model: {class_path: my_package.MyModel}`); it is called with the
    numbers of input and output channels and the options of the YAML.

    Shapes:
        - **x:** `[N, in_channels]`, the points of all clouds end to end; **ptr:** `[B+1]`
        - **returns** `[N, out_channels]`
    """

    config: dict[str, Any] | None = None
    """Constructor arguments, for `config.json`."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels

    def forward(
        self, x: Tensor, ptr: Tensor | Layout | None = None, batch: Tensor | None = None
    ) -> Tensor:
        """Predict at every point."""
        raise TypeError(f"{type(self).__name__} has no forward(x, ptr)")
