"""Arrays of MATLAB files, versions 5 and 7.3, in MATLAB's own order of the axes."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray


class Rows(NamedTuple):
    """A sample and its part of some arrays, for files that are best read in one go."""

    name: str
    arrays: tuple[NDArray[np.float32], ...]

    def __str__(self) -> str:
        return self.name


class MatFile:
    """A ``.mat`` file, read by name; nothing but numeric arrays is ever read.

    Both kinds give the same arrays: version 7.3 is HDF5 and holds them with the axes reversed,
    which is undone here. Of a version 7.3 file only the wanted part is read. A version 5 file is a
    stream of (often deflated) variables with the first axis, the samples, fastest: it is read
    one whole variable at a time and the part is copied out of it.

    Args:
        path: The file.

    Raises:
        ValueError: neither of the two, or cut off.
        FileNotFoundError: no such file.

    Example:
        >>> file = MatFile("piececonst_r421_N1024_smooth1.mat")
        >>> file.shapes["coeff"]
        (1024, 421, 421)
        >>> file.read("coeff", np.s_[:1000, ::5, ::5]).shape
        (1000, 85, 85)
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        with self.path.open("rb"):
            self.is_hdf5 = bool(h5py.is_hdf5(self.path))
        self.shapes: dict[str, tuple[int, ...]] = self._guarded(self._read_shapes)

    def count(self, name: str, each: tuple[int, ...]) -> int:
        """Number of samples of ``name``, an array of samples of shape ``each``.

        Raises:
            ValueError: no such array, or another shape.
        """
        shape = self._known(name)
        if shape[1:] != each:
            wanted = ", ".join(["samples", *map(str, each)])
            raise ValueError(
                f"{self.path}: expected '{name}' of shape ({wanted}), got {shape}; put the "
                "official file there"
            )
        return shape[0]

    def read(self, name: str, part: slice | Sequence[slice] = ()) -> NDArray[Any]:
        """The array ``name``, or a part of it: one slice for each of the first axes.

        Raises:
            ValueError: no such array (lists those there are), not numeric, or the file is cut off.
        """
        slices = (part,) if isinstance(part, slice) else tuple(part)
        slices += (slice(None),) * (len(self._known(name)) - len(slices))
        array: NDArray[Any] = self._guarded(self._read_array, name, slices)
        if array.dtype.kind not in "fiub":
            raise ValueError(f"{self.path}: '{name}' is {array.dtype}, expected numbers")
        return array

    def _known(self, name: str) -> tuple[int, ...]:
        if name not in self.shapes:
            there = ", ".join(self.shapes) or "no arrays"
            raise ValueError(f"{self.path}: no array '{name}', it holds {there}")
        return self.shapes[name]

    def _read_shapes(self) -> dict[str, tuple[int, ...]]:
        if self.is_hdf5:
            with h5py.File(self.path, "r", locking=False) as file:
                arrays = {k: v for k, v in file.items() if isinstance(v, h5py.Dataset)}
                return {key: array.shape[::-1] for key, array in arrays.items()}
        from scipy.io import whosmat

        self._check_length()
        return {key: tuple(shape) for key, shape, _ in whosmat(self.path)}

    def _check_length(self) -> None:
        """Walk over the variables of a version 5 file: scipy does not see that the last is cut."""
        size = self.path.stat().st_size
        with self.path.open("rb") as file:
            order = {b"IM": "<", b"MI": ">"}.get(file.read(128)[126:])
            end = 128 if order else size
            while end < size:
                file.seek(end)
                _, length = struct.unpack(f"{order}II", file.read(8))
                end += 8 + length
        if end > size:
            raise ValueError(f"it ends after {size} bytes, the last array after {end}")

    def _read_array(self, name: str, slices: tuple[slice, ...]) -> NDArray[Any]:
        if self.is_hdf5:
            with h5py.File(self.path, "r", locking=False) as file:
                return np.asarray(file[name][slices[::-1]]).T
        from scipy.io import loadmat

        return np.array(loadmat(self.path, variable_names=[name])[name][slices])

    def _guarded(self, read: Any, *arguments: Any) -> Any:
        try:
            return read(*arguments)
        except (FileNotFoundError, PermissionError, MemoryError):
            raise
        except Exception as error:  # scipy raises whatever its parser stumbles over
            why = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(
                f"{self.path} is not a MATLAB file of version 5 or 7.3, or it is cut off ({why}); "
                "get it again"
            ) from None
