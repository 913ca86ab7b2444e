"""Packs many cases, in several processes, and resumes an attempt that was interrupted.

Cases are read in chunks of consecutive ones; a finished chunk is a file of its own in a hidden
folder beside the target, complete or absent. When all are there they are joined and the folder is
removed. Meanwhile the chunks and the joined file are both on the disk.
"""

from __future__ import annotations

import errno
import shutil
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tqdm import tqdm

from flare_geo.datasets.store.faults import Fault
from flare_geo.datasets.store.reader import CHUNK_BYTES, PackedStore
from flare_geo.datasets.store.writer import case_bytes, join_stores, write_chunk
from flare_geo.pyg import Data

CHUNK_SECONDS = 5.0


Reader = Callable[[int], Data | Fault | None]
"""Reads case i: the case, or what is wrong with it, or None if it is filtered out."""


def pack(
    target: Path,
    count: int,
    read: Reader,
    attrs: dict[str, Any],
    on_faults: Callable[[list[Fault]], None],
    workers: int = 1,
    log: bool = True,
) -> None:
    """Read ``count`` cases and write them to ``target`` as one store.

    Args:
        target: Path of the packed file; complete when it appears.
        count: Number of cases.
        read: Picklable where ``workers`` is more than 1.
        attrs: As for :func:`write_store`; ``attrs["fingerprint"]`` tells to which attempt the
            chunks belong that are there.
        on_faults: Called with the unsound cases when all were read; raises, or lets them be left
            out.
        workers: Processes that read. They are spawned: a script needs
            ``if __name__ == "__main__":``.
        log: Show progress and the time left, on a terminal.

    Raises:
        ValueError: cases that do not fit together, see :func:`join_stores`.
        OSError: a process died, or the disk is full; finished chunks are kept.
    """
    folder = target.with_name(f".{target.stem}-{attrs['fingerprint'][:12]}.blocks")
    for other in target.parent.glob(f".{target.stem}-*.blocks"):
        if other != folder:  # of other raw files or options: never to be used again
            shutil.rmtree(other, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    first = _chunk_path(folder, 0)
    quiet = not (log and sys.stderr.isatty())
    with tqdm(total=count, desc=f"packing {target.stem}", unit="case", disable=quiet) as bar:
        if not first.is_file():
            _read_chunk(folder, 0, None, count, read)
        length = _length(first)
        bar.update(min(length, count))
        todo = []
        for start in range(length, count, max(1, length)):
            if _chunk_path(folder, start).is_file():
                bar.update(min(length, count - start))
            else:
                todo.append(start)
        task = partial(_read_chunk, folder, length=length, count=count, read=read)
        for done in _each(task, todo, min(workers, len(todo))):
            bar.update(done)
    chunks: list[Any] = [_chunk_path(folder, start) for start in range(0, count, max(1, length))]
    faults = [Fault(*f) for c in chunks for f in PackedStore(c).attrs["faults"]]
    if faults:
        on_faults(faults)
    join_stores(target, chunks, {**attrs, "left_out": [list(f) for f in faults]})
    shutil.rmtree(folder, ignore_errors=True)


def _read_chunk(folder: Path, start: int, length: int | None, count: int, read: Reader) -> int:
    """Read cases from ``start`` on into a chunk; without a length, until it is large enough."""
    cases: list[Data] = []
    faults: list[Fault] = []
    began, held, stop = time.monotonic(), 0, start
    while stop < (count if length is None else min(start + length, count)):
        data = read(stop)
        stop += 1
        if isinstance(data, Fault):
            faults.append(data)
        elif data is not None:
            cases.append(data)
            held += case_bytes(data)
        if length is None and (held >= CHUNK_BYTES or time.monotonic() - began > CHUNK_SECONDS):
            break
    attrs = {"length": stop - start, "faults": faults}
    write_chunk(_chunk_path(folder, start), cases, attrs)
    return stop - start


def _each(task: Callable[[int], int], starts: list[int], workers: int) -> Iterator[int]:
    """``map(task, starts)`` in processes."""
    if workers <= 1:
        yield from map(task, starts)
        return
    ahead: deque[Future[int]] = deque()
    try:
        with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
            for start in starts:
                ahead.append(pool.submit(task, start))
            while ahead:
                yield ahead.popleft().result()
    except BrokenProcessPool:
        raise OSError(
            "a packing process died (out of memory?); what was packed is kept: run it again, "
            "with fewer workers"
        ) from None


def _chunk_path(folder: Path, start: int) -> Path:
    return folder / f"{start:06d}.h5"


def _length(chunk: Path) -> int:
    return int(PackedStore(chunk).attrs["length"])


def is_writable(folder: Path) -> bool:
    """Whether files can be written to a folder, which is made if it is missing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return False
        raise
