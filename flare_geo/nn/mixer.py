"""Mixers whose points interact only through reductions over a cloud: chunks of it merge exactly.

A mixer is a module `forward(x, ptr=None, pos=None) -> x`; in it the points of each cloud interact.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence

from torch import Tensor, nn

from flare_geo.ops import Layout, Merge, State, batch_to_ptr, make_layout


class SumMixer(nn.Module):
    r"""A mixer of the form

    .. math::
        s_1 = \sum_n f_1(x_n), \qquad s_2 = \sum_n f_2(x_n, s_1), \qquad \dots \qquad
        y_n = g(x_n, s_1, s_2, \dots)

    where each sum is over the points of a cloud, plain or divided by another sum (a softmax over
    points). So the points can come chunk by chunk (`flare_geo.nn.surrogate.streaming`) or be
    sharded over ranks (`flare_geo.distributed`), and `g` answers at points that were in no sum.

    A subclass defines `in_channels`, `merges`, :meth:`encode` and :meth:`decode`; one that would
    compute something twice that way has a :meth:`forward` of its own, which calls :meth:`joined`
    on each state.
    """

    in_channels: int

    join: Callable[[Merge, State], State] | None = None
    """Set where a cloud is sharded: merges the state of this rank with those of the others."""

    @property
    @abstractmethod
    def merges(self) -> tuple[Merge, ...]:
        """One merge function per reduction, in order."""

    @abstractmethod
    def encode(
        self, x: Tensor, ptr: Tensor | Layout | None = None, states: Sequence[State] = ()
    ) -> State:
        """The next state `[B, ...]` of each cloud, after those in `states`.

        A cloud without points has the state that changes no other.
        """

    @abstractmethod
    def decode(
        self, x: Tensor, states: Sequence[State], ptr: Tensor | Layout | None = None
    ) -> Tensor:
        """`[N, out_channels]` at the points x of clouds whose states are known: pointwise."""

    def forward(
        self, x: Tensor, ptr: Tensor | Layout | None = None, pos: Tensor | None = None
    ) -> Tensor:
        """Mix the points of each cloud: `[N, in_channels]` to `[N, out_channels]`."""
        layout = layout_of(x, self.in_channels, ptr)
        states: list[State] = []
        for _ in self.merges:
            states.append(self.joined(self.encode(x, layout, states), len(states)))
        return self.decode(x, states, layout)

    def joined(self, state: State, index: int = 0) -> State:
        """The state of whole clouds, from the state of the points on this rank."""
        return state if self.join is None else self.join(self.merges[index], state)


def layout_of(
    x: Tensor, in_channels: int, ptr: Tensor | Layout | None, batch: Tensor | None = None
) -> Layout:
    """The checked clouds of `x [N, in_channels]`, from `ptr` or from a sorted `batch`.

    Raises:
        ValueError: if x has another width, `ptr` does not fit N, or both are given.
    """
    if x.ndim != 2 or x.shape[1] != in_channels:
        raise ValueError(f"x must be [N, {in_channels}], got {list(x.shape)}")
    if batch is not None:
        if ptr is not None:
            raise ValueError("give ptr or batch, not both")
        if batch.shape[0] != x.shape[0]:
            raise ValueError(f"batch must be [N={x.shape[0]}], got {list(batch.shape)}")
        ptr = batch_to_ptr(batch)
    return make_layout(ptr, x.shape[0], x.device)


def head_width(channels: int, heads: int) -> int:
    """Width D per head.

    Raises:
        ValueError: if the channels are not divisible by the heads.
    """
    if heads < 1 or channels % heads:
        raise ValueError(f"channels must be divisible by heads, got {channels} and {heads}")
    return channels // heads
