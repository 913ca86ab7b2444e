"""AirfRANS: air flow around 1000 airfoils, in the form PyTorch Geometric distributes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from typing import ClassVar, Unpack
from zipfile import BadZipFile

import torch

from flare_geo.datasets.base import Channel, PackedDataset
from flare_geo.datasets.reading import CaseTransform, Reading
from flare_geo.pyg import AirfRANS, Data

CASES, MANIFEST = "AirfRANS.pt", "manifest.json"
COMPONENTS = ("x", "y")


class AirfRANSDataset(PackedDataset):
    r"""Velocity, pressure and turbulent viscosity around 1000 airfoils in two dimensions.

    `AirfRANS <https://arxiv.org/abs/2212.07564>`_ (Bonnet, Mazari, Cinnella, Gallinari, 2022),
    steady incompressible RANS in OpenFOAM at Reynolds numbers of 2 to 6 million, licence ODbL 1.0,
    as :class:`torch_geometric.datasets.AirfRANS` distributes it. The files, where they come from
    and the tasks are that class's; it reads all cases into memory and keeps a processed copy of
    each task, while here a case is read at a time.

    ::

        root/raw/AirfRANS.pt      list of dicts, one a case: pos, x, y, surf, name
        root/raw/manifest.json    names of the cases of each task, {task}_{train,test}
        root/processed/airfrans_task*_num_val*_{train,val,test}.h5

    ============  =========  =====  ===============================================================
    task          train+val  test   what is tested
    ============  =========  =====  ===============================================================
    ``full``      800        200    interpolation
    ``scarce``    200        200    interpolation from few cases; the test cases of ``full``
    ``reynolds``  504        496    Reynolds numbers outside those of training
    ``aoa``       804        196    angles of attack outside those of training
    ============  =========  =====  ===============================================================

    The literature has no cases for choosing checkpoints: ``num_val``, evenly spread, are taken out
    of the training cases. A case has some 180,000 points: give ``num_points``.

    **Not verified here,** for want of the real files: the counts, and that all of the raw file
    loads. The tests compare with PyG's class on files of the form that it reads. There are no
    checksums, and PyG fetches without checking the server's certificate: if that matters, put
    ``AirfRANS.zip`` into ``root/raw`` yourself; :meth:`download` unpacks it.

    The arguments that are not named here are those of :class:`PackedDataset`.

    Args:
        task: ``"full"``, ``"scarce"``, ``"reynolds"`` or ``"aoa"``.
        num_val: Training cases held out for validation; 0 leaves ``val`` empty, as published.

    Shapes:
        ``pos [n, 2]``, ``x [n, 5]``, ``y [n, 4]``, ``surface [n, 1]``, ``name`` as in the manifest:
        ``"airFoil2D_SST_..."`` with inlet velocity, angle of attack and digits of the NACA series.

    Raises:
        ValueError: no such task, too large a ``num_val``, or files that are something else.
        FileNotFoundError: no files; says how to get them.

    Example:
        >>> AirfRANSDataset.download("data/airfrans")
        >>> train = AirfRANSDataset("data/airfrans", task="scarce", num_points=16_000)
        >>> train[0].y.shape
        torch.Size([16000, 4])
    """

    name: ClassVar[str] = "airfrans"
    channels = {  # noqa: RUF012
        "pos": tuple(Channel(c, "m", f"{c} coordinate") for c in COMPONENTS),
        "x": (
            *(Channel(f"inlet u{c}", "m/s", f"{c} of the velocity far away") for c in COMPONENTS),
            Channel("distance", "m", "to the airfoil"),
            *(Channel(f"n{c}", "1", f"{c} of the airfoil's normal; 0 off it") for c in COMPONENTS),
        ),
        "y": (
            *(Channel(f"u{c}", "m/s", f"{c} component of the velocity") for c in COMPONENTS),
            Channel("p/rho", "m^2/s^2", "pressure over density"),
            Channel("nu_t", "m^2/s", "turbulent kinematic viscosity"),
        ),
        "surface": (Channel("surface", "1", "1 on the airfoil, else 0"),),
    }
    how_to_get: ClassVar[str] = (
        "to fetch it (ODbL 1.0): flare-geo data download airfrans --root {root}"
    )

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
        task: str = "full",
        num_val: int = 40,
        **reading: Unpack[Reading],
    ) -> None:
        if task not in AirfRANS.tasks:
            raise ValueError(f"airfrans has no task '{task}', only {', '.join(AirfRANS.tasks)}")
        if num_val < 0:
            raise ValueError(f"num_val must be at least 0, got {num_val}")
        self.task, self.num_val = task, num_val
        super().__init__(
            root, split, transform, pre_transform, pre_filter, force_reload, log, **reading
        )

    @classmethod
    def download(cls, root: str | Path, log: bool = True) -> None:  # type: ignore[override]
        """Fetch and unpack the files into ``root/raw`` as PyG's class does.

        An ``AirfRANS.zip`` that is there already is unpacked.

        Raises:
            OSError: the server cannot be reached, or what came is not whole.
        """
        raw = Path(root).expanduser() / "raw"
        if all((raw / name).is_file() for name in (CASES, MANIFEST)):
            return
        if log:
            print(f"airfrans: {AirfRANS.url}, licence: ODbL 1.0", file=sys.stderr)
        raw.mkdir(parents=True, exist_ok=True)
        pyg = AirfRANS.__new__(AirfRANS)  # its constructor would process all cases
        pyg.root = str(raw.parent)
        try:
            pyg.download()
        except (OSError, BadZipFile) as error:
            (raw / Path(AirfRANS.url).name).unlink(missing_ok=True)  # it would be taken for whole
            raise OSError(f"cannot fetch {AirfRANS.url}: {error}; run it again") from None

    def raw_files(self) -> list[Path]:
        """The cases and the manifest, which all splits share."""
        return [self.find_raw(CASES), self.find_raw(MANIFEST)]

    def cases(self) -> list[tuple[int, str]]:
        """Place in the file and name of each case of the split, in the order of the file."""
        path = self.find_raw(MANIFEST)
        train, test = f"{self.task}_train", f"{self.task}_test"
        try:
            names = json.loads(path.read_text(encoding="utf-8"))
            names["scarce_test"] = names["full_test"]
            everything = list(enumerate(names["full_train"] + names["full_test"]))
            chosen = {part: set(names[part]) for part in (train, test)}
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is not the manifest of AirfRANS ({error!r})") from None
        if self.split == "test":
            return [case for case in everything if case[1] in chosen[test]]
        rest = [case for case in everything if case[1] in chosen[train]]
        if self.num_val > len(rest):
            raise ValueError(f"num_val must be at most {len(rest)} here, got {self.num_val}")
        spread = [(2 * i + 1) * len(rest) // (2 * self.num_val) for i in range(self.num_val)]
        val = {rest[i] for i in spread}
        return [case for case in rest if (case in val) == (self.split == "val")]

    def read_case(self, key: tuple[int, str]) -> Data:
        """One case; of the others in the file nothing is read."""
        path, (place, name) = self.find_raw(CASES), key
        try:
            case = torch.load(path, map_location="cpu", weights_only=True, mmap=True)[place]
            fields = {key: case[key].clone() for key in ("pos", "x", "y", "surf")}
        except (UnpicklingError, RuntimeError, EOFError, LookupError, TypeError) as error:
            why = str(error).partition("\n")[0]
            raise ValueError(f"{path}: no case {place} with pos, x, y and surf ({why})") from None
        if case.get("name", name) != name:
            raise ValueError(f"{path}: case {place} is {case['name']}, not {name}")
        return Data(
            pos=fields["pos"].float(),
            x=fields["x"].float(),
            y=fields["y"].float(),
            surface=fields["surf"].float().view(-1, 1),
            name=name,
        )
