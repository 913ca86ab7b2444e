"""Arrays and JSON out of ``.npz`` files of others, without ever running what a pickle says."""

from __future__ import annotations

import io
import json
import pickle
import pickletools
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

BROKEN = (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error, NotImplementedError)
JSON_BYTES = 2**20
OPCODES = {  # what numpy.save writes for an object array of text, in pickle protocols 3, 4 and 5
    *("PROTO", "FRAME", "STOP", "MARK", "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD", "APPEND"),
    *("BINPUT", "MEMOIZE", "BINGET", "EMPTY_LIST", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2"),
    *("TUPLE3", "BININT", "BININT1", "BININT2", "NONE", "NEWTRUE", "NEWFALSE", "APPENDS"),
    *("SHORT_BINBYTES", "SHORT_BINUNICODE", "BINUNICODE"),
}


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
        ValueError: a name is missing (says which there are), one holds Python objects (a pickle,
            which is not opened), the file was cut off or is something else.

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
                raise ValueError(f"{path}: '{name}' {_why(error)}") from None
    return arrays


def read_json_member(path: str | Path, name: str) -> dict[str, Any]:
    """The JSON object in an array of one text, even if that array was pickled.

    NumPy pickles arrays of Python objects, and loading a pickle runs what it says. Here it may
    only name the three things that rebuild such an array, each of which stands for an inert
    substitute of our own that does nothing but keep the text; no code of NumPy or of anyone else
    is run. ``np.array([json.dumps(value)])``, which needs no pickle, is read as well.

    Args:
        path: An ``.npz`` file.
        name: The member, such as ``"_metadata"`` in the LPBF set; at most 1 MB.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no such member, or one that holds anything else; nothing of it was run.
    """
    there = npz_names(path)
    if name not in there:
        raise ValueError(f"{path} holds no {_quote([name])}, only {_quote(there)}")
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as member:
            content = member.read(JSON_BYTES + 1)
        if len(content) > JSON_BYTES:
            raise ValueError(f"it is larger than {JSON_BYTES} bytes")
        value = json.loads(_text(content))
    except (*BROKEN, KeyError, MemoryError, RecursionError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path}: '{name}' is not one JSON text ({error}); not opened") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: '{name}' holds JSON of type {type(value).__name__}, not object")
    return value


def json_array(value: dict[str, Any]) -> NDArray[np.str_]:
    """JSON as an array ``[1]`` of text, for :func:`numpy.savez`.

    ``json.loads(array[0])`` reads it, just as it does for the pickled arrays of the official
    files, but this one needs no ``allow_pickle``.
    """
    return np.array([json.dumps(value)])


def _why(error: Exception) -> str:
    if "allow_pickle" in str(error):
        return "holds pickled Python objects, which are not opened: write it as a plain array"
    return f"cannot be read ({error}): the file was cut off or damaged, get it again"


def _quote(names: Iterable[str], most: int = 12) -> str:
    quoted = [f"'{name}'" for name in names]
    more = [f"{len(quoted) - most} more"] if len(quoted) > most else []
    return ", ".join(quoted[:most] + more)


def _text(content: bytes) -> str:
    member = io.BytesIO(content)
    shape, _, dtype = _header(member)
    if shape not in ((), (1,)):
        raise ValueError(f"it has shape {shape}, expected (1,)")
    if not dtype.hasobject:
        values = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False).ravel().tolist()
    else:
        values = _Unpickler.values(content[member.tell() :])
    if len(values) != 1 or not isinstance(values[0], str):
        raise ValueError(f"it holds {type(values[0] if values else None).__name__}, expected str")
    return values[0]


def _header(member: io.BytesIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(member)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(member)
    return np.lib.format.read_array_header_2_0(member)


class _Inert:
    """In place of an array or a dtype in a pickle: keeps its state, does nothing."""

    state: Any = None

    def __init__(self, *_: Any) -> None: ...

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    """Knows the three names in a pickled object array, and only substitutes for them.

    The real ones will not do: the state of a dtype can tell NumPy to take bytes for pointers.
    """

    ALLOWED = (
        *(("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct")),
        *(("numpy", "ndarray"), ("numpy", "dtype")),
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise ValueError(f"it names {module}.{name}")
        return _Inert

    @classmethod
    def values(cls, content: bytes) -> list[Any]:
        """The objects of the pickled array."""
        if unusual := {code.name for code, _, _ in pickletools.genops(content)} - OPCODES:
            raise ValueError(f"its pickle uses {', '.join(sorted(unusual))}")
        try:
            array = cls(io.BytesIO(content)).load()
        except (TypeError, AttributeError, IndexError, KeyError) as error:
            raise ValueError(str(error)) from None
        state = array.state if isinstance(array, _Inert) else None
        if not isinstance(state, tuple) or len(state) != 5 or not isinstance(state[4], list):
            raise ValueError("its pickle is not an array")
        return state[4]
