"""Predictions from file to file: neither the mesh nor the fields are ever held whole."""

import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from flare_geo.mesh import NotInPieces, PieceFile, case_of_pieces, truth_of_pieces
from flare_geo.metrics import RunningErrors
from flare_geo.nn import Surrogate
from flare_geo.nn.features import Features, FileFeatures, choose_features
from flare_geo.provenance import provenance

STORE = ".h5"
IN_PIECES = (".vtu", ".vtp")


class Pieces(NamedTuple):
    """How a prediction is cut: points at a time, and the folder for what lies between blocks."""

    chunk_size: int
    spill: Path | None = None

    def features(self, points: int, like: Tensor) -> Features:
        """The place between blocks: the folder that was named, else where there is room."""
        if self.spill is None:
            return choose_features(points, like)
        return FileFeatures(like, self.spill)

    def check(self) -> None:
        """Raise a ValueError where they make no sense."""
        if self.chunk_size < 1:
            raise ValueError(f"chunk_size must be at least 1, got {self.chunk_size}")
        if self.spill is not None and not self.spill.is_dir():
            raise ValueError(f"spill must be a folder, there is none at {self.spill}")


def predict_file_in_pieces(
    surrogate: Surrogate,
    path: Path,
    out: Path,
    pieces: Pieces,
    given: dict[str, float] | None = None,
) -> None:
    """Predict on a VTU or VTP file and write it once more with the fields added.

    Raises:
        NotInPieces: the file, or what the surrogate needs of it, can only be had whole.
    """
    if path.suffix.lower() not in IN_PIECES or out.suffix.lower() != path.suffix.lower():
        raise NotInPieces(f"only {' and '.join(IN_PIECES)} go from file to file of the same kind")
    if not surrogate.is_pointwise:
        raise NotInPieces("the transform of the inputs needs all points at once")
    recipe, given = surrogate.recipe, given or {}
    with PieceFile(path) as file:
        points = file.num_points
        case_of_pieces(file, recipe, given, slice(0, min(1, points)))  # what cannot be, at once
        kept = FileFeatures(torch.empty(1, len(surrogate.outputs)), out.parent)
        try:
            _predict(
                surrogate,
                lambda at: case_of_pieces(file, recipe, given, at),
                kept.write,
                torch.tensor([0, points]),
                pieces,
                path.name,
            )
            nothing = torch.empty(0, len(surrogate.outputs))
            widths = {name: f.shape[1] for name, f in surrogate.fields_of(nothing, file).items()}
            ends = np.cumsum([0, *widths.values()]).tolist()
            columns = {name: slice(*at) for name, at in zip(widths, pairwise(ends), strict=True)}
            file.write(
                out,
                widths,
                lambda name, at: kept.read(at)[:, columns[name]].numpy(),
                pieces.chunk_size,
            )
            print(f"{path.name}: {', '.join(widths)} on {points:,} points: {out}")
            errors = {label: RunningErrors() for label in surrogate.fields_of(nothing)}
            for at in _cuts(points, pieces.chunk_size):
                truth = truth_of_pieces(file, recipe, at)
                if truth is None:
                    break
                pred = kept.read(at)
                for running, own in zip(errors.values(), columns.values(), strict=True):
                    running.add(pred[:, own], truth[:, own])
        finally:
            kept.close()
    say_errors(errors)


def predict_store(surrogate: Surrogate, path: Path, out: Path, pieces: Pieces) -> None:
    """Predict on all cases of a packed store; the result is a packed store with `pred`.

    Raises:
        ValueError: the store has not the inputs of the surrogate.
    """
    from flare_geo.datasets.store import PackedStore
    from flare_geo.datasets.store.predictions import write_predictions
    from flare_geo.pyg import Data

    if out.suffix != STORE:
        raise ValueError(f"{out}: the prediction on a packed store is one too: write {STORE}")
    store = PackedStore(path)
    channels = store.attrs.get("channels", {})
    fields = list(dict.fromkeys(channel.field for channel in surrogate.inputs))
    for field in fields:
        wants = [channel.name for channel in surrogate.inputs if channel.field == field]
        has = [channel["name"] for channel in channels.get(field, ())]
        width = (
            store.columns[f"points/{field}"].shape[1] if f"points/{field}" in store.columns else 0
        )
        if width != len(wants) or (has and has != wants):
            raise ValueError(
                f"{path}: the surrogate reads '{field}' with the channels {', '.join(wants)}, the "
                f"store has {', '.join(has) or width or 'no such field'}"
            )

    def case_at(at: slice) -> Data:
        rows = {field: store.rows(f"points/{field}", at.start, at.stop) for field in fields}
        return Data.from_dict(rows)

    attrs = {
        "name": f"{store.attrs.get('name', path.stem)} predicted",
        "channels": {"pred": [{"name": f.name, "unit": f.unit} for f in surrogate.outputs]},
        "source": store.attrs.get("source", {}),
        "provenance": provenance(surrogate.input_scaler.mean.device),
    }
    with write_predictions(out, store, len(surrogate.outputs), attrs) as write:
        _predict(surrogate, case_at, write, store.ptr, pieces, path.name)
    print(f"{path.name}: pred on {int(store.ptr[-1]):,} points of {len(store)} cases: {out}")


def say_errors(errors: Mapping[str, RunningErrors]) -> None:
    """A line with the errors of each field; none where there is no truth, or one with gaps."""
    if not all(running.count and running.is_finite for running in errors.values()):
        return
    for label, running in errors.items():
        error = running.result()
        if running.truth_is_zero:
            print(
                f"  {label}: the truth is zero everywhere, largest error {error['max_error']:.5g}"
            )
            continue
        print(
            f"  {label}: relative L2 {error['rel_l2']:.5f}, relative L1 {error['rel_l1']:.5f}, "
            f"largest error {error['max_error']:.5g}, R2 {error['r2']:.5f}"
        )


class Progress:
    """A line on standard error that says how far a prediction in chunks is, once a second.

    Args:
        name: what is predicted on.
        points: of how many points.
    """

    def __init__(self, name: str, points: int) -> None:
        self.name, self.points = name, points
        self.start, self.last, self.open = time.monotonic(), 0.0, False

    def __call__(self, share: float) -> None:
        """Say it."""
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


def _predict(
    surrogate: Surrogate,
    case_at: Callable[[slice], object],
    write: Callable[[slice, Tensor], None],
    ptr: Tensor,
    pieces: Pieces,
    name: str,
) -> None:
    progress = Progress(name, int(ptr[-1]))
    with warnings.catch_warnings(record=True) as caught, _said_on_stderr(), closing(progress):
        warnings.simplefilter("always")
        surrogate.predict_stream(
            case_at,  # type: ignore[arg-type]
            write,
            ptr,
            pieces.chunk_size,
            features=pieces.features,
            progress=progress,
        )
    for warning in caught:
        print(f"warning: {name}: {warning.message}", file=sys.stderr)


@contextmanager
def _said_on_stderr() -> Iterator[None]:
    """What is logged about a prediction, such as where its features lie, goes to the user."""
    logger, handler = logging.getLogger("flare_geo.nn.features"), logging.StreamHandler(sys.stderr)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def _cuts(points: int, chunk_size: int) -> list[slice]:
    return [slice(i, min(i + chunk_size, points)) for i in range(0, points, chunk_size)]
