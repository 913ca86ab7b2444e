"""What all data sets have in common: raw files in, packed once, read as PyG ``Data``."""

from __future__ import annotations

import errno
import hashlib
import inspect
import json
import logging
import os
import pickle
import re
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor
from torch_geometric.data import Data, Dataset
from tqdm import tqdm

from flare_geo.datasets.store import PackedStore, find_fault, write_store

FORMAT = 1
logger = logging.getLogger(__name__)


class Channel(NamedTuple):
    """One column of a field: ``Channel("x", "m", "first coordinate")``; unit "1" is none."""

    name: str
    unit: str
    meaning: str


class PackedDataset(Dataset, ABC):
    """A data set that packs its raw files on first use into ``root/processed``.

    A concrete set declares ``name``, ``splits``, ``channels`` and ``how_to_get``, and implements
    :meth:`raw_files` and :meth:`read`. Everything else is here: every case is checked when it is
    packed; the packed file is made anew whenever a raw file, an option, ``pre_transform`` or
    ``pre_filter`` is not the one it was made with; a root that cannot be written to is served
    from memory. Each split is a file of its own (see :mod:`flare_geo.datasets.store`).

    A ``pre_transform`` or ``pre_filter`` is recognised by its source and its pickled state. One
    that cannot be pickled (a lambda) cannot be recognised, so the cases are packed at each start.

    Args:
        root: Folder of the raw files; they may lie in it, in ``root/raw`` or anywhere below.
        split: One of ``splits``.
        transform: Applied to every case on access.
        pre_transform: Applied to every case once, before it is packed.
        pre_filter: Only cases for which this is true are packed.
        force_reload: Pack again in any case.
        log: Show progress (on a terminal) and say what is unusual.

    Raises:
        ValueError: unknown split, or a case that is not sound.
        FileNotFoundError: a raw file is missing; says where it was sought and how to get it.
    """

    name: ClassVar[str]
    splits: ClassVar[tuple[str, ...]] = ("train", "val", "test")
    channels: ClassVar[dict[str, tuple[Channel, ...]]]
    how_to_get: ClassVar[str]
    version: ClassVar[int] = 1
    """To be raised when :meth:`read` changes what it returns."""

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        transform: Callable[[Data], Data] | None = None,
        pre_transform: Callable[[Data], Data] | None = None,
        pre_filter: Callable[[Data], bool] | None = None,
        force_reload: bool = False,
        log: bool = True,
    ) -> None:
        if split not in self.splits:
            raise ValueError(f"{self.name} has no split '{split}', only {', '.join(self.splits)}")
        self.split = split
        folder = str(Path(root).expanduser())
        super().__init__(folder, transform, pre_transform, pre_filter, log, force_reload)
        self.store = self._open_store()

    @abstractmethod
    def raw_files(self) -> list[Path]:
        """The files this split is read from, found with :meth:`find_raw`."""

    @abstractmethod
    def read(self) -> Iterator[Data]:
        """The cases of the split, in order: ``pos``, ``y``, ``name``, and ``x``, ``face``."""

    @property
    def options(self) -> dict[str, Any]:
        """The set's own keyword arguments, as given."""
        return {}

    @classmethod
    def download(cls, root: str | Path) -> None:  # type: ignore[override]
        """Fetch the raw files into ``root``, where that can be done."""
        raise ValueError(f"{cls.name} has no download: {cls.how_to_get.format(root=root)}")

    @classmethod
    def generate(cls, root: str | Path) -> None:
        """Compute raw files of the same form into ``root``, where that can be done."""
        raise ValueError(f"{cls.name} has no generator: {cls.how_to_get.format(root=root)}")

    @property
    def source(self) -> dict[str, Any]:
        """Where the data come from: at least ``{"generated": bool}``, else from SOURCE.json."""
        return self.store.attrs["source"]

    @property
    def path(self) -> Path:
        """The packed file of this split."""
        options = "".join(f"_{key}{value}" for key, value in self.options.items())
        hooks = [h for h in (self.pre_transform, self.pre_filter) if h is not None]
        if hooks:
            text = repr([_identify(h)[0] for h in (self.pre_transform, self.pre_filter)])
            options += f"_pre{hashlib.sha256(text.encode()).hexdigest()[:8]}"
        return Path(self.processed_dir, f"{self.name}{options}_{self.split}.h5")

    def with_split(self, split: str) -> Self:
        """The same data set with the same options, another split."""
        return type(self)(
            self.root,
            split,
            self.transform,
            self.pre_transform,
            self.pre_filter,
            self.force_reload,
            self.log,
            **self.options,
        )

    def len(self) -> int:
        """Number of cases in the split."""
        return len(self.store)

    def get(self, idx: int) -> Data:
        """Case ``idx``, before ``transform``."""
        return self.store[idx]

    def find_raw(self, filename: str) -> Path:
        """The one file of this name in ``root``, ``root/raw`` or anywhere below ``root``."""
        root = Path(self.root)
        hits = [p for p in (root / filename, root / "raw" / filename) if p.is_file()]
        if not hits:
            for folder, below, files in os.walk(root):
                below[:] = sorted(set(below) - {"processed"})
                hits += [Path(folder, filename)] if filename in files else []
        if len({p.resolve() for p in hits}) > 1:
            places = ", ".join(str(p) for p in hits)
            raise ValueError(f"{self.name}: more than one {filename}, keep one: {places}")
        if not hits:
            where = "" if root.is_dir() else " (there is no such folder)"
            how = self.how_to_get.format(root=root)
            raise FileNotFoundError(f"{self.name}: no {filename} in or below {root}{where}; {how}")
        return hits[0]

    @property
    def has_download(self) -> bool:
        """False: PyG shall not download when a data set is created."""
        return False

    @property
    def raw_paths(self) -> list[str]:
        """PyG's name for :meth:`raw_files`."""
        return [str(p) for p in self.raw_files()]

    @property
    def processed_paths(self) -> list[str]:
        """PyG's name for :attr:`path`."""
        return [str(self.path)]

    def _open_store(self) -> PackedStore:
        attrs, recognised = self._describe()
        if recognised and not self.force_reload:
            try:
                store = PackedStore(self.path)
            except (OSError, KeyError, ValueError):
                pass  # none yet, or not one of ours
            else:
                if store.attrs.get("fingerprint") == attrs["fingerprint"]:
                    return store
        if _is_writable(self.path.parent):
            write_store(self.path, self._cases(), attrs)
            return PackedStore(self.path)
        if self.log:
            logger.warning("%s: %s is read-only, keeping the data in memory", self.name, self.root)
        buffer = BytesIO()
        write_store(buffer, self._cases(), attrs)
        return PackedStore(buffer)

    def _cases(self) -> Iterator[Data]:
        widths = {key: len(channels) for key, channels in self.channels.items()}
        quiet = not (self.log and sys.stderr.isatty())
        for i, data in enumerate(tqdm(self.read(), f"{self.name} {self.split}", disable=quiet)):
            if fault := find_fault(data, widths):
                raise ValueError(
                    f"{self.name} case {i}: {fault} [{self.split}, {data.get('name')}]"
                )
            if self.pre_filter is not None and not self.pre_filter(data):
                continue
            yield data if self.pre_transform is None else self.pre_transform(data)

    def _describe(self) -> tuple[dict[str, Any], bool]:
        """What is written into the packed file, and whether the hooks can be recognised."""
        files = self.raw_files()
        source = {"generated": False}
        beside = files[0].parent / "SOURCE.json"
        if beside.is_file():
            try:
                source |= json.loads(beside.read_text(encoding="utf-8"))
            except (ValueError, TypeError) as error:
                raise ValueError(f"{beside}: not a JSON object ({error})") from None
        hooks = [_identify(self.pre_transform), _identify(self.pre_filter)]
        attrs = {
            "name": self.name,
            "split": self.split,
            "options": self.options,
            "channels": {k: [c._asdict() for c in v] for k, v in self.channels.items()},
            "source": source,
            "hooks": [text for text, _ in hooks],
        }
        stats = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in files]
        made_from = json.dumps([FORMAT, self.version, attrs, stats], sort_keys=True)
        attrs["fingerprint"] = hashlib.sha256(made_from.encode()).hexdigest()
        return attrs, all(recognised for _, recognised in hooks)


def _identify(hook: Callable[[Data], Any] | None) -> tuple[str, bool]:
    """A text that changes when the hook does, and whether it holds in another process."""
    if hook is None:
        return "None", True
    text = re.sub(r" at 0x[0-9a-f]+", "", repr(hook))
    try:
        code = inspect.getsource(hook if inspect.isroutine(hook) else type(hook))
        state = BytesIO()
        _StatePickler(state).dump(hook)
    except Exception:  # no source to be had, or whatever pickling it raises
        return text, False
    return f"{text} {hashlib.sha256(code.encode() + state.getvalue()).hexdigest()}", True


class _StatePickler(pickle.Pickler):
    """For comparing, never for loading. Torch pickles a tensor by address, this by value."""

    def reducer_override(self, obj: Any) -> Any:
        if not isinstance(obj, Tensor):
            return NotImplemented
        values = obj.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes()
        return bytes, (values, str(obj.dtype), tuple(obj.shape))


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return False
        raise
