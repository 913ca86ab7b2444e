"""The base of the car data sets of Ashton et al.: a folder per run, VTK files and tables."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Unpack

import torch

from flare_geo.datasets.base import Channel, PackedDataset
from flare_geo.datasets.fetch.parts import join_parts, whole_of
from flare_geo.datasets.reading import CaseTransform, Reading
from flare_geo.datasets.run_tables import Run, RunLists, Table, compact, own_lists, read_row
from flare_geo.pyg import Data

logger = logging.getLogger(__name__)
AXES = ("x", "y", "z")
POS = tuple(Channel(axis, "m", f"{axis} of the centre of the cell") for axis in AXES)
VECTOR = {"surface": "wall_shear", "volume": "velocity"}
BESIDE = {
    "normal": tuple(Channel(f"n{a}", "1", f"{a} of the normal, into the body") for a in AXES),
    "area": (Channel("area", "m^2", "area of the polygon"),),
}


class CarDataset(PackedDataset):
    """Pressure and wall shear stress on cars, or pressure and velocity around them.

    Both fields are packed as they are in the files, with the normals and areas of the polygons;
    ``targets`` and ``dimensionless`` only choose what is shown, on every access. Runs may be
    missing; those there are when a split is packed are its cases, and once it is packed their
    files may be deleted, all of them together.

    The arguments that are not named here are those of :class:`PackedDataset`.

    Args:
        targets: Columns of ``y``, in this order: any of ``"pressure"``, ``"cp"`` (pressure / q),
            and ``"wall_shear"`` on the surface, ``"velocity"`` in the volume.
        dimensionless: Divide pressure and shear by :math:`q = U^2 / 2`, velocity by U.
        fields: ``"surface"``, or ``"volume"`` for the cells around the car.
        splits: The list of runs: the name of a published one (see ``run_lists``), or your own as a
            mapping or JSON file, ``{"train": [1, 2, ...], "test": [...]}``.
        layout: Form of the files, where the data set has several; None takes the one that is there.
    """

    run_lists: ClassVar[dict[str, RunLists]]
    """Published lists of runs, the default first."""
    withheld: ClassVar[frozenset[int]] = frozenset()
    arrays: ClassVar[dict[str, tuple[str, str]]]
    """Names of the pressure and the vector in the files, for each of ``fields``."""
    speed: ClassVar[float]
    """Speed U of the flow in m/s."""
    reference_area: ClassVar[float]
    """Area in m^2 that ``forces`` refer to."""
    tables: ClassVar[dict[str, Table]]
    shows: ClassVar[tuple[str, ...]] = ("targets", "dimensionless")
    layouts: ClassVar[tuple[str, ...]] = ("runs",)
    hub: ClassVar[tuple[str, str]]
    """Repository on the Hugging Face Hub and its revision."""
    files: ClassVar[dict[str, tuple[str, ...]]]
    """Names of the files of a run on the Hub, by what they hold."""

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
        targets: Sequence[str] = ("pressure",),
        dimensionless: bool = False,
        fields: str = "surface",
        splits: str | Path | Mapping[str, Sequence[int]] | None = None,
        layout: str | None = None,
        **reading: Unpack[Reading],
    ) -> None:
        if fields not in self.arrays:
            raise ValueError(f"fields must be one of {', '.join(self.arrays)}, got '{fields}'")
        known = ("pressure", "cp", VECTOR[fields])
        if isinstance(targets, str) or not targets or not set(targets) <= set(known):
            raise ValueError(f"targets must be a list of {', '.join(known)}, got {targets!r}")
        if layout not in (None, *self.layouts):
            raise ValueError(f"layout must be one of {', '.join(self.layouts)}, got '{layout}'")
        self.targets, self.dimensionless, self.fields = tuple(targets), dimensionless, fields
        self.layout = layout or self.find_layout(Path(root).expanduser())
        if self.layout != self.layouts[0] and fields != "surface":
            raise ValueError(f"{self.layout} archives hold surfaces only, got fields='{fields}'")
        self.chosen, self.numbers = self._choose(splits)
        self.splits = tuple(self.numbers)  # type: ignore[misc]
        self.channels = self._shown_channels()
        super().__init__(
            root, split, transform, pre_transform, pre_filter, force_reload, log, **reading
        )
        packed = self.store.columns
        self.channels |= {k: t.columns for k, t in self.tables.items() if f"cases/{k}" in packed}
        self._report_missing()

    @classmethod
    def download(  # type: ignore[override]
        cls,
        root: str | Path,
        runs: str | Sequence[int] | None = None,
        what: Sequence[str] = ("boundary", "forces", "geometry"),
        revision: str | None = None,
        log: bool = True,
    ) -> None:
        """Fetch run folders from the Hub; says how many files and bytes first.

        What the Hub serves in parts is joined, and the parts are removed.

        Args:
            root: Folder that gets the run folders.
            runs: Numbers, or a split of the default list such as ``"test"``; None is all there are.
            what: Any of the keys of ``files``.
            revision: Of the repository; None is the one this was written for.
            log: Say what is fetched and show progress.
        """
        from flare_geo.datasets.fetch.hub import download_hub

        if isinstance(what, str) or not set(what) <= cls.files.keys():
            raise ValueError(f"what must be a list of {', '.join(cls.files)}, got {what!r}")
        numbers, folder = cls._public(runs), Path(root).expanduser()
        names = [name.format(i=i) for i in numbers for key in what for name in cls.files[key]]
        wholes = dict.fromkeys(whole_of(name) for name in names if whole_of(name) != name)
        there = {whole for whole in wholes if (folder / whole).is_file()}
        if names := [name for name in names if whole_of(name) not in there]:
            repository, pinned = cls.hub
            download_hub(
                repository,
                folder,
                names,
                revision=revision or pinned,
                licence="CC BY-SA 4.0",
                note=f"{', '.join(what)} of {len(numbers)} runs",
                log=log,
            )
        for whole in wholes:
            join_parts(folder / whole)

    @property
    def options(self) -> dict[str, Any]:
        """What decides which runs are packed and from which files, where it is not the default."""
        given = {"splits": self.chosen, "layout": self.layout, "fields": self.fields}
        usual = {"splits": None, "layout": self.layouts[0], "fields": "surface"}
        return {key: value for key, value in given.items() if value != usual[key]}

    @property
    def packed_channels(self) -> dict[str, tuple[Channel, ...]]:
        """Pressure and vector in the units of the files."""
        beside = BESIDE if self.fields == "surface" and self.layout == "runs" else {}
        return {"pos": POS, "y": self._columns(("pressure", VECTOR[self.fields]), False), **beside}

    def raw_files(self) -> list[Path]:
        """The files of the runs of this split that are on the disk, and their tables."""
        runs = self._runs()
        common = set.intersection(*(set(run.tables) for run in runs))
        for field in sorted({key for run in runs for key in run.tables} - common):
            lack = compact([run.number for run in runs if field not in run.tables])
            if self.log:
                text = "%s %s: '%s' is left out, these runs lack it: %s"
                logger.warning(text, *self._who, field, lack)
        tables = {path for run in runs for path in run.tables.values()}
        return [*(run.path for run in runs), *sorted(tables)]

    def cases(self) -> list[Run]:
        """The runs of this split that are on the disk, with the tables that all of them have."""
        runs = self._runs()
        common = set.intersection(*(set(run.tables) for run in runs))
        return [run._replace(tables={k: run.tables[k] for k in sorted(common)}) for run in runs]

    def read_case(self, key: Run) -> Data:
        """One run: fields at the centres of all cells, and a row of each table."""
        data = self.read_fields(key.path)
        data.name = str(key)
        for field, path in key.tables.items():
            columns = [channel.name for channel in self.tables[field].columns]
            data[field] = torch.tensor([read_row(path, columns, key.number)], dtype=torch.float32)
        return data

    def read_fields(self, path: Path) -> Data:
        """``pos`` and ``y`` of one file, on a surface with ``normal`` and ``area``."""
        from flare_geo.mesh import from_pyvista, read_mesh

        names = self.arrays[self.fields]
        data = from_pyvista(read_mesh(path, names), y=names, dim=3, at="cell")
        if self.fields == "surface" and "normal" not in data:
            raise ValueError(f"{path}: expected a surface of polygons and nothing else")
        return data

    @property
    def on_mesh(self) -> dict[str, Any]:
        """Cells of a mesh; on a surface also how forces follow from the targets."""
        pressure, vector = self.arrays[self.fields]
        unit, found = self._units(), []
        for target in self.targets:
            name, width = (vector, 3) if target == VECTOR[self.fields] else (pressure, 1)
            found += [[name, i, 1 / unit[target]] for i in range(width)]
        recipe = {"at": "cell", "dim": 3, "inputs": [], "outputs": found}
        if self.fields == "surface":
            recipe["forces"] = {
                "pressure": pressure,
                "wall_shear": vector,
                "dynamic_pressure": self.speed**2 / 2,
                "reference_area": self.reference_area,
            }
        return recipe

    def present(self, data: Data) -> Data:
        """The chosen targets, in the chosen units."""
        unit = self._units()
        columns = {"pressure": slice(0, 1), "cp": slice(0, 1), VECTOR[self.fields]: slice(1, 4)}
        data.y = torch.cat([data.y[:, columns[key]] / unit[key] for key in self.targets], dim=1)
        return data

    def mesh(self, index: int) -> Any:
        """The pyvista mesh a case was read from, its cells the points of the case; no arrays."""
        from flare_geo.mesh import read_mesh

        name = {"surface": "boundary_{i}.vtp", "volume": "volume_{i}.vtu"}[self.fields]
        return read_mesh(self._file_of(index, name), [])

    def find_layout(self, root: Path) -> str:
        """Which of ``layouts`` lies there."""
        return self.layouts[0]

    def find_runs(self) -> list[Path]:
        """The files with the fields of every run there is, of all splits."""
        kind = {"surface": "boundary_*.vtp", "volume": "volume_*.vtu"}[self.fields]
        return [p for place in _places(Path(self.root)) for p in place.glob(f"run_*/{kind}")]

    @property
    def _who(self) -> tuple[str, str]:
        return self.name, self.split

    def _choose(
        self, splits: str | Path | Mapping[str, Sequence[int]] | None
    ) -> tuple[str | RunLists | None, Mapping[str, tuple[int, ...] | None]]:
        """The option as it is kept, and the runs of each split; None is whatever is there."""
        default = next(iter(self.run_lists))
        if splits is None or (splits == default and self.layout == self.layouts[0]):
            return None, self.run_lists[default]
        if isinstance(splits, str) and splits in self.run_lists:
            return splits, self.run_lists[splits]
        lists = own_lists(splits, self.run_lists)
        return lists, lists

    def _units(self) -> dict[str, float]:
        """What each target is divided by."""
        unit = {"pressure": 1.0, "cp": self.speed**2 / 2, VECTOR[self.fields]: 1.0}
        if self.dimensionless:
            pressure = self.speed**2 / 2
            vector = self.speed if self.fields == "volume" else pressure
            unit |= {"pressure": pressure, VECTOR[self.fields]: vector}
        return unit

    def _shown_channels(self) -> dict[str, tuple[Channel, ...]]:
        return self.packed_channels | {"y": self._columns(self.targets, self.dimensionless)}

    def _columns(self, targets: Sequence[str], dimensionless: bool) -> tuple[Channel, ...]:
        kinematic = ("1", " / q") if dimensionless else ("m^2/s^2", ", kinematic")
        speed = ("1", " / U") if dimensionless else ("m/s", "")
        (unit, how), (v_unit, v_how) = kinematic, speed
        columns = {
            "pressure": [Channel("p", unit, f"mean pressure{how}")],
            "cp": [Channel("cp", "1", "pressure coefficient, mean pressure / q")],
            "wall_shear": [Channel(f"tau_{a}", unit, f"mean wall shear stress{how}") for a in AXES],
            "velocity": [Channel(f"u_{a}", v_unit, f"mean velocity{v_how}") for a in AXES],
        }
        return tuple(channel for target in targets for channel in columns[target])

    def _runs(self) -> list[Run]:
        """The runs of this split that are on the disk, in the order of the list."""
        found: dict[int, Path] = {}
        for path in sorted(self.find_runs()):
            number = int(re.sub(r"\D", "", path.stem) or -1)
            if number in found:
                raise ValueError(
                    f"{self.name}: run_{number} is there twice, {found[number]} and {path}: give "
                    "the folder of one data set as root"
                )
            found[number] = path
        listed = self.numbers[self.split]
        numbers = sorted(found) if listed is None else [i for i in listed if i in found]
        if hidden := [i for i in listed or () if i in self.withheld and i not in found]:
            raise ValueError(f"{self.name}: {self._hidden(hidden)}")
        if not numbers:
            raise FileNotFoundError(self._nothing_there(listed))
        return [Run(i, found[i], self._tables_of(i, found[i])) for i in numbers]

    def _tables_of(self, number: int, path: Path) -> dict[str, Path]:
        tables: dict[str, Path] = {}
        for field, table in self.tables.items():
            places = [path.with_name(table.of_run.format(i=number))]
            if table.of_all is not None:
                places += [path.parents[1] / table.of_all, Path(self.root, table.of_all)]
            if there := next((place for place in places if place.is_file()), None):
                tables[field] = there
        return tables

    def _nothing_there(self, listed: Sequence[int] | None) -> str:
        root = Path(self.root)
        runs = f"none of its runs {compact(listed)}" if listed else "no runs"
        where = f"in {root}" if root.is_dir() else f"in {root} (there is no such folder)"
        parts = (p for place in _places(root) for p in place.glob("run_*/volume_*.part"))
        if self.fields == "volume" and any(parts):
            where += " but in parts, which flare-geo data download --what [volume] joins"
        return f"{self.name} {self.split}: {runs} {where}; {self.how_to_get.format(root=root)}"

    def _report_missing(self) -> None:
        listed = self.numbers[self.split]
        if listed is None or not self.log or self.pre_filter is not None:
            return
        known = {*self.store.names, *(case for case, _ in self.store.attrs.get("left_out", []))}
        missing = [i for i in listed if f"run_{i}" not in known]
        if missing and not self.source["generated"]:
            text = "%s %s: %d of %d runs are not there (%s); the others are used"
            count = (len(missing), len(listed))
            logger.warning(text, *self._who, *count, compact(missing))

    def _file_of(self, index: int, name: str) -> Path:
        run = self.store.names[index]
        name = name.format(i=run.removeprefix("run_"))
        for place in _places(Path(self.root)):
            if (place / run / name).is_file():
                return place / run / name
        raise FileNotFoundError(f"{self.name}: no {run}/{name} in {self.root}")

    @classmethod
    def _public(cls, runs: str | Sequence[int] | None) -> list[int]:
        lists = next(iter(cls.run_lists.values()))
        public = sorted(i for numbers in lists.values() for i in numbers)
        if runs is None:
            return public
        if isinstance(runs, str):
            if runs not in lists:
                known = ", ".join(lists)
                raise ValueError(f"runs must be numbers or one of {known}, got '{runs}'")
            return list(lists[runs])
        if hidden := [i for i in runs if i in cls.withheld]:
            raise ValueError(f"{cls.name}: {cls._hidden(hidden)}")
        if unknown := [i for i in runs if i not in public]:
            raise ValueError(f"{cls.name} has runs {compact(public)}, got {compact(unknown)}")
        return list(runs)

    @classmethod
    def _hidden(cls, numbers: Sequence[int]) -> str:
        number = len(cls.withheld)
        return f"runs withheld by the authors ({number} in all) were asked for: {compact(numbers)}"


def _places(root: Path) -> list[Path]:
    """The folder and those directly in it that may hold runs."""
    if not root.is_dir():
        return []
    below = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith((".", "run_")))
    return [root, *(p for p in below if p.name != "processed")]
