"""Run a surrogate over its points: whole or in chunks, one road for all predictions."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, Protocol, Self

import torch
from torch import Tensor, nn

from flare_geo.nn.model import BlockModel
from flare_geo.nn.surrogate.activations import Activations
from flare_geo.nn.surrogate.channels import Field, check_finite
from flare_geo.nn.surrogate.scaler import Scaler
from flare_geo.nn.surrogate.streaming import Read, States, Write, answer_stream, stream


class Scaled(Protocol):
    """A model between two scalers, as :class:`Surrogate` is."""

    inputs: list[Field]
    model: nn.Module
    input_scaler: Scaler
    output_scaler: Scaler


class Stream(NamedTuple):
    """How a prediction goes over its points.

    Attributes:
        chunk_size: points that the device holds at a time; all if None.
        activations: makes the storage between two blocks, see
            :func:`flare_geo.nn.surrogate.streaming.stream`.
        progress: is told after each chunk which share of the work is done.
    """

    chunk_size: int | None = None
    activations: Callable[[int, Tensor], Activations] | None = None
    progress: Callable[[float], None] | None = None

    def size(self, points: int) -> int:
        """Points of a chunk; one chunk holds all `points` if there is no `chunk_size`."""
        return max(1, points) if self.chunk_size is None else self.chunk_size


class Inputs(NamedTuple):
    """Inputs of a surrogate in physical units, read some rows at a time."""

    read: Read
    num_points: int
    ptr: Tensor | None = None

    @classmethod
    def of(cls, x: Tensor, ptr: Tensor | None = None) -> Self:
        """Inputs `[N, in]` that are in memory."""
        return cls(x.__getitem__, len(x), ptr)

    @property
    def offsets(self) -> Tensor:
        """`[B+1]`: where each cloud begins."""
        return torch.tensor([0, self.num_points]) if self.ptr is None else self.ptr


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Inside, a module is in evaluation mode; after it, each submodule in the mode it was in."""
    modes = {each: each.training for each in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for each, mode in modes.items():
            each.training = mode


@torch.no_grad()
def predict(
    surrogate: Scaled,
    inputs: Inputs,
    write: Write,
    how: Stream,
    states: States | None = None,
) -> None:
    """Predict at every point, with the model in evaluation mode, on the device of the weights.

    Args:
        surrogate: the model and its scalers.
        inputs: where the inputs come from.
        write: takes the prediction `[n, out]` of some points in physical units, on the CPU.
        how: whole or in chunks.
        states: of :func:`encode`: the points are then answered from them, and do not interact.

    Raises:
        ValueError: an input is not finite, or the model cannot be cut into chunks.
    """
    read, device = _scaled(surrogate, inputs), surrogate.input_scaler.mean.device
    ptr = None if inputs.ptr is None else inputs.ptr.to(device)
    size = how.size(inputs.num_points)

    def unscaled(at: slice, y: Tensor) -> None:
        write(at, surrogate.output_scaler.inverse(y).cpu())

    with evaluating(surrogate.model):
        if states is not None:
            answer_stream(
                _reducible(surrogate),
                read,
                unscaled,
                states,
                inputs.offsets.to(device),
                chunk_size=size,
                progress=how.progress,
            )
        elif how.chunk_size is None:
            everything = slice(0, inputs.num_points)
            unscaled(everything, surrogate.model(read(everything), ptr))
        else:
            stream(
                _reducible(surrogate),
                read,
                unscaled,
                inputs.offsets,
                chunk_size=size,
                activations=how.activations,
                progress=how.progress,
            )


def encode(surrogate: Scaled, inputs: Inputs, how: Stream) -> States:
    """The states of all blocks; arguments and errors as :func:`predict`."""
    with evaluating(surrogate.model):
        return stream(
            _reducible(surrogate),
            _scaled(surrogate, inputs),
            None,
            inputs.offsets,
            chunk_size=how.size(inputs.num_points),
            activations=how.activations,
            progress=how.progress,
        )


def _scaled(surrogate: Scaled, inputs: Inputs) -> Read:
    def read(at: slice) -> Tensor:
        x = inputs.read(at)
        check_finite(surrogate.inputs, x, at.start)
        z: Tensor = surrogate.input_scaler(x.to(surrogate.input_scaler.mean.device))
        return z

    return read


def _reducible(surrogate: Scaled) -> BlockModel:
    if not isinstance(surrogate.model, BlockModel):
        raise ValueError(
            "chunk_size, encode and answer need a model whose points interact only through "
            f"reductions, as Flare, got {type(surrogate.model).__name__}: predict without them"
        )
    return surrogate.model
