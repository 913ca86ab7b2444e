"""A packed store of predictions, written chunk by chunk."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from torch import Tensor

from flare_geo.datasets.store.reader import CHUNK_BYTES, CONNECTIVITY, PackedStore
from flare_geo.files import write_aside

KEPT = ("pos", "order", *CONNECTIVITY)


@contextmanager
def write_predictions(
    target: Path, store: PackedStore, width: int, attrs: Mapping[str, Any]
) -> Iterator[Callable[[slice, Tensor], None]]:
    """A store with the clouds of another one and the field ``pred`` on them, being written.

    It holds positions, connectivity and names of the cases as they are in `store`, in the same
    order, so ``PackedStore(target)[i]`` is case i with ``pos`` and ``pred``. No array is held in
    memory; the file appears when all is written.

    Args:
        target: Path of the file.
        store: Where the clouds are.
        width: Channels of ``pred``.
        attrs: What the file says about itself.

    Yields:
        A function that takes rows ``[n, width]`` of all clouds end to end, in their order in the
        store, each row once.

    Raises:
        OSError: the disk is full; there is no file then.
    """
    with write_aside(target) as aside:
        with h5py.File(aside, "w") as file:
            kept = [path for path in store.columns if path.split("/")[1] in KEPT]
            for path in kept:
                column = store.columns[path]
                array = file.create_dataset(path, column.shape, column.dtype)
                step = max(1, CHUNK_BYTES // max(1, column.row_bytes))
                for start in range(0, column.shape[0], step):
                    stop = min(start + step, column.shape[0])
                    array[start:stop] = store.rows(path, start, stop).numpy()
            for group in ("points", *CONNECTIVITY):
                if group == "points" or any(path.startswith(f"{group}/") for path in kept):
                    file[f"{group}/ptr"] = np.cumsum([0, *store.sizes(group)]).astype(np.int64)
            text = h5py.string_dtype()
            file["cases/name"] = np.array(store.names, dtype=text)
            file["cases/sha256"] = np.array([""] * len(store), dtype=text)
            file["cases/shuffled"] = np.array(store.shuffled, dtype=np.bool_)
            file["attrs"] = json.dumps(dict(attrs))
            pred = file.create_dataset("points/pred", (int(store.ptr[-1]), width), np.float32)

            def write(at: slice, rows: Tensor) -> None:
                pred[at] = rows.float().numpy()

            yield write
        written = PackedStore(aside)
        digests = [written.digest(i) for i in range(len(written))]
        written.close()
        with h5py.File(aside, "r+") as file:
            file["cases/sha256"][:] = np.array(digests, dtype=h5py.string_dtype())
