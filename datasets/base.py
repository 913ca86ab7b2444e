"""What all data sets have in common: raw files in, packed once, read as PyG ``Data``."""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import torch
from filelock import FileLock

from flare_geo.arguments import as_json, remembers_arguments
from flare_geo.datasets.reading import CaseTransform, Signed
from flare_geo.datasets.source import find_files, read_source
from flare_geo.datasets.store import PackedStore, write_store
from flare_geo.datasets.store.faults import Fault, find_fault, name_faults
from flare_geo.datasets.store.hooks import identify
from flare_geo.datasets.store.packing import is_writable, pack
from flare_geo.pyg import Data
from flare_geo.transforms.base import drop_connectivity, point_fields
from flare_geo.transforms.prediction import is_pointwise

FORMAT = 2
logger = logging.getLogger(__name__)


class Undeclared(str):
    """A class variable that concrete classes declare; a class that does not is abstract."""

    __isabstractmethod__ = True


class Channel(NamedTuple):
    """One column of a field: ``Channel("x", "m", "first coordinate")``; unit "1" is none."""

    name: str
    unit: str
    meaning: str


@remembers_arguments
class PackedDataset(Signed, ABC):
    """A data set that packs its raw files on first use into ``root/processed``.

    A concrete set declares ``name``, ``splits``, ``channels`` and ``how_to_get``, and implements
    :meth:`raw_files`, :meth:`cases` and :meth:`read_case`. Its constructor, if it has one, names
    the options of its own and passes the others on, ``**reading: Unpack[Reading]``; those that only
    choose what is shown stand in ``shows``. Everything else is here: every case is checked when it
    is packed; the packed file is made anew whenever a raw file, an option, ``pre_transform`` or
    ``pre_filter`` differs from the one it was made with; packing that was interrupted is resumed;
    a root that cannot be written to is served from memory. Each split is a file of its own (see
    :mod:`flare_geo.datasets.store.reader`); once it is there the raw files may be deleted.

    A ``pre_transform`` or ``pre_filter`` is recognised by its source and its pickled state. One
    that cannot be pickled, such as a lambda, makes the cases be packed at each start.

    Args:
        root: Folder of the raw files; they may lie in it, in ``root/raw`` or anywhere below.
        split: One of ``splits``.
        transform: Applied to every case on access.
        pre_transform: Applied to every case once, before it is packed.
        pre_filter: Only cases for which this is true are packed.
        force_reload: Pack again in any case.
        log: Show progress (on a terminal) and say what is unusual.
        num_points: Draw this many random points of a cloud on every access, without connectivity;
            None gives clouds whole. The training split draws others in every epoch (see
            :meth:`set_epoch`), the other splits always the same ones.
        skip_unsound: Leave out cases that are not sound and say which, instead of raising.
        workers: Processes that read the raw files when they are packed; where more than one, they
            are spawned, so a script needs ``if __name__ == "__main__":``.

    Raises:
        ValueError: unknown split, or cases that are not sound: all of them are named.
        FileNotFoundError: a raw file is missing; says where it was sought and how to get it.
    """

    name: ClassVar[str] = Undeclared()
    splits: ClassVar[tuple[str, ...]] = ("train", "val", "test")
    channels: dict[str, tuple[Channel, ...]]
    """What the user sees in each field; a set whose options choose sets it on the instance."""
    how_to_get: ClassVar[str]
    shows: ClassVar[tuple[str, ...]] = ()
    """The set's own options that do not change what is packed."""
    config: dict[str, Any]
    """The arguments this set was made with."""
    version: ClassVar[int] = 1
    """To be raised when :meth:`read_case` changes what it returns."""

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        transform: CaseTransform | None = None,
        pre_transform: CaseTransform | None = None,
        pre_filter: Callable[[Data], bool] | None = None,
        force_reload: bool = False,
        log: bool = True,
        *,
        num_points: int | None = None,
        skip_unsound: bool = False,
        workers: int = 1,
    ) -> None:
        if split not in self.splits:
            raise ValueError(f"{self.name} has no split '{split}', only {', '.join(self.splits)}")
        if num_points is not None and num_points < 1:
            raise ValueError(f"num_points must be at least 1 or None, got {num_points}")
        for name, parameter in inspect.signature(type(self)).parameters.items():
            if parameter.kind is parameter.VAR_POSITIONAL:  # these are root, split, ...
                self.config.pop(name)
        self.split = split
        self.num_points, self.skip_unsound, self.workers = num_points, skip_unsound, workers
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()  # loading processes see it
        folder = str(Path(root).expanduser())
        super().__init__(folder, transform, pre_transform, pre_filter, log, force_reload)
        self.store = self._open_store()

    @abstractmethod
    def raw_files(self) -> list[Path]:
        """The files this split is read from, found with :meth:`find_raw`."""

    @abstractmethod
    def cases(self) -> Sequence[Any]:
        """What :meth:`read_case` takes for each case of the split, in order; small, picklable."""

    @abstractmethod
    def read_case(self, key: Any) -> Data:
        """One case as it is packed: ``pos``, ``name``, mostly ``y``, and what else there is.

        Called in several processes. A ValueError or OSError makes the case an unsound one.
        """

    @property
    def options(self) -> dict[str, Any]:
        """The set's own arguments that change what is packed."""
        own = {k: v for k, v in self.config.items() if k not in {*_COMMON, *self.shows}}
        plain = {k: str(v) if isinstance(v, Path) else v for k, v in own.items()}
        return as_json(plain, self.name)

    @property
    def packed_channels(self) -> dict[str, tuple[Channel, ...]]:
        """Channels of what :meth:`read_case` returns, where they differ from ``channels``."""
        return self.channels

    @property
    def on_mesh(self) -> dict[str, Any]:
        """How a mesh becomes a case of this set, for predictions: see :mod:`flare_geo.mesh.case`.

        Unless a set says otherwise, the points of the cloud are those of the mesh, and inputs and
        targets are arrays with the names of the channels.
        """
        return {
            "at": "point",
            "dim": len(self.channels["pos"]),
            "inputs": [channel.name for channel in self.channels.get("x", ())],
            "outputs": [[channel.name, 0, 1.0] for channel in self.channels.get("y", ())],
        }

    def present(self, data: Data) -> Data:
        """From the packed case to what the user sees, on every access: targets chosen, units."""
        return data

    def set_epoch(self, epoch: int) -> None:
        """Make the training split draw the random points of this epoch, in all its processes."""
        self._epoch.fill_(epoch)

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
        if len(options) > 60 or not re.fullmatch(r"[\w.+-]*", options):
            text = json.dumps(self.options, sort_keys=True)
            options = f"_{hashlib.sha256(text.encode()).hexdigest()[:8]}"
        hooks = [h for h in (self.pre_transform, self.pre_filter) if h is not None]
        if hooks:
            text = repr([identify(h)[0] for h in (self.pre_transform, self.pre_filter)])
            options += f"_pre{hashlib.sha256(text.encode()).hexdigest()[:8]}"
        return Path(self.processed_dir, f"{self.name}{options}_{self.split}.h5")

    def with_split(self, split: str) -> Self:
        """The same data set with the same options, another split."""
        now = {k: getattr(self, k) for k in _COMMON if k != "split"}
        changed = {k: v for k, v in now.items() if k in self.config or v != _COMMON[k]}
        return type(self)(**{**self.config, **changed, "split": split})

    def len(self) -> int:
        """Number of cases in the split."""
        return len(self.store)

    @property
    def sizes(self) -> list[int]:
        """Number of points of each case, before ``transform``; nothing is read for it."""
        sizes, most = self.store.sizes(), self.num_points
        whole = [sizes[i] for i in self.indices()]
        return whole if most is None else [min(n, most) for n in whole]

    def get(self, idx: int) -> Data:
        """Case ``idx``, before ``transform``."""
        if self.num_points is None:
            return self.present(self.store[idx])
        return self._sample(idx, self.num_points)

    def shard(self, idx: int, rank: int, ranks: int) -> Data:
        """The points of case ``idx`` that one of several ranks holds, without connectivity.

        The ranks together have the points of ``self[idx]``, each one on one of them. The others
        are not even read, unless there is a ``transform`` that needs the whole case.

        Raises:
            ValueError: if there is no such rank.
        """
        if not 0 <= rank < ranks:
            raise ValueError(f"rank must be 0 to {ranks - 1}, got {rank}")
        i = self.indices()[idx]
        if self.transform is None or is_pointwise(self.transform):
            most = self.num_points or max(1, int(self.store.ptr[i + 1] - self.store.ptr[i]))
            data = self._sample(i, most, (rank, ranks))
            return data if self.transform is None else self.transform(data)
        data = self[idx]
        n = len(data["pos"])
        held = slice(n * rank // ranks, n * (rank + 1) // ranks)
        for key in point_fields(data):
            data[key] = data[key][held]
        drop_connectivity(data)
        return data

    def _sample(self, idx: int, num_points: int, shard: tuple[int, int] = (0, 1)) -> Data:
        return self.present(self.store.sample(idx, num_points, self._generator(idx), shard))

    def _generator(self, idx: int) -> torch.Generator:
        """Draws the points of a case: other ones in every epoch, in the training split."""
        epoch = int(self._epoch) if self.split == "train" else -1
        digest = hashlib.sha256(f"{epoch} {self.store.names[idx]}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))

    def find_raw(self, filename: str) -> Path:
        """The one file of this name in ``root``, ``root/raw`` or anywhere below ``root``."""
        root = Path(self.root)
        hits = find_files(root, filename)
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
        path = self.path
        try:
            attrs = self._describe()
        except FileNotFoundError:
            store = self._packed()  # the raw files may have been deleted since
            if store is None or store.attrs["recipe"] != self._content_hash():
                raise
            return self._accept(store)
        if not is_writable(path.parent):
            if (store := self._fresh(attrs)) is not None:  # one without cases is false
                return self._accept(store)
            if self.log:
                logger.warning("%s: %s is read-only, data stay in memory", self.name, self.root)
            buffer = BytesIO()
            write_store(buffer, self._sound_cases(), attrs)
            return PackedStore(buffer)
        with FileLock(path.with_name(f".{path.stem}.lock")):  # one packs, the others wait
            if (store := self._fresh(attrs)) is None:
                keys = self.cases()
                read = partial(self._read, keys)
                pack(path, len(keys), read, attrs, self._on_faults, self.workers, self.log)
                return PackedStore(path)
        return self._accept(store)

    def _packed(self) -> PackedStore | None:
        """The packed file, if there is one of ours."""
        try:
            store = PackedStore(self.path)
        except (OSError, ValueError):
            return None
        return store if {"recipe", "fingerprint", "source"} <= store.attrs.keys() else None

    def _fresh(self, attrs: dict[str, Any]) -> PackedStore | None:
        """The packed file, if it was made from what is there now and shall not be made anew."""
        store = None if self.force_reload else self._packed()
        same = store is not None and store.attrs["fingerprint"] == attrs["fingerprint"]
        return store if same else None

    def _accept(self, store: PackedStore) -> PackedStore:
        left_out = [Fault(*fault) for fault in store.attrs.get("left_out", [])]
        if left_out:
            self._on_faults(left_out)
        return store

    def _on_faults(self, faults: list[Fault]) -> None:
        """Name every unsound case: as an error, or as a warning if they shall be left out."""
        text = f"{self.name} {self.split}: {name_faults(faults)}"
        if not self.skip_unsound:
            raise ValueError(f"{text} (to leave them out: skip_unsound=True)")
        if self.log:
            logger.warning("%s; left out", text)

    def _read(self, keys: Sequence[Any], i: int) -> Data | Fault | None:
        """Case i, checked and passed through the hooks."""
        try:
            data = self.read_case(keys[i])
        except (ValueError, OSError) as error:
            return Fault(str(keys[i]), " ".join(str(error).split()))
        widths = {key: len(channels) for key, channels in self.packed_channels.items()}
        name = str(data.get("name", keys[i]))
        if fault := find_fault(data, widths):
            return Fault(name, fault)
        if self.pre_filter is not None and not self.pre_filter(data):
            return None
        if self.pre_transform is not None:
            data = self.pre_transform(data)
            if fault := find_fault(data, {}):
                return Fault(name, f"after pre_transform: {fault}")
        return data

    def _sound_cases(self) -> Iterator[Data]:
        keys = self.cases()
        read = [self._read(keys, i) for i in range(len(keys))]
        if faults := [case for case in read if isinstance(case, Fault)]:
            self._on_faults(faults)
        yield from (case for case in read if isinstance(case, Data))

    def _content_hash(self) -> str:
        """A hash of all that decides what is packed, but for the raw files."""
        channels = {k: [c._asdict() for c in v] for k, v in self.packed_channels.items()}
        hooks = [identify(hook)[0] for hook in (self.pre_transform, self.pre_filter)]
        what = [FORMAT, self.version, self.name, self.split, self.options, channels, hooks]
        return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()

    def _describe(self) -> dict[str, Any]:
        """What the packed file says about itself. Its fingerprint never occurs again if a hook
        cannot be recognised.
        """
        files = self.raw_files()
        hooks = [identify(self.pre_transform), identify(self.pre_filter)]
        stats = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in files]
        attrs = {
            "name": self.name,
            "split": self.split,
            "options": self.options,
            "channels": {k: [c._asdict() for c in v] for k, v in self.packed_channels.items()},
            "source": read_source(files, Path(self.root)),
            "hooks": [text for text, _ in hooks],
            "recipe": self._content_hash(),
        }
        once = None if all(recognised for _, recognised in hooks) else os.urandom(16).hex()
        made_from = json.dumps([attrs, stats, once], sort_keys=True)
        attrs["fingerprint"] = hashlib.sha256(made_from.encode()).hexdigest()
        return attrs


_COMMON = {name: p.default for name, p in inspect.signature(PackedDataset).parameters.items()}
