"""What a surrogate can hold and `flare-geo train` can train."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from flare_geo.arguments import remembers_arguments
from flare_geo.nn.compile import compile_blocks
from flare_geo.nn.mixer import layout_of
from flare_geo.ops import Layout


@remembers_arguments
class PointModel(nn.Module):
    """A model from point features to point features; subclass it to train your own from a YAML.

    A YAML names the class (`model: {class_path: my_package.MyModel}`); it is called with the
    numbers of input and output channels and the options of the YAML.

    Shapes:
        - **x:** `[N, in_channels]`, the points of all clouds end to end; **ptr:** `[B+1]`
        - **returns** `[N, out_channels]`
    """

    config: dict[str, Any]
    """The arguments of the constructor, for `config.json`; remembered for every subclass."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """A fresh model from the arguments that a checkpoint of this or an older revision kept."""
        return cls(**config)

    def forward(
        self, x: Tensor, ptr: Tensor | Layout | None = None, batch: Tensor | None = None
    ) -> Tensor:
        """Predict at every point."""
        raise TypeError(f"{type(self).__name__} has no forward(x, ptr)")


class BlockModel(PointModel):
    """An embedding, blocks, a head: :meth:`begin` and :meth:`end` are pointwise, points interact
    only in the mixers of the blocks. A subclass fills `blocks`.
    """

    blocks: nn.ModuleList
    """Each is a :class:`flare_geo.nn.block.Block`."""

    num_passes = 1
    """How many times the points go through all blocks."""

    checkpoint_blocks = False
    """Whether the backward pass computes each block once more from its input."""

    @property
    def sequence(self) -> list[nn.Module]:
        """The blocks in the order in which the points go through them, some of them repeatedly."""
        return [*self.blocks] * self.num_passes

    @abstractmethod
    def begin(self, x: Tensor) -> Tensor:
        """`[N, in_channels]` to `[N, C]`."""

    @abstractmethod
    def end(self, h: Tensor) -> Tensor:
        """`[N, C]` to `[N, out_channels]`."""

    def forward(
        self, x: Tensor, ptr: Tensor | Layout | None = None, batch: Tensor | None = None
    ) -> Tensor:
        """`[N, in_channels]` to `[N, out_channels]`."""
        layout = layout_of(x, self.in_channels, ptr, batch)
        h = self.begin(x)
        for block in self.sequence:
            if self.checkpoint_blocks and torch.is_grad_enabled():
                h = checkpoint(block, h, layout, pos=x, use_reentrant=False)
            else:
                h = block(h, layout, pos=x)
        return self.end(h)

    def compile(self, *, dynamic: bool | None = True, **options: Any) -> None:
        """Make the blocks faster, in place, see :func:`flare_geo.nn.compile.compile_blocks`.

        Embedding and head, a small part of the work, stay as they are.

        Raises:
            RuntimeError: if there is no compiler; says what to do.
        """
        compile_blocks(self.blocks, dynamic=dynamic, **options)
