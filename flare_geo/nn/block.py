"""Residual blocks around any mixer."""

from collections.abc import Sequence

from torch import Tensor, nn

from flare_geo.nn.mixer import SumMixer
from flare_geo.ops import Layout, State


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
    def sum_mixer(self) -> SumMixer:
        """The mixer, if its points interact only through reductions (so it can be chunked or
        sharded).

        Raises:
            ValueError: if they interact in other ways.
        """
        if not isinstance(self.conv, SumMixer):
            raise ValueError(
                f"the points of a {type(self.conv).__name__} interact pair by pair, or in order: "
                "it can be neither chunked nor sharded"
            )
        return self.conv

    def encode(
        self, x: Tensor, ptr: Tensor | Layout | None = None, states: Sequence[State] = ()
    ) -> State:
        """The next state of the mixer, see :meth:`flare_geo.nn.mixer.SumMixer.encode`."""
        return self.sum_mixer.encode(self.norm1(x), ptr, states)

    def decode(
        self, x: Tensor, states: Sequence[State], ptr: Tensor | Layout | None = None
    ) -> Tensor:
        """What :meth:`forward` gives at points of clouds whose states are known: pointwise."""
        x = x + self.sum_mixer.decode(self.norm1(x), states, ptr)
        x = x + self.mlp(self.norm2(x))
        return x

    @property
    def has_cpp(self) -> bool:
        """Whether there are C++ kernels for float32 on a CPU that :meth:`take_cpp` can choose."""
        return False

    def take_cpp(self) -> None:
        """Take these C++ kernels where they fit a call."""


class BareBlock(Block):
    """A mixer in the place of a block, without norm, residual and MLP around it.

    A model whose points interact only through reductions streams and shards with it, see
    :mod:`flare_geo.nn.streaming`.
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
        return self.sum_mixer.encode(x, ptr, states)

    def decode(
        self, x: Tensor, states: Sequence[State], ptr: Tensor | Layout | None = None
    ) -> Tensor:
        """The answer of the mixer."""
        return self.sum_mixer.decode(x, states, ptr)
