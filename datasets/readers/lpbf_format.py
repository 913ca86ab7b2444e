"""The ``.npz`` files of the LPBF set: a mesh of hexahedra and the state of the part on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flare_geo.datasets.readers.npz import (
    PickledError,
    json_array,
    npz_names,
    read_json_member,
    read_npz,
)
from flare_geo.files import write_aside

SPELLINGS = {  # of the files, then of the prose of the card
    "pos": ("pos", "points"),
    "elems": ("elems", "elements"),
    "disp": ("disp", "displacement"),
    "vmstr": ("vmstr", "stress"),
    "temp": ("temp", "temperature"),
}
EDGES = (  # of a hexahedron: the loop below, the loop above, the uprights
    *((0, 1), (1, 2), (2, 3), (3, 0)),
    *((4, 5), (5, 6), (6, 7), (7, 4)),
    *((0, 4), (1, 5), (2, 6), (3, 7)),
)


def read_lpbf(path: str | Path) -> dict[str, NDArray[Any]]:
    """The arrays of an ``.npz`` file of the set, under the names of the files, checked.

    Shapes:
        ``pos [n, 3]``, ``elems [m, 8]`` int64, and those there are of ``disp [n, 3]``,
        ``vmstr [n, 1]``, ``temp [n, 1]``, float32.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: an array is missing or has another shape, the file is broken.
    """
    there = npz_names(path)
    names = {}  # in the file, by key
    for key, spellings in SPELLINGS.items():
        name = next((name for name in spellings if name in there), None)
        if name or key in ("pos", "elems"):
            names[key] = name or key  # the reader says that it is missing
    raw = read_npz(path, names.values())
    n = raw[names["pos"]].shape[:1]
    shapes = {"pos": (*n, 3), "disp": (*n, 3), "vmstr": (*n, 1), "temp": (*n, 1)}
    arrays: dict[str, NDArray[Any]] = {}
    for key, name in names.items():
        array, kinds = raw[name], "iu" if key == "elems" else "f"
        if array.shape == n and key in ("vmstr", "temp"):
            array = array[:, None]
        shape = shapes.get(key, (*array.shape[:1], 8))
        if array.dtype.kind not in kinds or array.shape != shape:
            raise ValueError(
                f"{path}: expected '{name}' of shape {shape}, got {array.dtype} {array.shape}"
            )
        arrays[key] = array.astype(np.int64 if key == "elems" else np.float32)
    return arrays


def read_metadata(path: str | Path) -> dict[str, Any]:
    """What the file says about its case, such as case_name and zmax; {} if it says nothing.

    The official files hold this as a pickle, which is never loaded: {} for them, too. Nothing of
    it is needed to read a case.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds anything else there.
    """
    if "_metadata" not in npz_names(path):
        return {}
    try:
        metadata = read_json_member(path, "_metadata").get("metadata", {})
    except PickledError:
        return {}
    return metadata if isinstance(metadata, dict) else {}


def write_lpbf(
    path: str | Path,
    pos: NDArray[Any],
    elems: NDArray[Any],
    fields: dict[str, NDArray[Any]],
    metadata: dict[str, Any],
) -> None:
    """Write an ``.npz`` file of the set, with its edges.

    ``_metadata`` is an array of text, which the official loader reads, too; in the official files
    it is pickled.

    Args:
        path: The file; the former one stays until this one is complete.
        pos: Nodes, mm, ``[n, 3]``.
        elems: Hexahedra, ``[m, 8]``.
        fields: Of "disp" ``[n, 3]``, "vmstr" ``[n, 1]`` and "temp" ``[n, 1]``.
        metadata: Anything JSON can hold, such as case_name and zmax; generated data say so.
    """
    arrays: dict[str, Any] = {
        "pos": pos.astype(np.float32),
        "elems": elems.astype(np.int32),
        "edge_index": hexahedron_edges(elems),
        **{name: values.astype(np.float32) for name, values in fields.items()},
        "_metadata": json_array({"metadata": metadata}),
    }
    with write_aside(path) as aside:
        np.savez_compressed(aside, **arrays)


def hexahedron_edges(elems: NDArray[Any]) -> NDArray[np.int64]:
    """The 12 edges of each hexahedron, once in both directions, sorted. ``[m, 8] -> [2, e]``."""
    pairs = elems[:, np.array(EDGES)].reshape(-1, 2).astype(np.int64)  # [12 m, 2]
    base = int(elems.max(initial=0)) + 1
    keys = np.unique(np.concatenate([pairs @ [base, 1], pairs @ [1, base]]))
    return np.stack([keys // base, keys % base])
