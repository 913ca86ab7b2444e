"""How a verb goes over a mesh: in chunks, with a line of progress, errors and warnings named."""

import logging
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flare_geo.mesh import MeshCase
from flare_geo.nn.surrogate import Stream
from flare_geo.nn.surrogate.activations import FileActivations


def make_stream(chunk_size: int | None, spill: Path | None) -> Stream:
    """How a prediction goes over its points, from the options of a verb.

    Args:
        chunk_size: points at a time; all if None.
        spill: the folder for the activations between blocks; if None, where there is room.

    Raises:
        ValueError: the options make no sense.
    """
    if chunk_size is None and spill is not None:
        raise ValueError("spill is for a prediction in chunks: give --chunk_size too")
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")
    if spill is None:
        return Stream(chunk_size)
    if not spill.is_dir():
        raise ValueError(f"spill must be a folder, there is none at {spill}")
    return Stream(chunk_size, lambda _, like: FileActivations(like, spill))


@contextmanager
def watched(path: Path, case: MeshCase, how: Stream) -> Iterator[Stream]:
    """Inside, a surrogate runs over the points of a file.

    Warnings, where activations lie, and in chunks the progress go to standard error. An error that
    is raised inside names the file.

    Yields:
        `how`, with the line of progress.
    """
    progress = None if how.chunk_size is None else Progress(path.name, case.source.num_points)
    with naming(path), printed_warnings(path), _logged():
        try:
            yield how._replace(progress=progress)
        finally:
            if progress is not None:
                progress.close()


@contextmanager
def printed_warnings(path: Path) -> Iterator[None]:
    """Warnings inside go to standard error, one line each, with the name of the file."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        print(f"warning: {path.name}: {warning.message}", file=sys.stderr)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """A ValueError that is raised inside begins with the path."""
    try:
        yield
    except ValueError as error:
        if str(error).startswith(str(path)):
            raise
        raise ValueError(f"{path}: {error}") from None


def chunks_of(points: int, chunk_size: int) -> Iterator[slice]:
    """Chunks of so many points, one after another."""
    for start in range(0, points, chunk_size):
        yield slice(start, min(start + chunk_size, points))


class Progress:
    """A line on standard error that says how far a prediction in chunks is, once per second.

    Args:
        name: what is predicted on.
        points: how many points it has.
    """

    def __init__(self, name: str, points: int) -> None:
        self.name, self.points = name, points
        self.start, self.last, self.open = time.monotonic(), 0.0, False

    def __call__(self, share: float) -> None:
        """Say which share of the work is done."""
        now = time.monotonic()
        if now - self.last < 1 and share < 1:
            return
        self.last = now
        gone = max(now - self.start, 1e-9)
        self.open, end = share < 1, "\n" if share >= 1 else ""
        print(
            f"\r{self.name}: {share:4.0%}, {self.points * share / gone:,.0f} points/s, "
            f"{gone * (1 - share) / share:,.0f} s left ",
            end=end,
            file=sys.stderr,
        )

    def close(self) -> None:
        """End the line where it is: what comes next may be the reason."""
        if self.open:
            print(file=sys.stderr)
        self.open = False


@contextmanager
def _logged() -> Iterator[None]:
    """Inside, the log of where activations lie goes to standard error."""
    logger = logging.getLogger("flare_geo.nn.surrogate.activations")
    handler, level = logging.StreamHandler(sys.stderr), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
