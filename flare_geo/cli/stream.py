"""How a verb goes over a mesh: in chunks, with progress; errors and warnings name the file."""

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from flare_geo.mesh import MeshCase
from flare_geo.nn.surrogate import Stream
from flare_geo.nn.surrogate.activations import FileActivations


def make_stream(chunk_size: int | None, spill: Path | None) -> Stream:
    """How a prediction goes over its points, from the options of a verb.

    Args:
        chunk_size: points at a time; all if None.
        spill: the folder for the activations between blocks; if None, wherever there is room.

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
        `how`, with a bar of progress.
    """
    name, points, whole = path.name, case.source.num_points, how.chunk_size is None
    with (
        naming(path),
        printed_warnings(path),
        _logged(),
        tqdm(desc=name, total=points, unit=" points", mininterval=1.0, disable=whole) as bar,
    ):
        yield how._replace(progress=lambda share: bar.update(round(share * points) - bar.n))


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
    """Chunks of `chunk_size` points, one after another; the last one may be smaller."""
    for start in range(0, points, chunk_size):
        yield slice(start, min(start + chunk_size, points))


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
