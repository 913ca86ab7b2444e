"""Reads clouds of points that are packed end to end in one HDF5 file.

What the file holds, for B clouds with N points, F faces and M cells in all::

    points/ptr     [B + 1] int64    cloud b owns the rows ptr[b]:ptr[b+1] of every array beside it
    points/pos     [N, d]  float32
    points/y       [N, c]  float32  likewise points/x and every other array with a row per point
    points/order   [N, 1]  int32    only where clouds are shuffled: row j was point order[j]
    face/ptr       [B + 1] int64    face/face [F, 3] int32, points of the same cloud
    cells/ptr      [B + 1] int64    cells/cells [M, k] int32, likewise
    cases/name     [B]     str      cases/sha256 [B] str: of what the file holds of a case
    cases/shuffled [B]     bool     likewise cases/<key> [B, g]: what a cloud has only once
    attrs          JSON             whatever the writer wants to say about the file

Nothing is padded, compressed or pickled. Every array is contiguous in the file, so a process
reads rows straight from their place in it, without the HDF5 library and without a lock.

Large clouds are shuffled when they are written: any run of their rows is a random sample.
"""

from __future__ import annotations

import hashlib
import json
import os
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import torch
from torch import Tensor

from flare_geo.pyg import Data

CHUNK_BYTES = 2**26
"""Bytes of an array, or of cases, that are read or held at a time."""

CONNECTIVITY = ("face", "cells")
RESERVED = ("name", "sha256", "shuffled")
"""What the group `cases` of a store holds of its own."""


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
                if key == "ptr" or (group == "cases" and key in RESERVED):
                    continue
                offset = array.id.get_offset()
                if offset is None and array.size:
                    raise ValueError(f"{group}/{key} is compressed or chunked")
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
        shard: tuple[int, int] = (0, 1),
    ) -> Data:
        """A random sample of the points of case ``index``, without its connectivity.

        Points are drawn without replacement, all subsets of a small cloud with equal chance. Of a
        shuffled cloud it is a run of rows that starts at a random one, a single read. A cloud with
        no more than ``num_points`` points comes whole.

        Args:
            index: Which case.
            num_points: How many points.
            generator: Decides which.
            shard: The r-th of P shards, as (r, P): together they are the sample, each point in one
                of them. Of a shuffled or whole cloud only the rows of the shard are read.
        """
        i = range(len(self))[index]
        start, stop = self._place("points", i)
        n = stop - start
        if num_points < 1:
            raise ValueError(f"num_points must be at least 1, got {num_points}")
        first, last = (min(num_points, n) * r // shard[1] for r in (shard[0], shard[0] + 1))
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
        """Checksum of all arrays of case ``index``, as it is written with it; read in chunks."""
        digest = hashlib.sha256()
        for path in sorted(self.columns, key=lambda path: path.split("/")[1]):
            group, key = path.split("/")
            if key == "order" and not self.shuffled[index]:
                continue
            column, (start, stop) = self.columns[path], self._place(group, index)
            shape = (stop - start, column.shape[1])
            digest.update(f"{key} {column.dtype} {shape}".encode())
            step = max(1, CHUNK_BYTES // max(1, column.row_bytes))
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
