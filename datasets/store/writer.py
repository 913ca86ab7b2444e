"""Writes clouds of points end to end into one HDF5 file: see `flare_geo.datasets.store.reader`."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flare_geo.datasets.store.faults import find_fault
from flare_geo.datasets.store.reader import CHUNK_BYTES, CONNECTIVITY, PackedStore
from flare_geo.files import write_aside
from flare_geo.pyg import Data

SHUFFLE_ABOVE = 2**16
"""Clouds of more points than this are shuffled."""


def write_store(target: Path | BytesIO, cases: Iterable[Data], attrs: Mapping[str, Any]) -> None:
    """Pack cases into one file; at most about 64 MB, or one case, are held in memory.

    A file is written under another name in the same folder, synced and renamed at the end: after
    an interruption the former file, or none, is there. Writers do not disturb one another.

    Args:
        target: Path of the file, or a buffer (then all cases are held in memory).
        cases: The cases, see :func:`find_fault`. All have the same fields and channels, and names
            of their own.
        attrs: Anything JSON can hold; ``attrs["name"]``, if any, is named in errors.
            ``attrs["channels"]``, as :class:`PackedDataset` writes it, also names the columns of
            the arrays.

    Raises:
        ValueError: if a case is not sound or differs from the first one; says which and how.
    """
    if isinstance(target, BytesIO):
        join_stores(target, [_write_chunk(BytesIO(), list(_sound(cases, attrs)), attrs)], attrs)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.stem}-", dir=target.parent) as folder:
        chunks: list[Path | BytesIO] = []
        chunk: list[Data] = []
        held = 0
        for data in _sound(cases, attrs):
            chunk.append(data)
            held += case_bytes(data)
            if held >= CHUNK_BYTES:
                chunks.append(_write_chunk(Path(folder, f"{len(chunks)}.h5"), chunk, attrs))
                chunk, held = [], 0
        chunks.append(_write_chunk(BytesIO(), chunk, attrs))
        join_stores(target, chunks, attrs)


def write_chunk(target: Path, cases: Sequence[Data], attrs: Mapping[str, Any]) -> None:
    """Write a few cases that are in memory as a store, for :func:`join_stores`."""
    with write_aside(target) as aside:
        _write_chunk(aside, cases, attrs)


def join_stores(
    target: Path | BytesIO, sources: Sequence[Path | BytesIO], attrs: Mapping[str, Any]
) -> None:
    """Put stores one behind the other; the sizes are known, so no array is held in memory.

    Raises:
        ValueError: two cases have one name, or the fields of the stores differ; says which.
    """
    if isinstance(target, BytesIO):
        with h5py.File(target, "w") as file:
            _join(file, sources, attrs)
        return
    with write_aside(target) as aside, h5py.File(aside, "w") as file:
        _join(file, sources, attrs)


def case_bytes(data: Data) -> int:
    """Number of bytes of the tensors of a case."""
    return sum(v.nbytes for v in data.to_dict().values() if isinstance(v, Tensor))


def _sound(cases: Iterable[Data], attrs: Mapping[str, Any]) -> Iterator[Data]:
    for i, data in enumerate(cases):
        if fault := find_fault(data, {}):
            raise ValueError(f"{attrs.get('name', 'store')} case {i}: {fault}")
        yield data


def _write_chunk(
    target: Path | BytesIO, cases: Sequence[Data], attrs: Mapping[str, Any]
) -> Path | BytesIO:
    """Cases that were found sound, each array contiguous."""
    with h5py.File(target, "w") as file:
        columns = _columns_of(cases, attrs)
        sizes = [data["pos"].shape[0] for data in cases]
        shuffled = [n > SHUFFLE_ABOVE for n in sizes]
        rows: dict[str, list[NDArray[Any]]] = {path: [] for path in columns}
        if any(shuffled):
            rows["points/order"] = []
        ends: dict[str, list[int]] = {"points": [0]}
        ends |= {path.split("/")[0]: [0] for path in columns if path.split("/")[0] in CONNECTIVITY}
        digests: list[str] = []
        for data, mixed in zip(cases, shuffled, strict=True):
            n = data["pos"].shape[0]
            order = _order(data["name"], n) if mixed else np.arange(n)
            arrays_of: dict[str, NDArray[Any]] = {}
            for path in rows:
                group, key = path.split("/")
                if path == "points/order":
                    value = order.astype(np.int32)[:, None]
                elif group in CONNECTIVITY:
                    value = (data[key].T if key == "face" else data[key]).numpy().astype(np.int32)
                    ends[group].append(ends[group][-1] + len(value))
                else:
                    value = data[key].detach().cpu().numpy()
                    value = value[order] if mixed and group == "points" else value
                arrays_of[key] = np.ascontiguousarray(value)
                rows[path].append(arrays_of[key])
            digests.append(_checksum(arrays_of, mixed))
            ends["points"].append(ends["points"][-1] + n)
        for path, arrays in rows.items():
            file[path] = np.concatenate(arrays)
        for group, places in ends.items():
            file[f"{group}/ptr"] = np.array(places, dtype=np.int64)
        text = h5py.string_dtype()
        file["cases/name"] = np.array([data["name"] for data in cases], dtype=text)
        file["cases/sha256"] = np.array(digests, dtype=text)
        file["cases/shuffled"] = np.array(shuffled, dtype=np.bool_)
        file["attrs"] = json.dumps(dict(attrs))
    return target


def _checksum(rows: Mapping[str, NDArray[Any]], shuffled: bool) -> str:
    """Of all arrays of a case; it does not depend on the other cases."""
    digest = hashlib.sha256()
    for key in sorted(rows):
        if key != "order" or shuffled:
            digest.update(f"{key} {rows[key].dtype} {rows[key].shape}".encode())
            digest.update(rows[key].data)
    return digest.hexdigest()


def _columns_of(
    cases: Sequence[Data], attrs: Mapping[str, Any]
) -> dict[str, tuple[int, torch.dtype]]:
    """Path in the file, width and dtype of each field, the same for all cases."""

    def form(data: Data) -> dict[str, tuple[int, torch.dtype]]:
        fields = ((k, v) for k, v in data.to_dict().items() if k != "name")
        return {k: (v.shape[0] if k == "face" else v.shape[1], v.dtype) for k, v in fields}

    if not cases:
        return {}
    first = form(cases[0])
    groups = dict.fromkeys(("pos", "x", "y"), "points") | {key: key for key in CONNECTIVITY}
    for data in cases:
        fault = _difference(first, form(data))
        n = data["pos"].shape[0]
        for key in first if n != 1 and not fault else ():  # one row in a lone point does not tell
            group = "points" if data[key].shape[0] == n else "cases"
            if groups.setdefault(key, group) != group and key not in CONNECTIVITY:
                had, has = "one row per point", "one row"
                had, has = (had, has) if group == "cases" else (has, had)
                fault = f"field '{key}' has {has}, it had {had} before"
        if fault:
            raise ValueError(f"{attrs.get('name', 'store')} case {data['name']}: {fault}")
    groups = {key: groups.get(key, "cases") for key in first}
    return {f"{groups[key]}/{key}": form for key, form in first.items()}


def _difference(first: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    for key in sorted(first.keys() | other.keys()):
        if key not in other:
            return f"field '{key}' is missing, the cases before have it"
        if key not in first:
            return f"field '{key}' was not there in the cases before"
        if first[key] != other[key]:
            (width, dtype), (had, was) = other[key], first[key]
            got = f"has {width} channels" if width != had else f"is {dtype}"
            return f"field '{key}' {got}, it {'had ' + str(had) if width != had else f'was {was}'}"
    return None


def _order(name: str, n: int) -> NDArray[np.int64]:
    """The random order of a large cloud: it depends on its name and size alone."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    return np.random.default_rng(seed).permutation(n)


def _join(file: h5py.File, sources: Sequence[Path | BytesIO], attrs: Mapping[str, Any]) -> None:
    stores = [s for s in (PackedStore(source) for source in sources) if len(s)]
    names = [name for store in stores for name in store.names]
    owner = attrs.get("name", "store")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(
            f"{owner}: {names.count(twice)} cases have the name '{twice}'; "
            "give each case a name of its own"
        )
    paths = {path: c for store in reversed(stores) for path, c in store.columns.items()}
    for key in {p.split("/")[1] for p in paths}:
        if {f"points/{key}", f"cases/{key}"} <= paths.keys():  # in stores of lone points
            del paths[f"cases/{key}"]
    has_order = "points/order" in paths
    for store in stores:
        mine = {p.split("/")[1]: (c.shape[1], c.dtype) for p, c in store.columns.items()}
        wanted = {p.split("/")[1]: (c.shape[1], c.dtype) for p, c in paths.items()}
        if has_order:
            mine["order"] = wanted["order"]
        if fault := _difference(wanted, mine):
            raise ValueError(f"{owner} case {store.names[0]}: {fault}")
    ptrs = {
        group: np.concatenate([[0], np.cumsum([n for s in stores for n in s.sizes(group)])])
        for group in ("points", *CONNECTIVITY)
        if group == "points" or any(p.startswith(f"{group}/") for p in paths)
    }
    for path, column in paths.items():
        group, key = path.split("/")
        total = int(ptrs[group][-1]) if group in ptrs else len(names)
        array = file.create_dataset(path, (total, column.shape[1]), column.dtype)
        _name_columns(array, attrs.get("channels", {}).get(key, ()))
        at = 0
        for store in stores:
            for rows in _chunks(store, path):
                array[at : at + len(rows)] = rows
                at += len(rows)
    for group, ptr in ptrs.items():
        file[f"{group}/ptr"] = ptr.astype(np.int64)
    text = h5py.string_dtype()
    file["cases/name"] = np.array(names, dtype=text)
    file["cases/sha256"] = np.array([d for s in stores for d in s.sha256], dtype=text)
    file["cases/shuffled"] = np.array([m for s in stores for m in s.shuffled], dtype=np.bool_)
    file["attrs"] = json.dumps(dict(attrs))
    for store in stores:
        store.close()


def _chunks(store: PackedStore, path: str) -> Iterator[NDArray[Any]]:
    """All rows of an array, a bounded number at a time."""
    if path == "points/order" and path not in store.columns:
        for n in store.sizes("points"):
            yield np.arange(n, dtype=np.int32)[:, None]
        return
    if path not in store.columns:  # a per-point field in a store of lone points
        path = path.replace("points/", "cases/")
    column = store.columns[path]
    step = max(1, CHUNK_BYTES // max(1, column.row_bytes))
    for start in range(0, column.shape[0], step):
        yield store.rows(path, start, min(start + step, column.shape[0])).numpy()


def _name_columns(array: h5py.Dataset, channels: Sequence[Mapping[str, str]]) -> None:
    """So that others who open the file see names and units at the array."""
    if channels:
        array.attrs["names"] = [c["name"] for c in channels]
        array.attrs["units"] = [c["unit"] for c in channels]
