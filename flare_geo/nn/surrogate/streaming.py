"""A model over points that come chunk by chunk: the same answer, memory set by the chunk.

The points of a cloud interact only through the reductions of the mixers, whose states can be
computed chunk by chunk and merged exactly (:class:`flare_geo.nn.mixer.SumMixer`). So a block needs
one sweep over its points per reduction, and everything else is pointwise. One sweep finishes a
block and begins the next one: L blocks of FLARE take L + 1 sweeps.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from flare_geo.nn.block import Block
from flare_geo.nn.mixer import layout_of
from flare_geo.nn.model import BlockModel
from flare_geo.nn.surrogate.activations import Activations, Worker, choose_activations
from flare_geo.ops import Layout, Merge, State, make_layout

Read = Callable[[slice], Tensor]
Write = Callable[[slice, Tensor], None]
States = list[list[State]]
"""Per block, the mixer states `[B, ...]`, one per reduction."""


class Chunk(NamedTuple):
    """Consecutive points, and the clouds to which they belong."""

    points: slice
    clouds: slice
    layout: Layout

    def of(self, states: Sequence[State]) -> list[State]:
        """The states of the clouds of this chunk."""
        return [tuple(tensor[self.clouds] for tensor in state) for state in states]


def chunks_of(layout: Layout, chunk_size: int) -> Iterator[Chunk]:
    """The chunks of packed clouds: every `chunk_size` points, wherever the clouds begin."""
    ends = layout.ptr.cpu()
    for start in range(0, layout.num_points, chunk_size):
        end = min(start + chunk_size, layout.num_points)
        first = int(torch.searchsorted(ends, start, right=True)) - 1
        last = int(torch.searchsorted(ends, end, right=False))
        ptr = ends[first : last + 1].clamp(start, end) - start
        inside = Layout.of(ptr.to(layout.ptr.device), tuple(ptr.diff().tolist()))
        yield Chunk(slice(start, end), slice(first, last), inside)


@torch.no_grad()
def stream(
    model: BlockModel,
    read: Read,
    write: Write | None,
    ptr: Tensor | Layout,
    *,
    chunk_size: int,
    activations: Callable[[int, Tensor], Activations] | None = None,
    progress: Callable[[float], None] | None = None,
) -> States:
    """Run a model over packed clouds of any size.

    Where the points are sharded over ranks (:func:`flare_geo.distributed.shard_points`), each rank
    streams its own shard, and the states are those of all shards.

    Args:
        model: in evaluation mode; its device is where a chunk is computed.
        read: gives the inputs `[n, in_channels]` of some points, on any device.
        write: takes the outputs `[n, out_channels]` of some points; None to encode only.
        ptr: `[B+1]` offsets of the clouds.
        chunk_size: points at a time.
        activations: makes the storage between two blocks, from N and a chunk of activations; if
            None, the device, the host or a file: the first that has the room.
        progress: is told after each chunk which share of the work is done.

    Returns:
        All that the answer at any point of these clouds depends on, for :func:`answer`.

    Raises:
        ValueError: if `chunk_size` is not positive, or the points of a mixer interact pair by pair.
        OSError: if the storage of the activations is full, or damaged.
    """
    _check(chunk_size)
    sweeps = _Sweeps(model, read, ptr, chunk_size, activations or choose_activations, progress)
    sweeps.total = sum(len(mixer.merges) for mixer in sweeps.mixers) + (write is not None)
    states: States = []
    try:
        for block, mixer in zip(sweeps.blocks, sweeps.mixers, strict=True):
            states.append([])
            for merge in mixer.merges:
                total = _Reduction(merge, block.encode(*sweeps.nothing, states[-1]))
                for chunk, h in sweeps.points(states[:-1], keep=True):
                    total.add(chunk, block.encode(h, chunk.layout, chunk.of(states[-1])))
                states[-1].append(mixer.joined(total.state, len(states[-1])))
        if write is not None:
            for chunk, h in sweeps.points(states, keep=False):
                sweeps.worker.put(write, chunk.points, model.end(h))
            sweeps.worker.wait()
    finally:
        sweeps.close()
    return states


@torch.no_grad()
def answer(
    model: BlockModel, x: Tensor, states: States, ptr: Tensor | Layout | None = None
) -> Tensor:
    """The output at any points of clouds that were encoded by :func:`stream`: encode once, decode
    anywhere. The points do not change the states: each answer depends on its own point alone.

    Shapes:
        - **x:** `[n, in_channels]`; **ptr:** `[B+1]`, as many clouds as were encoded; **returns**
          `[n, out_channels]`

    Raises:
        ValueError: if the number of clouds is another.
    """
    layout = layout_of(x, model.in_channels, ptr)
    _check_clouds(states, layout)
    h = model.begin(x)
    for block, known in zip(model.sequence, states, strict=True):
        assert isinstance(block, Block)
        h = block.decode(h, known, layout)
    return model.end(h)


def answer_stream(
    model: BlockModel,
    read: Read,
    write: Write,
    states: States,
    ptr: Tensor,
    *,
    chunk_size: int,
    progress: Callable[[float], None] | None = None,
) -> None:
    """:func:`answer` chunk by chunk; arguments as those of :func:`stream`.

    Raises:
        ValueError: if the number of clouds is another, or `chunk_size` is not positive.
    """
    _check(chunk_size)
    layout = make_layout(ptr, int(ptr[-1]), ptr.device)
    _check_clouds(states, layout)
    for chunk in chunks_of(layout, chunk_size):
        known = [chunk.of(block) for block in states]
        write(chunk.points, answer(model, read(chunk.points), known, chunk.layout))
        if progress is not None:
            progress(chunk.points.stop / layout.num_points)


def _check(chunk_size: int) -> None:
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")


def _check_clouds(states: States, layout: Layout) -> None:
    clouds = len(states[0][0][0]) if states else layout.num_clouds
    if layout.num_clouds != clouds:
        raise ValueError(f"ptr must name the {clouds} clouds encoded, got {layout.num_clouds}")


class _Sweeps:
    """Goes over all points, once per reduction and once for the answer."""

    def __init__(
        self,
        model: BlockModel,
        read: Read,
        ptr: Tensor | Layout,
        chunk_size: int,
        make_place: Callable[[int, Tensor], Activations],
        progress: Callable[[float], None] | None,
    ) -> None:
        self.model, self.read, self.make_place, self.progress = model, read, make_place, progress
        self.blocks = [block for block in model.sequence if isinstance(block, Block)]
        self.mixers = [block.sum_mixer for block in self.blocks]
        weight = next(model.parameters())
        self.device, self.total, self.swept = weight.device, 0, 0
        points = ptr.num_points if isinstance(ptr, Layout) else int(ptr[-1])
        layout = make_layout(ptr, points, self.device)
        self.chunks = list(chunks_of(layout, chunk_size))
        empty = Layout.of(torch.zeros_like(layout.ptr), (0,) * layout.num_clouds)
        width = self.mixers[0].in_channels if self.mixers else 0
        self.nothing = (weight.new_zeros(0, width), empty)
        """Points and layout of clouds without points: their state changes no other."""
        self.worker = Worker()
        self.place: Activations | None = None
        self.kept = -1
        """How many blocks lie behind the activations that are kept; -1 if there are none."""

    def points(self, states: States, keep: bool) -> Iterator[tuple[Chunk, Tensor]]:
        """Every chunk with its activations `[n, C]` behind the blocks whose states are given.

        Args:
            states: of one block more than lies behind what is kept, or of as many.
            keep: whether further sweeps read the activations.
        """
        depth, before = len(states), self.kept
        source = self.read if self.place is None else self.place.read
        at = [chunk.points for chunk in self.chunks]
        for chunk, h in zip(self.chunks, self.worker.fetch(source, at), strict=True):
            if before < 0:
                h = self.model.begin(h.to(self.device))
            elif before < depth:
                h = self.blocks[depth - 1].decode(h, chunk.of(states[-1]), chunk.layout)
            if keep and before < depth:
                if self.place is None:
                    self.place = self.make_place(self.chunks[-1].points.stop, h)
                self.worker.put(self.place.write, chunk.points, h)
            yield chunk, h
            if self.progress is not None:
                share = chunk.points.stop / self.chunks[-1].points.stop
                self.progress((self.swept + share) / self.total)
        self.worker.wait()
        self.swept += 1
        self.kept = depth

    def close(self) -> None:
        """Free what holds the activations, whatever happened."""
        self.worker.close()
        if self.place is not None:
            self.place.close()


class _Reduction:
    """The states of chunks, merged in float64: as many as there are chunks leave no trace."""

    def __init__(self, merge: Merge, nothing: State) -> None:
        self.merge, self.dtypes = merge, [tensor.dtype for tensor in nothing]
        self.total = tuple(tensor.double() for tensor in nothing)  # [B, ...]

    def add(self, chunk: Chunk, state: State) -> None:
        """Merge the state of a chunk into those of its clouds."""
        before = tuple(tensor[chunk.clouds] for tensor in self.total)
        after = self.merge(before, tuple(tensor.double() for tensor in state))
        for tensor, merged in zip(self.total, after, strict=True):
            tensor[chunk.clouds] = merged

    @property
    def state(self) -> State:
        """The state of whole clouds, in the dtypes of the mixer."""
        return tuple(t.to(dtype) for t, dtype in zip(self.total, self.dtypes, strict=True))
