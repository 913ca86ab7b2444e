"""Arrays and JSON from ``.npz`` files of any origin; no pickle is ever loaded."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

BROKEN = (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error, NotImplementedError)
JSON_BYTES = 2**20


class PickledError(ValueError):
    """An array holds Python objects, which NumPy pickles; it is not opened."""


def npz_names(path: str | Path) -> list[str]:
    """The names of the arrays in an ``.npz`` file, in its order.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not an ``.npz`` file, or was cut off.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    except FileNotFoundError:
        raise
    except BROKEN as error:
        raise ValueError(f"{path} is not a whole .npz file ({error}); get it again") from None


def read_npz(path: str | Path, names: Iterable[str]) -> dict[str, NDArray[Any]]:
    """The named arrays of an ``.npz`` file; the others are not touched.

    Raises:
        FileNotFoundError: there is no such file.
        PickledError: an array holds Python objects (a pickle, which is not opened).
        ValueError: a name is missing (says which there are), the file was cut off or is something
            else.

    Example:
        >>> np.savez("case.npz", pos=np.zeros((4, 3)), temp=np.ones(4))
        >>> read_npz("case.npz", ["temp"])
        {'temp': array([1., 1., 1., 1.])}
    """
    names, there = list(names), npz_names(path)
    if missing := [name for name in names if name not in there]:
        raise ValueError(f"{path} holds no {_quote(missing)}, only {_quote(there)}")
    arrays = {}
    with zipfile.ZipFile(path) as archive:
        for name in names:
            try:
                with archive.open(f"{name}.npy") as member:
                    arrays[name] = np.lib.format.read_array(member, allow_pickle=False)
            except (*BROKEN, KeyError, MemoryError) as error:
                if "allow_pickle" in str(error):
                    raise PickledError(
                        f"{path}: '{name}' holds pickled Python objects, which are not opened: "
                        "write it as a plain array"
                    ) from None
                raise ValueError(
                    f"{path}: '{name}' cannot be read ({error}): the file was cut off or damaged, "
                    "get it again"
                ) from None
    return arrays


def read_json_member(path: str | Path, name: str) -> dict[str, Any]:
    """The JSON object in an array of one text, as :func:`json_array` makes it.

    Args:
        path: An ``.npz`` file.
        name: The member, such as ``"_metadata"`` in the LPBF set; at most 1 MB.

    Raises:
        FileNotFoundError: there is no such file.
        PickledError: the text was pickled; it is not opened.
        ValueError: there is no such member, or it holds anything else.
    """
    array = read_npz(path, [name])[name]
    try:
        if array.shape not in ((), (1,)) or array.dtype.kind != "U":
            raise ValueError(f"it is {array.dtype} {array.shape}, expected one text")
        if array.nbytes > 4 * JSON_BYTES:  # 4 bytes a letter
            raise ValueError(f"it is longer than {JSON_BYTES} letters")
        value = json.loads(str(array.reshape(())))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: '{name}' is not one JSON text ({error})") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: '{name}' holds JSON of type {type(value).__name__}, not object")
    return value


def json_array(value: dict[str, Any]) -> NDArray[np.str_]:
    """JSON as an array ``[1]`` of text, for :func:`numpy.savez`.

    ``json.loads(array[0])`` reads it; no ``allow_pickle`` is needed.
    """
    return np.array([json.dumps(value)])


def _quote(names: Iterable[str], most: int = 12) -> str:
    quoted = [f"'{name}'" for name in names]
    more = [f"{len(quoted) - most} more"] if len(quoted) > most else []
    return ", ".join(quoted[:most] + more)
