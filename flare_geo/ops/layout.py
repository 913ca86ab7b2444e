"""Packed clouds: the points of all clouds end to end, and `ptr` that says where each one starts."""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Layout:
    """A validated `ptr` with host-side metadata, so that no layer validates or synchronises again.

    A model makes one per forward pass. Every function that takes `ptr` takes a `Layout` in its
    place. Inside a compiled graph the sizes are not read: the graph would hold for them only.

    Args:
        ptr: `[B+1]` int64 offsets on the device of the features.
        num_points: number of points N of all clouds together.
        equal: whether all clouds have one size; False where the sizes were not read.
    """

    ptr: Tensor
    num_points: int
    equal: bool = False

    @classmethod
    def of(cls, ptr: Tensor, sizes: tuple[int, ...]) -> Self:
        """A layout from sizes that are on the host already."""
        layout = cls(ptr, sum(sizes), len(set(sizes)) == 1)
        layout.__dict__["sizes"] = sizes
        return layout

    @property
    def num_clouds(self) -> int:
        """Number of clouds B, empty ones included."""
        return self.ptr.shape[0] - 1

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """The `B` numbers of points, on the host."""
        return tuple(self.ptr.diff().tolist())

    @cached_property
    def batch(self) -> Tensor:
        """`[N]` int64: the cloud of each point."""
        return ptr_to_batch(self.ptr, self.num_points)


def equal_layout(num_clouds: int, size: int, device: torch.device) -> Layout:
    """Clouds that all have `size` points, such as the latents of clouds."""
    ptr = torch.arange(num_clouds + 1, device=device) * size
    return Layout(ptr, num_clouds * size, equal=num_clouds > 0)


def ptr_to_batch(ptr: Tensor, num_points: int | None = None) -> Tensor:
    """`[B+1]` offsets to the `[N]` cloud index of each point."""
    clouds = torch.arange(ptr.numel() - 1, device=ptr.device)
    return clouds.repeat_interleave(ptr.diff(), output_size=num_points)


def batch_to_ptr(batch: Tensor, num_clouds: int | None = None) -> Tensor:
    """`[N]` sorted cloud index of each point to `[B+1]` offsets.

    Empty clouds at the end do not show in `batch`; `num_clouds` is the number of all clouds.

    Raises:
        ValueError: if `batch` is not a sorted vector of non-negative integers.
    """
    if batch.ndim != 1 or batch.dtype not in (torch.int64, torch.int32):
        raise ValueError(
            f"batch must be an int64 vector [N], got {batch.dtype} {list(batch.shape)}"
        )
    if batch.numel() and bool((batch.diff() < 0).any()):
        at = int((batch.diff() < 0).nonzero()[0]) + 1
        raise ValueError(
            f"batch must be sorted, but batch[{at}]={int(batch[at])} follows "
            f"{int(batch[at - 1])}; sort the points by cloud first"
        )
    if batch.numel() and int(batch[0]) < 0:
        raise ValueError(f"batch must not be negative, got {int(batch[0])}")
    seen = int(batch[-1]) + 1 if batch.numel() else 0
    if num_clouds is not None and seen > num_clouds:
        raise ValueError(f"batch names cloud {seen - 1}, but num_clouds={num_clouds}")
    counts = torch.bincount(batch, minlength=num_clouds or 0)
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


def make_layout(ptr: "Tensor | Layout | None", num_points: int, device: torch.device) -> Layout:
    """Check `ptr` against the number of points and bring its sizes to the host, once.

    Args:
        ptr: `[B+1]` int64 offsets, None for one cloud, or a `Layout`, which passes unchanged.
        num_points: number of packed points N.
        device: where the features are; `ptr` is moved there.

    Inside a compiled graph the values of `ptr` are not checked.

    Raises:
        ValueError: if `ptr` is not a non-decreasing int64 vector from 0 to N.
    """
    if ptr is None and torch.compiler.is_compiling():
        return Layout(torch.arange(2, device=device) * num_points, num_points, equal=True)
    if ptr is None:
        return Layout.of(torch.tensor([0, num_points], device=device), (num_points,))
    if isinstance(ptr, Layout):
        if not torch.compiler.is_compiling() and ptr.num_points != num_points:
            raise ValueError(f"ptr must end at N={num_points}, got {ptr.num_points}")
        return ptr
    if ptr.ndim != 1 or ptr.numel() == 0 or ptr.dtype not in (torch.int64, torch.int32):
        raise ValueError(
            f"ptr must be an int64 vector [B+1] of offsets, got {ptr.dtype} {list(ptr.shape)}"
        )
    if torch.compiler.is_compiling():  # not read: reading waits, and compiles for each size
        return Layout(ptr.to(device=device, dtype=torch.int64), num_points)
    offsets = ptr.tolist()
    sizes = tuple(end - start for start, end in pairwise(offsets))
    if offsets[0] != 0:
        raise ValueError(f"ptr must start at 0, got {offsets[0]}")
    if any(n < 0 for n in sizes):
        at = next(i for i, n in enumerate(sizes) if n < 0)
        raise ValueError(
            f"ptr must not decrease, but ptr[{at + 1}]={offsets[at + 1]} follows {offsets[at]}"
        )
    if offsets[-1] != num_points:
        raise ValueError(f"ptr must end at N={num_points}, got {offsets[-1]}")
    return Layout.of(ptr.to(device=device, dtype=torch.int64), sizes)
