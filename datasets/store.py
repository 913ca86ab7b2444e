"""Clouds of points packed end to end in one HDF5 file.

Layout, for B clouds with N points and F faces in all::

    points/ptr  [B + 1] int64      cloud b owns the rows ptr[b]:ptr[b+1] of every array beside it
    points/pos  [N, d]  float32
    points/y    [N, c]  float32    likewise points/x and every other array with a row per point
    face/ptr    [B + 1] int64
    face/face   [F, 3]  int32      three points of the same cloud, counted from its first one
    cases/name  [B]     str        likewise cases/<key> [B, g]: what a cloud has only once
    attrs       JSON               whatever the writer wants to say about the file

Nothing is padded and nothing is pickled.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from flare_geo.files import write_aside

CHUNK_BYTES = 2**17


def find_fault(data: Data, widths: Mapping[str, int]) -> str | None:
    """What keeps a case from being packed, in a few words; None if nothing does.

    Args:
        data: The case: ``pos [n, d]`` and ``name``, then ``x [n, f]``, ``y [n, c]``,
            ``face [3, f]``, other arrays ``[n, .]`` per point or ``[1, g]`` per case.
        widths: Number of channels of each array that must be there.
    """
    if not isinstance(data.get("name"), str):
        return "'name' is missing or not a str"
    for key in ("pos", *widths):
        if key not in data:
            return f"field '{key}' is missing"
    n = data["pos"].shape[0]
    for key, value in data.to_dict().items():
        if key == "name":
            continue
        if not isinstance(value, Tensor):
            return f"field '{key}' is a {type(value).__name__}, only tensors can be packed"
        shape = f"has shape {list(value.shape)}"
        if value.dim() != 2:
            return f"field '{key}' {shape}, expected two dimensions"
        if key == "face":
            if value.dtype != torch.int64 or value.shape[0] != 3:
                return f"field 'face' {shape} and is {value.dtype}, expected [3, f] torch.int64"
            outside = (value < 0) | (value >= n)
            if outside.any():
                return f"field 'face' names point {int(value[outside][0])}, there are {n}"
            continue
        if key in ("pos", "x", "y"):
            if value.dtype != torch.float32:
                return f"field '{key}' is {value.dtype}, expected torch.float32"
            if value.shape[0] != n:
                return f"field '{key}' has {value.shape[0]} rows, 'pos' has {n}"
        elif value.shape[0] not in (1, n):
            return f"field '{key}' has {value.shape[0]} rows, expected {n} (per point) or 1"
        if value.shape[1] != widths.get(key, value.shape[1]):
            return f"field '{key}' has {value.shape[1]} channels, expected {widths[key]}"
        if not value.isfinite().all():
            bad = (~value.isfinite()).any(dim=1).nonzero()
            count = int((~value.isfinite()).sum())
            return f"field '{key}' holds {count} non-finite values (first at point {int(bad[0])})"
    return None


def write_store(target: Path | BytesIO, cases: Iterable[Data], attrs: Mapping[str, Any]) -> None:
    """Pack cases into one file, one after the other, so only one is held in memory.

    A file is written under another name in the same folder, synced and renamed at the end: after
    an interruption the former file, or none, is there. Writers do not disturb one another.

    Args:
        target: Path of the file, or a buffer.
        cases: The cases, see :func:`find_fault`. All have the same fields and channels.
        attrs: Anything JSON can hold; ``attrs["name"]``, if any, is named in errors.

    Raises:
        ValueError: if a case is not sound or differs from the first one; says which and how.
    """
    if isinstance(target, BytesIO):
        with h5py.File(target, "w") as file:
            _write(file, cases, attrs)
        return
    with write_aside(target) as aside, h5py.File(aside, "w") as file:
        _write(file, cases, attrs)


def _write(file: h5py.File, cases: Iterable[Data], attrs: Mapping[str, Any]) -> None:
    names: list[str] = []
    arrays: dict[str, h5py.Dataset] = {}
    ptr: dict[str, list[int]] = {"points": [0]}
    first: dict[str, tuple[str, int, torch.dtype]] = {}  # field -> group, width, dtype
    for i, data in enumerate(cases):
        fault = find_fault(data, {key: width for key, (_, width, _) in first.items()})
        fields = (
            {} if fault else {k: v.detach().cpu() for k, v in data.to_dict().items() if k != "name"}
        )
        if not fault and not first:
            first = {
                k: (_group(k, v, data), _rows(k, v).shape[1], v.dtype) for k, v in fields.items()
            }
            ptr |= {group: [0] for group, _, _ in first.values() if group != "cases"}
        for key, value in fields.items():
            if key not in first:
                fault = f"field '{key}' was not there in the cases before"
            elif value.dtype != first[key][2]:
                fault = f"field '{key}' is {value.dtype}, it was {first[key][2]} before"
            elif first[key][0] == "points" and value.shape[0] != data.pos.shape[0]:
                fault = f"field '{key}' has one row, it had one per point before"
            elif first[key][0] == "cases" and value.shape[0] != 1:
                fault = f"field '{key}' has one row per point, it had one per case before"
        if fault:
            raise ValueError(f"{attrs.get('name', file.filename)} case {i}: {fault}")
        for key, value in fields.items():
            _append(file, arrays, f"{first[key][0]}/{key}", _rows(key, value).numpy())
        for group, ends in ptr.items():
            ends.append(ends[-1] + (data.face.shape[1] if group == "face" else data.pos.shape[0]))
        names.append(data.name)
    for group, ends in ptr.items():
        file[f"{group}/ptr"] = np.array(ends, dtype=np.int64)
    file["cases/name"] = np.array(names, dtype=h5py.string_dtype())
    file["attrs"] = json.dumps(attrs)


def _group(key: str, value: Tensor, data: Data) -> str:
    if key == "face":
        return "face"
    if key in ("pos", "x", "y") or value.shape[0] == data.pos.shape[0] != 1:
        return "points"
    return "cases"


def _rows(key: str, value: Tensor) -> Tensor:
    return value.T.to(torch.int32) if key == "face" else value


def _append(file: h5py.File, arrays: dict[str, h5py.Dataset], path: str, rows: np.ndarray) -> None:
    if path not in arrays:
        width = rows.shape[1]
        chunks = (max(1, CHUNK_BYTES // max(1, width * rows.itemsize)), width)
        arrays[path] = file.create_dataset(
            path, (0, width), rows.dtype, maxshape=(None, width), chunks=chunks
        )
    start = arrays[path].shape[0]
    arrays[path].resize(start + rows.shape[0], axis=0)
    arrays[path][start:] = rows


class PackedStore:
    """Reads a packed file: ``store[i]`` is one case as :class:`torch_geometric.data.Data`.

    A small store is read into memory on first access and every case is a copy of a slice; a large
    one stays on disk, opened once per process on first access. A store can be pickled: the open
    file does not travel, arrays in memory do.

    Args:
        source: Path of the file, or the buffer it was written to.
        in_memory_bytes: Stores smaller than this are held in memory. Buffers always are.

    Raises:
        OSError, KeyError, ValueError: if this is not a packed file.

    Example:
        >>> write_store(path, [Data(pos=pos, y=y, name="a")], {"name": "mine"})
        >>> store = PackedStore(path)
        >>> len(store), store.names, store[0].y.shape
        (1, ['a'], torch.Size([972, 1]))
    """

    def __init__(self, source: Path | BytesIO, in_memory_bytes: int = 2**30) -> None:
        self.path = source if isinstance(source, Path) else None
        self._file: h5py.File | None = None
        self._pid = 0
        self._arrays: dict[str, Tensor] | None = None
        with h5py.File(source, "r", locking=False) as file:
            self._json: str = file["attrs"].asstr()[()]
            self.attrs: dict[str, Any] = json.loads(self._json)
            self.names: list[str] = file["cases/name"].asstr()[()].tolist()
            self._fields = [f"{g}/{k}" for g in file for k in _keys(file[g]) if k not in _INDEX]
            self._ptr = {g: torch.from_numpy(file[g]["ptr"][()]) for g in file if g in _WITH_PTR}
            self.nbytes = sum(file[path].nbytes for path in self._fields)
            if self.path is None:
                self._arrays = {path: torch.from_numpy(file[path][()]) for path in self._fields}
        self.in_memory = self.path is None or self.nbytes < in_memory_bytes

    @property
    def ptr(self) -> Tensor:
        """Where each cloud starts, ``[B + 1]`` int64."""
        return self._ptr["points"]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Data:
        i = range(len(self))[index]
        if self.in_memory and self._arrays is None:
            file = self._open()
            self._arrays = {path: torch.from_numpy(file[path][()]) for path in self._fields}
            self.close()
        data = Data()
        for path in self._fields:
            group, key = path.split("/")
            start, end = self._ptr[group][i : i + 2].tolist() if group in self._ptr else (i, i + 1)
            if self._arrays is not None:
                rows = self._arrays[path][start:end].clone()
            else:
                rows = torch.from_numpy(self._open()[path][start:end])
            data[key] = rows.T.to(torch.int64).contiguous() if key == "face" else rows
        data.name = self.names[i]
        return data

    def _open(self) -> h5py.File:
        if self._file is None or self._pid != os.getpid():
            self._file, self._pid = h5py.File(self.path, "r", locking=False), os.getpid()
            if self._file["attrs"].asstr()[()] != self._json:
                self.close()
                raise RuntimeError(
                    f"{self.path} was packed anew meanwhile; create the data set again"
                )
        return self._file

    def close(self) -> None:
        """Close the file, if it is open; the next access opens it again."""
        if self._file is not None:
            self._file.close()
        self._file = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None}


_INDEX = ("ptr", "name")
_WITH_PTR = ("points", "face")


def _keys(node: h5py.Group | h5py.Dataset) -> list[str]:
    return list(node) if isinstance(node, h5py.Group) else []
