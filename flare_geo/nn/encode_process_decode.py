"""What models have in common that encode the points to latents, process these, and decode."""

from collections.abc import Iterable, Sequence

from torch import Tensor, nn

from flare_geo.nn.block import Block
from flare_geo.nn.mixer import SumMixer
from flare_geo.nn.mixers.softmax import SoftmaxAttention
from flare_geo.ops import Layout, State, equal_layout


class BareBlock(Block):
    """A mixer in the place of a block, without norm, residual and MLP around it.

    A model whose points meet in sums alone streams and shards with it, see
    :mod:`flare_geo.nn.surrogate.streaming`.
    """

    def __init__(self, mixer: SumMixer) -> None:
        nn.Module.__init__(self)
        self.conv = mixer

    def forward(
        self, x: Tensor, ptr: Tensor | Layout | None = None, pos: Tensor | None = None
    ) -> Tensor:
        """The mixer itself."""
        y: Tensor = self.conv(x, ptr, pos=pos)
        return y

    def encode(
        self, x: Tensor, ptr: Tensor | Layout | None = None, states: Sequence[State] = ()
    ) -> State:
        """The next state of the mixer."""
        return self.sums.encode(x, ptr, states)

    def decode(
        self, x: Tensor, states: Sequence[State], ptr: Tensor | Layout | None = None
    ) -> Tensor:
        """The answer of the mixer."""
        return self.sums.decode(x, states, ptr)


def latent_block(channels: int, heads: int, mlp: nn.Module, *, qkv_bias: bool = True) -> Block:
    """Transformer block for latents."""
    attention = SoftmaxAttention(channels, heads, qkv_bias=qkv_bias)
    return Block(attention, mlp, nn.LayerNorm(channels), nn.LayerNorm(channels))


def process(blocks: Iterable[nn.Module], z: Tensor) -> Tensor:
    """Latents `[B, M, C]` through blocks: those of a cloud see each other, none sees another's."""
    layout = equal_layout(z.shape[0], z.shape[1], z.device)
    flat = z.flatten(0, 1)
    for block in blocks:
        flat = block(flat, layout)
    return flat.view_as(z)
