"""DrivAerML: pressure and wall shear stress on 484 cars."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch

from flare_geo.datasets.base import Channel
from flare_geo.datasets.cars import CarDataset
from flare_geo.datasets.drivaerml_runs import HIDDEN, RUN_LISTS
from flare_geo.datasets.grids import MIRROR
from flare_geo.datasets.readers.npz import read_npz
from flare_geo.datasets.run_tables import RunLists, Table
from flare_geo.pyg import Data

MORPHS = (
    *("Vehicle_Length", "Vehicle_Width", "Vehicle_Height", "Front_Overhang", "Front_Planview"),
    *("Hood_Angle", "Approach_Angle", "Windscreen_Angle", "Greenhouse_Tapering", "Backlight_Angle"),
    *("Decklid_Height", "Rearend_tapering", "Rear_Overhang", "Rear_Diffusor_Angle"),
    *("Vehicle_Ride_Height", "Vehicle_Pitch"),
)

PRESAMPLED = ("10k", "40k", "100k", "200k", "300k", "400k", "500k", "1m")


class DrivAerMLDataset(CarDataset):
    r"""Mean pressure and wall shear stress on 484 variants of the DrivAer notchback.

    From `DrivAerML <https://arxiv.org/abs/2408.11969>`_ (Ashton et al., 2024), licence CC BY-SA
    4.0, about 30 TB at https://huggingface.co/datasets/neashton/drivaerml. Scale-resolving CFD in
    OpenFOAM, 500 morphed cars, of which 16 are withheld. :meth:`download` fetches surfaces (0.55
    to 0.75 GB a run), tables and, on request, shapes and volumes; :meth:`generate` makes a small
    set of the same form from a potential flow, ``source["generated"]`` tells the two apart.

    ::

        root/run_{i}/boundary_{i}.vtp              polygons, cell data; about 8.8 million
        root/run_{i}/geo_parameters_{i}.csv        16 morph parameters
        root/run_{i}/force_mom_constref_{i}.csv    Cd, Cl, Clf, Clr, Cs for a fixed area 2.17 m^2
        root/run_{i}/geo_ref_{i}.csv               aRef, lRef of the run
        root/run_{i}/drivaer_{i}.stl               shape
        root/run_{i}/volume_{i}.vtu                about 160 million cells; on the Hub in two parts,
                                                   which :meth:`download` joins
        root/drivaerml_surface_presampled_{n}/{train,test}/run_{i}.npz
                                                   instead: random cells, as FLARE was trained on
        root/processed/drivaerml_{train,val,test}.h5

    The arguments are those of :class:`~flare_geo.datasets.cars.CarDataset`. The tables may
    be missing, or lie in ``root`` as ``geo_parameters_all.csv`` and
    ``force_mom_constref_all.csv``. ``layout="presampled"`` reads FLARE's archives of 10k to 1m
    cells a run, see :meth:`download`.

    =================  =====  ====  ====  ===================================================
    ``splits``         train  val   test
    =================  =====  ====  ====  ===================================================
    ``"abupt"``        400    34    50    AB-UPT (Emmi AI); the default
    ``"physicsnemo"``  436    none  48    DoMINO, GLOBE and Transolver of NVIDIA PhysicsNeMo
    None, presampled   n      none  n     the folders of the archive, as FLARE was trained
    =================  =====  ====  ====  ===================================================

    PhysicsNeMo calls its 48 runs validation; they are what its papers report on, so here they are
    ``"test"``. Its list has no runs to choose checkpoints by: doing so on these 48 makes the
    error on them too small. The list that FLARE used was not published, only its archives. Runs of
    a list that are not on the disk are named in a warning.

    **Units.** Metres; flow along +x, z up, wheels on the ground at about z = -0.32, front axle at
    x = 0. The solver is incompressible: pressure and shear are kinematic (per density), in
    m^2/s^2. U = 38.889 m/s, :math:`q = U^2/2 = 756.2` m^2/s^2. ``area * normal`` points out of
    the fluid, into the car, as the polygons are written: with it :func:`~flare_geo.metrics.\
surface_force` gives the forces of the tables; the literature has the same for run 1, Cd 0.3109247.

    **Not verified here:** that the morph parameters are in mm, the pitch in degrees (public code
    says so); that volumes name their arrays pMeanTrim and UMeanTrim; the sizes of the presampled
    archives and the licence they were put under.

    Shapes:
        ``pos [n, 3]`` centres of the polygons, the mean of their corners; ``y [n, c]`` the targets
        chosen; ``normal [n, 3]``, ``area [n, 1]`` (not presampled); where the tables are there
        ``geometry [1, 16]``, ``forces [1, 5]``, ``reference [1, 2]``; ``name`` like ``"run_12"``.

    Raises:
        ValueError: a list or option that does not fit; broken files, named with what is wrong.
        FileNotFoundError: no run of the split is there; says how to get them.

    Example:
        >>> DrivAerMLDataset.generate("data/drivaerml", num_runs=20)
        >>> train = DrivAerMLDataset("data/drivaerml", targets=["cp"], num_points=4096)
        >>> train[0].y.shape
        torch.Size([4096, 1])
    """

    name: ClassVar[str] = "drivaerml"
    how_to_get: ClassVar[str] = (
        "get some (0.65 GB a run, CC BY-SA 4.0) with: flare-geo data download drivaerml --root "
        "{root} --runs [1,2]; or run: flare-geo data generate drivaerml --root {root}"
    )
    run_lists: ClassVar[dict[str, RunLists]] = RUN_LISTS
    withheld: ClassVar[frozenset[int]] = HIDDEN
    arrays: ClassVar[dict[str, tuple[str, str]]] = {
        "surface": ("pMeanTrim", "wallShearStressMeanTrim"),
        "volume": ("pMeanTrim", "UMeanTrim"),
    }
    speed: ClassVar[float] = 38.889
    reference_area: ClassVar[float] = 2.17
    tables: ClassVar[dict[str, Table]] = {
        "geometry": Table(
            "geo_parameters_{i}.csv",
            "geo_parameters_all.csv",
            tuple(
                Channel(name, "deg" if name == "Vehicle_Pitch" else "mm", "morph parameter")
                for name in MORPHS
            ),
        ),
        "forces": Table(
            "force_mom_constref_{i}.csv",
            "force_mom_constref_all.csv",
            (
                Channel("Cd", "1", "drag coefficient"),
                Channel("Cl", "1", "lift coefficient"),
                Channel("Clf", "1", "lift coefficient, front"),
                Channel("Clr", "1", "lift coefficient, rear"),
                Channel("Cs", "1", "side force coefficient"),
            ),
        ),
        "reference": Table(
            "geo_ref_{i}.csv",
            None,
            (
                Channel("aRef", "m^2", "frontal area of the run"),
                Channel("lRef", "m", "reference length of the run"),
            ),
        ),
    }
    layouts: ClassVar[tuple[str, ...]] = ("runs", "presampled")
    hub: ClassVar[tuple[str, str]] = (
        "neashton/drivaerml",
        "f26d75e0d3dee10ba0e42829bafd0e0d95ca5acc",
    )
    files: ClassVar[dict[str, tuple[str, ...]]] = {
        "boundary": ("run_{i}/boundary_{i}.vtp",),
        "forces": ("run_{i}/force_mom_constref_{i}.csv", "run_{i}/force_mom_{i}.csv"),
        "geometry": ("run_{i}/geo_parameters_{i}.csv", "run_{i}/geo_ref_{i}.csv"),
        "stl": ("run_{i}/drivaer_{i}.stl",),
        "volume": ("run_{i}/volume_{i}.vtu.00.part", "run_{i}/volume_{i}.vtu.01.part"),
    }

    @classmethod
    def download(  # type: ignore[override]
        cls,
        root: str | Path,
        runs: str | Sequence[int] | None = None,
        what: Sequence[str] = ("boundary", "forces", "geometry"),
        revision: str | None = None,
        log: bool = True,
    ) -> None:
        """Fetch run folders from the Hub, or what FLARE was trained on.

        What the Hub serves in parts is joined, and the parts are removed.

        Args:
            root: Folder that gets the run folders.
            runs: Numbers, or a split of the default list such as ``"test"``; None is all there are.
            what: Any of the keys of ``files``; or ``["presampled_40k"]``, random cells of every
                surface in one archive: 10k, 40k, 100k, 200k, 300k, 400k, 500k or 1m of them.
            revision: Of the repository; None is the one this was written for.
            log: Say what is fetched and show progress.
        """
        from flare_geo.datasets.fetch.archive import unpack
        from flare_geo.datasets.fetch.hub import download_hub

        if list(what) not in [[f"presampled_{points}"] for points in PRESAMPLED]:
            super().download(root, runs, what, revision, log)
            return
        (archive,) = download_hub(
            MIRROR,
            Path(root),
            [f"drivaerml_surface_{what[0]}.tar.gz"],
            licence="none stated for the archives; DrivAerML itself is CC BY-SA 4.0",
            note="cells drawn from DrivAerML",
            log=log,
        )
        unpack(archive, Path(root))
        archive.unlink()

    @classmethod
    def generate(  # type: ignore[override]
        cls,
        root: str | Path,
        num_runs: int = 40,
        resolution: int = 50_000,
        seed: int = 0,
        workers: int | None = None,
        log: bool = True,
    ) -> None:
        """Solve the potential flow around ``num_runs`` bodies and write them in this form.

        Args:
            root: Folder for the runs.
            num_runs: At most 484; the first ones are of all splits.
            resolution: Polygons of a surface, about.
            seed: The same seed gives the same bodies.
            workers: Number of processes; None lets the generator choose.
            log: Show progress.
        """
        from flare_geo.datasets.generators.drivaerml import generate_drivaerml

        generate_drivaerml(
            root, num_runs=num_runs, resolution=resolution, seed=seed, workers=workers, log=log
        )

    def find_layout(self, root: Path) -> str:
        """``"presampled"`` where archives of FLARE lie, unless there are run folders too."""
        if self.fields == "volume" or any(root.glob("run_*/")) or any(root.glob("*/run_*/")):
            return "runs"
        return "presampled" if _archives(root) else "runs"

    def find_runs(self) -> list[Path]:
        """The files with the fields of every run there is."""
        if self.layout == "runs":
            return super().find_runs()
        baked = ("train", "test") if self.chosen else (self.split,)
        folders = _archives(Path(self.root))
        return [p for folder in folders for s in baked for p in (folder / s).glob("run_*.npz")]

    def read_fields(self, path: Path) -> Data:
        """``pos`` and ``y`` of one run, on a whole surface with ``normal`` and ``area``."""
        if self.layout == "runs":
            return super().read_fields(path)
        names = ("surface_mesh_centers", "surface_fields")
        centre, fields = (array for array in read_npz(path, names).values())
        shapes = centre.shape, fields.shape
        if centre.ndim != 2 or shapes != ((len(centre), 3), (len(centre), 4)):
            raise ValueError(
                f"{path}: expected {names[0]} [P, 3] and {names[1]} [P, 4] (p, tau_x, tau_y, "
                f"tau_z), got {list(shapes[0])} and {list(shapes[1])}"
            )
        return Data(pos=torch.from_numpy(centre).float(), y=torch.from_numpy(fields).float())

    def _choose(self, splits: Any) -> Any:
        if self.layout == "presampled" and splits is None:
            return None, {"train": None, "test": None}
        return super()._choose(splits)


def _archives(root: Path) -> list[Path]:
    """The folders of presampled archives: root, or those directly in it."""
    if any(path for split in ("train", "test") for path in (root / split).glob("run_*.npz")):
        return [root]
    return sorted(root.glob("drivaerml_surface_presampled_*/"))
