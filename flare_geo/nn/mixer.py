"""Mixers whose points meet only in sums over a cloud: they can be cut anywhere and joined exactly.

A mixer is a module `forward(x, ptr=None, pos=None) -> x` in which the points of each cloud meet.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

from torch import Tensor, nn

from flare_geo.ops import Layout, Merge, State, batch_to_ptr, make_layout


class SumMixer(nn.Module):
    r"""A mixer of the form

    .. math::
        s_1 = \sum_n f_1(x_n), \qquad s_2 = \sum_n f_2(x_n, s_1), \qquad \dots \qquad
        y_n = g(x_n, s_1, s_2, \dots)

    where a sum is over the points of a cloud, plain or divided by another one (a softmax over
    points). So the points can come chunk by chunk (`flare_geo.nn.surrogate.streaming`) or be spread
    over ranks (`flare_geo.distributed`), and `g` answers at points that no sum has seen.

    A subclass says `in_channels`, `merges`, :meth:`encode` and :meth:`decode`; one that would
    compute something twice that way has a :meth:`forward` of its own, which calls :meth:`joined`
    on each state.
    """

    merges: ClassVar[tuple[Merge, ...]]
    """How the states of parts are joined, one function a sum: their number is that of the sums."""

    in_channels: int

    join: Callable[[Merge, State], State] | None = None
    """Handed in where the points of a cloud are spread: joins a state with those of the others."""

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
        """The state of whole clouds, from that of the points which are here."""
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
    """Width D of each of the heads.

    Raises:
        ValueError: if the channels cannot be shared out evenly.
    """
    if heads < 1 or channels % heads:
        raise ValueError(f"channels must be divisible by heads, got {channels} and {heads}")
    return channels // heads
