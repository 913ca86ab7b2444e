"""A FLARE model over points that come chunk by chunk: the same answer, memory set by the chunk.

An encode is a sum over points: it can be cut anywhere and merged exactly (`flare_geo.ops`). So a
block needs one sweep over its points for its latents, and everything else is pointwise. One sweep
finishes a block and encodes the next one; L blocks take L + 1 sweeps.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from flare_geo.nn.block import FlareBlock
from flare_geo.nn.flare import Flare
from flare_geo.ops import Layout, make_layout, merge_encodings


class Chunk(NamedTuple):
    """Points next to each other, and the clouds that they are of."""

    points: slice
    clouds: slice
    layout: Layout


class Features(Protocol):
    """Where the features `[N, C]` lie between two blocks."""

    def read(self, at: slice) -> Tensor:
        """`[n, C]` on the device."""

    def write(self, at: slice, h: Tensor) -> None:
        """Keep `[n, C]` of the device."""

    def close(self) -> None:
        """Give back what holds them."""


class TensorFeatures:
    """In memory, of the device or of the host."""

    def __init__(self, points: int, like: Tensor, where: torch.device) -> None:
        self.kept = torch.empty(points, *like.shape[1:], dtype=like.dtype, device=where)
        self.device = like.device

    def read(self, at: slice) -> Tensor:
        """`[n, C]` on the device."""
        return self.kept[at].to(self.device)

    def write(self, at: slice, h: Tensor) -> None:
        """Keep `[n, C]`."""
        self.kept[at] = h.to(self.kept.device)

    def close(self) -> None:
        """Give back the memory."""
        del self.kept


class FileFeatures:
    """In a file without a name, gone with the process however that ends."""

    def __init__(self, like: Tensor, folder: Path) -> None:
        self.file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
        self.shape, self.dtype, self.device = like.shape[1:], like.dtype, like.device
        self.row = self.shape.numel() * like.element_size()

    def read(self, at: slice) -> Tensor:
        """`[n, C]` on the device."""
        h = torch.empty(at.stop - at.start, *self.shape, dtype=self.dtype)
        view = _bytes_of(h)
        self.file.seek(at.start * self.row)
        done = 0
        while done < len(view):
            got = self.file.readinto(view[done:])
            if not got:
                raise OSError(f"the file of features ends {len(view) - done:,} bytes too early")
            done += got
        return h.to(self.device)

    def write(self, at: slice, h: Tensor) -> None:
        """Keep `[n, C]`."""
        view = _bytes_of(h.cpu().contiguous())
        self.file.seek(at.start * self.row)
        done = 0
        while done < len(view):
            done += self.file.write(view[done:])

    def close(self) -> None:
        """Give back the disk."""
        self.file.close()


def _bytes_of(h: Tensor) -> memoryview:
    view: memoryview = h.view(torch.uint8).numpy().data
    return view.cast("B")


def chunks_of(layout: Layout, chunk_size: int) -> Iterator[Chunk]:
    """Cut packed clouds every `chunk_size` points, wherever the clouds begin."""
    ends = layout.ptr.cpu()
    for start in range(0, layout.num_points, chunk_size):
        end = min(start + chunk_size, layout.num_points)
        first = int(torch.searchsorted(ends, start, right=True)) - 1
        last = int(torch.searchsorted(ends, end, right=False))
        ptr = ends[first : last + 1].clamp(start, end) - start
        part = Layout.of(ptr.to(layout.ptr.device), tuple(ptr.diff().tolist()))
        yield Chunk(slice(start, end), slice(first, last), part)


@torch.no_grad()
def stream(
    model: Flare,
    read: Callable[[slice], Tensor],
    write: Callable[[slice, Tensor], None],
    ptr: Tensor | Layout,
    *,
    chunk_size: int,
    features: Callable[[int, Tensor], Features] | None = None,
    progress: Callable[[float], None] | None = None,
) -> None:
    """Run a model over packed clouds of any size.

    Args:
        model: in evaluation mode; its device is where a chunk is computed.
        read: gives the inputs `[n, in_channels]` of some points, on any device.
        write: takes the outputs `[n, out_channels]` of some points.
        ptr: `[B+1]` offsets of the clouds.
        chunk_size: points at a time.
        features: makes the place for the features between blocks, from N and a chunk of them; the
            device, the host or a file, the first that has the room, if None.
        progress: told after each chunk which share of the work is done.

    Raises:
        ValueError: if `chunk_size` is not positive.
    """
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")
    device = model.head.lin_out.weight.device
    points = ptr.num_points if isinstance(ptr, Layout) else int(ptr[-1])
    layout = make_layout(ptr, points, device)
    place: Features | None = None
    blocks = [block for block in model.blocks if isinstance(block, FlareBlock)]
    chunks = list(chunks_of(layout, chunk_size))
    z = torch.empty(0)
    try:
        for sweep in range(len(blocks) + 1):
            sums = _Sums(blocks[sweep].conv.q, layout.num_clouds) if sweep < len(blocks) else None
            for chunk in chunks:
                if sweep == 0:
                    h = model.embed(model.features(read(chunk.points).to(device)))
                else:
                    assert place is not None
                    h = place.read(chunk.points)
                    h = blocks[sweep - 1].decode(h, z[chunk.clouds], chunk.layout)
                if sums is not None:
                    if place is None:
                        place = (features or choose_features)(points, h)
                    place.write(chunk.points, h)
                    sums.add(chunk, *blocks[sweep].encode(h, chunk.layout))
                else:
                    write(chunk.points, model.head(model.norm(h)))
                if progress is not None:
                    progress((sweep + chunk.points.stop / points) / (len(blocks) + 1))
            if sums is not None:
                z = sums.z
    finally:
        if place is not None:
            place.close()


class _Sums:
    """Encodings of chunks, merged in float64: as many as there are chunks leave no trace."""

    def __init__(self, q: Tensor, num_clouds: int) -> None:
        self.dtype = q.dtype
        self.total = q.new_zeros(num_clouds, *q.shape, dtype=torch.float64)
        self.lse = self.total.new_full(self.total.shape[:-1], -torch.inf)

    def add(self, chunk: Chunk, z: Tensor, lse: Tensor) -> None:
        """Merge the encoding of a chunk into those of its clouds."""
        before = (self.total[chunk.clouds], self.lse[chunk.clouds])
        z, lse = merge_encodings(before, (z.double(), lse.double()))
        self.total[chunk.clouds], self.lse[chunk.clouds] = z, lse

    @property
    def z(self) -> Tensor:
        """Latents `[B, H, M, D]` of all clouds."""
        return self.total.to(self.dtype)


def choose_features(points: int, like: Tensor) -> Features:
    """The device, the host or a file: the first in which all features take half of the room."""
    needed = points * like[0].numel() * like.element_size()
    if like.is_cuda and needed < torch.cuda.mem_get_info(like.device)[0] // 2:
        return TensorFeatures(points, like, like.device)
    if needed < _free_memory() // 2:
        return TensorFeatures(points, like, torch.device("cpu"))
    return FileFeatures(like, Path(tempfile.gettempdir()))


def _free_memory() -> int:
    """Bytes of the host that are free, or could be."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
