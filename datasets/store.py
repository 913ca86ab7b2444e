"""Clouds of points packed end to end in one HDF5 file.

Layout, for B clouds with N points, F faces and M cells in all::

    points/ptr     [B + 1] int64    cloud b owns the rows ptr[b]:ptr[b+1] of every array beside it
    points/pos     [N, d]  float32
    points/y       [N, c]  float32  likewise points/x and every other array with a row per point
    points/order   [N, 1]  int32    only where clouds are shuffled: row j was point order[j]
    face/ptr       [B + 1] int64    face/face [F, 3] int32, points of the same cloud
    cells/ptr      [B + 1] int64    cells/cells [M, k] int32, likewise
    cases/name     [B]     str      cases/sha256 [B] str: of what the file holds of a case
    cases/shuffled [B]     bool     likewise cases/<key> [B, g]: what a cloud has only once
    attrs          JSON             whatever the writer wants to say about the file

Nothing is padded, compressed or pickled. Every array lies in the file in one piece, so a process
reads rows straight from their place in it, without the HDF5 library and without a lock.

Large clouds are shuffled when they are written: any stretch of their rows is a random sample.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flare_geo.files import write_aside
from flare_geo.pyg import Data

SHUFFLE_ABOVE = 2**16
"""Clouds of more points than this are shuffled."""

BLOCK_BYTES = 2**26
CONNECTIVITY = ("face", "cells")
OWN = ("name", "sha256", "shuffled")  # in the group `cases`, written by this file


def find_fault(data: Data, widths: Mapping[str, int]) -> str | None:
    """What keeps a case from being packed, in a few words; None if nothing does.

    Args:
        data: The case: ``pos [n, d]`` and ``name``, then ``x [n, f]``, ``y [n, c]``,
            ``face [3, f]``, ``cells [m, k]``, other arrays ``[n, .]`` per point or ``[1, g]`` per
            case.
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
        if key in (*OWN, "order", "ptr", "batch"):
            return f"field '{key}' has a name that is kept for the store"
        if not isinstance(value, Tensor):
            return f"field '{key}' is a {type(value).__name__}, only tensors can be packed"
        shape = f"has shape {list(value.shape)}"
        if value.dim() != 2:
            return f"field '{key}' {shape}, expected two dimensions"
        if key in CONNECTIVITY:
            if value.dtype != torch.int64 or (key == "face" and value.shape[0] != 3):
                wanted = "[3, f]" if key == "face" else "[m, k]"
                return f"field '{key}' {shape} and is {value.dtype}, expected {wanted} torch.int64"
            outside = (value < 0) | (value >= n)
            if outside.any():
                return f"field '{key}' names point {int(value[outside][0])}, there are {n}"
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
        join_stores(target, [_write_block(BytesIO(), list(_sound(cases, attrs)), attrs)], attrs)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.stem}-", dir=target.parent) as folder:
        parts: list[Path | BytesIO] = []
        block: list[Data] = []
        held = 0
        for data in _sound(cases, attrs):
            block.append(data)
            held += case_bytes(data)
            if held >= BLOCK_BYTES:
                parts.append(_write_block(Path(folder, f"{len(parts)}.h5"), block, attrs))
                block, held = [], 0
        parts.append(_write_block(BytesIO(), block, attrs))
        join_stores(target, parts, attrs)


def write_block(target: Path, cases: Sequence[Data], attrs: Mapping[str, Any]) -> None:
    """Write a few cases that are in memory as a store; parts for :func:`join_stores`."""
    with write_aside(target) as aside:
        _write_block(aside, cases, attrs)


def join_stores(
    target: Path | BytesIO, parts: Sequence[Path | BytesIO], attrs: Mapping[str, Any]
) -> None:
    """Put stores one behind the other; the sizes are known, so no array is held in memory.

    Raises:
        ValueError: two cases have one name, or the fields of the parts differ; says which.
    """
    if isinstance(target, BytesIO):
        with h5py.File(target, "w") as file:
            _join(file, parts, attrs)
        return
    with write_aside(target) as aside, h5py.File(aside, "w") as file:
        _join(file, parts, attrs)


def case_bytes(data: Data) -> int:
    """Number of bytes of the tensors of a case."""
    return sum(v.nbytes for v in data.to_dict().values() if isinstance(v, Tensor))


def _sound(cases: Iterable[Data], attrs: Mapping[str, Any]) -> Iterator[Data]:
    for i, data in enumerate(cases):
        if fault := find_fault(data, {}):
            raise ValueError(f"{attrs.get('name', 'store')} case {i}: {fault}")
        yield data


def _write_block(
    target: Path | BytesIO, cases: Sequence[Data], attrs: Mapping[str, Any]
) -> Path | BytesIO:
    """Cases that were found sound, each array in one piece."""
    with h5py.File(target, "w") as file:
        layout = _layout(cases, attrs)
        sizes = [data["pos"].shape[0] for data in cases]
        shuffled = [n > SHUFFLE_ABOVE for n in sizes]
        rows: dict[str, list[NDArray[Any]]] = {path: [] for path in layout}
        if any(shuffled):
            rows["points/order"] = []
        ends: dict[str, list[int]] = {"points": [0]}
        ends |= {path.split("/")[0]: [0] for path in layout if path.split("/")[0] in CONNECTIVITY}
        digests: list[str] = []
        for data, mixed in zip(cases, shuffled, strict=True):
            n = data["pos"].shape[0]
            order = _order(data["name"], n) if mixed else np.arange(n)
            own: dict[str, NDArray[Any]] = {}
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
                own[key] = np.ascontiguousarray(value)
                rows[path].append(own[key])
            digests.append(_checksum(own, mixed))
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
    """Of all arrays of a case; the same in whatever company it was packed."""
    digest = hashlib.sha256()
    for key in sorted(rows):
        if key != "order" or shuffled:
            digest.update(f"{key} {rows[key].dtype} {rows[key].shape}".encode())
            digest.update(rows[key].data)
    return digest.hexdigest()


def _layout(cases: Sequence[Data], attrs: Mapping[str, Any]) -> dict[str, tuple[int, torch.dtype]]:
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
        for key in first if n != 1 and not fault else ():  # one row in a lone point tells nothing
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


def _join(file: h5py.File, parts: Sequence[Path | BytesIO], attrs: Mapping[str, Any]) -> None:
    stores = [s for s in (PackedStore(part) for part in parts) if len(s)]
    names = [name for store in stores for name in store.names]
    set_name = attrs.get("name", "store")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(
            f"{set_name}: {names.count(twice)} cases have the name '{twice}'; "
            "give each case a name of its own"
        )
    paths = {path: c for store in reversed(stores) for path, c in store.columns.items()}
    for key in {p.split("/")[1] for p in paths}:
        if {f"points/{key}", f"cases/{key}"} <= paths.keys():  # in parts of lone points
            del paths[f"cases/{key}"]
    has_order = "points/order" in paths
    for store in stores:
        mine = {p.split("/")[1]: (c.shape[1], c.dtype) for p, c in store.columns.items()}
        wanted = {p.split("/")[1]: (c.shape[1], c.dtype) for p, c in paths.items()}
        if has_order:
            mine["order"] = wanted["order"]
        if fault := _difference(wanted, mine):
            raise ValueError(f"{set_name} case {store.names[0]}: {fault}")
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
            for rows in _stretches(store, path):
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


def _stretches(store: PackedStore, path: str) -> Iterator[NDArray[Any]]:
    """All rows of an array, a bounded number at a time."""
    if path == "points/order" and path not in store.columns:
        for n in store.sizes("points"):
            yield np.arange(n, dtype=np.int32)[:, None]
        return
    if path not in store.columns:  # a per-point field in a part of lone points
        path = path.replace("points/", "cases/")
    column = store.columns[path]
    step = max(1, BLOCK_BYTES // max(1, column.row_bytes))
    for start in range(0, column.shape[0], step):
        yield store.rows(path, start, min(start + step, column.shape[0])).numpy()


def _name_columns(array: h5py.Dataset, channels: Sequence[Mapping[str, str]]) -> None:
    """So that others who open the file see names and units at the array."""
    if channels:
        array.attrs["names"] = [c["name"] for c in channels]
        array.attrs["units"] = [c["unit"] for c in channels]


class Column(NamedTuple):
    """Where an array lies in the file: its rows follow one another from `offset` on."""

    offset: int
    shape: tuple[int, int]
    dtype: np.dtype[Any]

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return self.shape[1] * self.dtype.itemsize


class PackedStore:
    """Reads a packed file: ``store[i]`` is one case as :class:`torch_geometric.data.Data`.

    Rows are read from their place in the file when they are asked for; nothing is kept, the
    operating system caches what is used often. So a store of any size costs a process next to no
    memory, and processes that were forked or to which a store was sent do not disturb each other.

    Args:
        source: Path of the file, or the buffer it was written to.

    Attributes:
        names: Names of the cases.
        ptr: Where each cloud starts, ``[B + 1]`` int64.
        attrs: What the writer said about the file.
        sha256: Checksum of each case.
        shuffled: Whether a cloud lies in the file in random order.

    Raises:
        FileNotFoundError: no such file.
        ValueError: this is not a packed file, or it was cut off.
        RuntimeError: on access, if a copy sent to another process finds a newer file.

    Example:
        >>> write_store(path, [Data(pos=pos, y=y, name="a")], {"name": "mine"})
        >>> store = PackedStore(path)
        >>> len(store), store.names, store[0].y.shape
        (1, ['a'], torch.Size([972, 1]))
    """

    def __init__(self, source: Path | BytesIO) -> None:
        self.path = source if isinstance(source, Path) else None
        self._fd: int | None = None
        self._identity = (0, 0, 0)
        self._memory: memoryview | None = None
        if self.path is None:
            # Not getbuffer(): a BytesIO whose views are collected with it complains on stderr
            self._memory = memoryview(source.getvalue())  # type: ignore[union-attr]
        else:
            self._fd = os.open(self.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
            self._identity = _identity(self._fd)
        try:
            with h5py.File(source, "r", locking=False) as file:
                self._read_index(file)
        except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
            self.close()
            text = " ".join(str(error).split())
            raise ValueError(f"{source} is not a packed store or was cut off ({text})") from None

    def _read_index(self, file: h5py.File) -> None:
        self.attrs: dict[str, Any] = json.loads(file["attrs"].asstr()[()])
        self.names: list[str] = file["cases/name"].asstr()[()].tolist()
        self.sha256: list[str] = file["cases/sha256"].asstr()[()].tolist()
        self.shuffled: list[bool] = file["cases/shuffled"][()].tolist()
        self._ptr = {g: file[g]["ptr"][()] for g in ("points", *CONNECTIVITY) if g in file}
        self.columns: dict[str, Column] = {}
        self.ptr = torch.from_numpy(self._ptr["points"])
        for group in ("points", *CONNECTIVITY, "cases"):
            for key, array in file[group].items() if group in file else ():
                if key == "ptr" or (group == "cases" and key in OWN):
                    continue
                offset = array.id.get_offset()
                if offset is None and array.size:
                    raise ValueError(f"{group}/{key} is compressed or cut into chunks")
                self.columns[f"{group}/{key}"] = Column(offset or 0, array.shape, array.dtype)

    @property
    def nbytes(self) -> int:
        """Bytes of all fields of all cases."""
        return sum(c.shape[0] * c.row_bytes for c in self.columns.values())

    def __len__(self) -> int:
        return len(self.names)

    def sizes(self, group: str = "points") -> list[int]:
        """Points (or faces, or cells) of each cloud."""
        return np.diff(self._ptr[group]).tolist() if group in self._ptr else [0] * len(self)

    def rows(self, path: str, start: int, stop: int) -> Tensor:
        """Rows of one array, as they lie in the file: ``rows("points/y", 0, 10)``."""
        column = self.columns[path]
        out = np.empty((stop - start, column.shape[1]), column.dtype)
        if out.nbytes:
            self._read_into(out.data.cast("B"), column.offset + start * column.row_bytes)
        return torch.from_numpy(out)

    def __getitem__(self, index: int) -> Data:
        """Case ``index`` whole, its points in the order they had before packing."""
        i = range(len(self))[index]
        order = None
        if self.shuffled[i]:
            start, stop = self._place("points", i)
            order = self.rows("points/order", start, stop)[:, 0].long()
        fields: dict[str, Any] = {}
        for path in self.columns:
            group, key = path.split("/")
            if key == "order":
                continue
            rows = self.rows(path, *self._place(group, i))
            if key in CONNECTIVITY:
                rows = rows.T if key == "face" else rows
                rows = torch.empty(rows.shape, dtype=torch.int64).copy_(rows)
            elif group == "points" and order is not None:
                rows = torch.empty_like(rows).index_copy_(0, order, rows)
            fields[key] = rows
        return Data.from_dict(fields | {"name": self.names[i]})

    def sample(
        self,
        index: int,
        num_points: int,
        generator: torch.Generator,
        share: tuple[int, int] = (0, 1),
    ) -> Data:
        """A random sample of the points of case ``index``, without its connectivity.

        Points are drawn without replacement, all subsets of a small cloud with equal chance. Of a
        shuffled cloud it is the stretch of rows from a random one on, a single read. A cloud with
        no more than ``num_points`` points comes whole.

        Args:
            index: Which case.
            num_points: How many points.
            generator: Decides which.
            share: The r-th of P shares, as (r, P): together they are the sample, each point in one
                of them. Of a shuffled or whole cloud only the rows of the share are read.
        """
        i = range(len(self))[index]
        start, stop = self._place("points", i)
        n = stop - start
        if num_points < 1:
            raise ValueError(f"num_points must be at least 1, got {num_points}")
        first, last = (min(num_points, n) * r // share[1] for r in (share[0], share[0] + 1))
        pick: Tensor | None = None
        begin, count = first, last - first
        if num_points < n and self.shuffled[i]:
            begin = (int(torch.randint(n, (), generator=generator)) + first) % n
        elif num_points < n:
            pick = torch.randperm(n, generator=generator)[first:last]
            begin, count = 0, n
        fields: dict[str, Any] = {}
        for path in self.columns:
            group, key = path.split("/")
            if key in ("order", *CONNECTIVITY):
                continue
            if group == "cases":
                fields[key] = self.rows(path, i, i + 1)
                continue
            rows = self.rows(path, start + begin, start + min(begin + count, n))
            if begin + count > n:
                rows = torch.cat([rows, self.rows(path, start, start + begin + count - n)])
            fields[key] = rows if pick is None else rows[pick]
        return Data.from_dict(fields | {"name": self.names[i]})

    def find_damage(self) -> list[str]:
        """Names of the cases whose content is not what was written; reads the whole file."""
        return [name for i, name in enumerate(self.names) if self.digest(i) != self.sha256[i]]

    def digest(self, index: int) -> str:
        """Checksum of all arrays of case ``index``, as it is written with it; read in stretches."""
        digest = hashlib.sha256()
        for path in sorted(self.columns, key=lambda path: path.split("/")[1]):
            group, key = path.split("/")
            if key == "order" and not self.shuffled[index]:
                continue
            column, (start, stop) = self.columns[path], self._place(group, index)
            shape = (stop - start, column.shape[1])
            digest.update(f"{key} {column.dtype} {shape}".encode())
            step = max(1, BLOCK_BYTES // max(1, column.row_bytes))
            for first in range(start, stop, step):
                digest.update(self.rows(path, first, min(first + step, stop)).numpy().data)
        return digest.hexdigest()

    def _place(self, group: str, i: int) -> tuple[int, int]:
        if group == "cases":
            return i, i + 1
        ptr = self._ptr[group]
        return int(ptr[i]), int(ptr[i + 1])

    def _read_into(self, view: memoryview, offset: int) -> None:
        if self._memory is not None:
            view[:] = self._memory[offset : offset + len(view)]
            return
        if self._fd is None:
            assert self.path is not None
            self._fd = os.open(self.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
            if _identity(self._fd) != self._identity:
                self.close()
                raise RuntimeError(
                    f"{self.path} was packed anew meanwhile; create the data set again"
                )
        done = 0
        while done < len(view):
            got = _read_at(self._fd, view[done:], offset + done)
            if got == 0:
                raise ValueError(f"{self.path} was cut off; delete it to have it packed anew")
            done += got

    def close(self) -> None:
        """Close the file, if it is open; the next access opens it again."""
        if self._fd is not None:
            os.close(self._fd)
        self._fd = None

    def __del__(self) -> None:
        if getattr(self, "_fd", None) is not None:
            self.close()

    def __getstate__(self) -> dict[str, Any]:
        memory = None if self._memory is None else bytes(self._memory)
        return self.__dict__ | {"_fd": None, "_memory": memory}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ = state
        if self._memory is not None:
            self._memory = memoryview(self._memory)


def _identity(fd: int) -> tuple[int, int, int]:
    stat = os.fstat(fd)
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def _read_at(fd: int, view: memoryview, offset: int) -> int:
    """Read at a place of a file without moving its cursor, which processes may share."""
    if hasattr(os, "preadv"):
        return os.preadv(fd, [view], offset)
    with os.fdopen(os.dup(fd), "rb", buffering=0) as file:  # Windows: no fork, no shared cursor
        file.seek(offset)
        return file.readinto(view) or 0
