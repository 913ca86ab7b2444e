"""Activation storage between two blocks: device memory, host memory or a temporary file."""

import logging
import os
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from flare_geo.memory import free_bytes

logger = logging.getLogger(__name__)


class Activations(Protocol):
    """Storage of `[N, C]` in chunks: a chunk that is read was written as one before."""

    def read(self, at: slice) -> Tensor:
        """`[n, C]` on the device."""

    def write(self, at: slice, h: Tensor) -> None:
        """Keep `[n, C]`, which lies on the device."""

    def close(self) -> None:
        """Free the storage."""


class TensorActivations:
    """Activations in the memory of the device or of the host."""

    def __init__(self, points: int, like: Tensor, where: torch.device) -> None:
        crosses = like.is_cuda and where.type == "cpu"
        self.kept = torch.empty(
            points, *like.shape[1:], dtype=like.dtype, device=where, pin_memory=crosses
        )
        self.device = like.device
        # copies run beside the kernels: another stream, which the worker's thread waits for
        self.stream = torch.cuda.Stream(like.device) if crosses else None  # type: ignore[no-untyped-call]
        self.kernels = torch.cuda.current_stream(like.device) if crosses else None

    def read(self, at: slice) -> Tensor:
        """`[n, C]` on the device."""
        if self.stream is None or self.kernels is None:
            return self.kept[at].to(self.device)
        with torch.cuda.stream(self.stream):
            h = self.kept[at].to(self.device, non_blocking=True)
        h.record_stream(self.kernels)
        self.stream.synchronize()
        return h

    def write(self, at: slice, h: Tensor) -> None:
        """Keep `[n, C]`."""
        if self.stream is None or self.kernels is None:
            self.kept[at] = h
            return
        self.stream.wait_stream(self.kernels)
        with torch.cuda.stream(self.stream):
            self.kept[at].copy_(h, non_blocking=True)
        self.stream.synchronize()

    def close(self) -> None:
        """Free the memory."""
        del self.kept


class FileActivations:
    """Activations in a file without a name, with checksums; the file ends with the process.

    Args:
        like: some of the activations.
        folder: where the file lies.
    """

    def __init__(self, like: Tensor, folder: Path) -> None:
        self.file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
        self.folder = folder
        self.shape, self.dtype, self.device = like.shape[1:], like.dtype, like.device
        self.row = self.shape.numel() * like.element_size()
        self.sums: dict[int, int] = {}

    def read(self, at: slice) -> Tensor:
        """`[n, C]` on the device.

        Raises:
            OSError: if the file does not hold what was written.
        """
        h = torch.empty(at.stop - at.start, *self.shape, dtype=self.dtype)
        view = _bytes_of(h)
        self.file.seek(at.start * self.row)
        done = 0
        while done < len(view) and (got := self.file.readinto(view[done:])):
            done += got
        if done < len(view) or zlib.crc32(view) != self.sums.get(at.start):
            raise OSError(
                f"the file of activations in {self.folder} is damaged at point {at.start:,}: "
                "nothing was written as a result; predict again with a folder on another disk"
            )
        return h.to(self.device)

    def write(self, at: slice, h: Tensor) -> None:
        """Keep `[n, C]`."""
        view = _bytes_of(h.cpu().contiguous())
        self.sums[at.start] = zlib.crc32(view)
        self.file.seek(at.start * self.row)
        done = 0
        while done < len(view):
            done += self.file.write(view[done:])

    def close(self) -> None:
        """Free the disk."""
        self.file.close()


def _bytes_of(h: Tensor) -> memoryview:
    view: memoryview = h.view(torch.uint8).numpy().data
    return view.cast("B")


def choose_activations(points: int, like: Tensor) -> Activations:
    """The device, the host or a file: the first in which all activations take half of the room.

    The file lies in the folder for temporary files, which the variable TMPDIR names.

    Raises:
        OSError: if the disk has not the room either; raised before anything is computed.
    """
    needed = points * like[0].numel() * like.element_size()
    size = f"{_size(needed)} of activations between blocks"
    if like.is_cuda and needed < torch.cuda.mem_get_info(like.device)[0] // 2:
        logger.info("%s: in the memory of %s", size, like.device)
        return TensorActivations(points, like, like.device)
    free = free_bytes(torch.device("cpu"))
    if free is None:  # a system that does not say: half of what there is
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    if needed < free // 2:
        logger.info("%s: in memory", size)
        return TensorActivations(points, like, torch.device("cpu"))
    folder = Path(tempfile.gettempdir())
    disk = os.statvfs(folder)
    if needed > disk.f_bavail * disk.f_frsize:
        raise OSError(
            f"{size} fit neither into memory nor into {folder}, where "
            f"{_size(disk.f_bavail * disk.f_frsize)} are free: set TMPDIR to a larger disk"
        )
    logger.info("%s: in a file in %s", size, folder)
    return FileActivations(like, folder)


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


class Worker:
    """One thread that fetches the next chunk and puts away the last one while one is computed.

    It works in the order of the calls; its errors are raised by the next call.
    """

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(1)
        self.writing: Future[None] | None = None

    def fetch(self, read: Callable[[slice], Tensor], chunks: Sequence[slice]) -> Iterator[Tensor]:
        """`read` of every chunk, one of them ahead."""
        coming = self.pool.submit(read, chunks[0]) if chunks else None
        for after in [*chunks[1:], None]:
            if coming is None:
                return
            h = coming.result()
            coming = None if after is None else self.pool.submit(read, after)
            yield h

    def put(self, write: Callable[[slice, Tensor], None], at: slice, h: Tensor) -> None:
        """Call `write`, after the one before is done."""
        self.wait()
        self.writing = self.pool.submit(write, at, h)

    def wait(self) -> None:
        """Wait until everything is written."""
        if self.writing is not None:
            self.writing.result()
            self.writing = None

    def close(self) -> None:
        """End the thread."""
        self.pool.shutdown(wait=True, cancel_futures=True)
