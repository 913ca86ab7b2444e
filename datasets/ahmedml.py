"""AhmedML: pressure and wall shear stress on 500 Ahmed bodies."""

from __future__ import annotations

from typing import ClassVar

from flare_geo.datasets.base import Channel
from flare_geo.datasets.cars import CarDataset
from flare_geo.datasets.run_tables import RunLists, Table, run_lists

NUM_RUNS = 500
ABUPT_VAL = (
    "24 26 29 38 41 55 59 104 108 124 133 142 158 173 180 188 196 197 199 205 207 210 222 226 230 "
    "258 263 280 281 284 290 291 295 304 312 337 350 354 363 372 387 403 405 424 428 429 432 455 "
    "472 494"
)
ABUPT_TEST = (
    "4 11 12 19 20 22 56 109 127 150 165 177 187 191 203 208 215 228 234 241 247 252 253 260 271 "
    "275 298 303 311 321 322 324 328 329 341 352 364 366 376 380 382 390 401 410 423 436 441 447 "
    "454 487"
)
LENGTHS = (
    *("body-length", "body-height", "body-width", "front-arc-diameter", "slant-angle-length"),
    *("slant-angle-height", "slant-surface-length"),
)


class AhmedMLDataset(CarDataset):
    r"""Mean pressure and wall shear stress on 500 variants of the Ahmed body.

    From `AhmedML <https://arxiv.org/abs/2407.20801>`_ (Ashton, Maddix, Gundry, Shabestari, 2024),
    licence CC BY-SA 4.0, about 2 TB at https://huggingface.co/datasets/neashton/ahmedml. Hybrid
    RANS-LES in OpenFOAM, meshes of about 20 million cells. :meth:`download` fetches surfaces
    (0.06 to 0.09 GB a run), tables and, on request, shapes and volumes.

    ::

        root/run_{i}/boundary_{i}.vtp          polygons, cell data
        root/run_{i}/geo_parameters_{i}.csv    8 parameters
        root/run_{i}/force_mom_{i}.csv         cd, cl for the fixed reference area
        root/run_{i}/ahmed_{i}.stl             shape
        root/run_{i}/volume_{i}.vtu            about 5.6 GB
        root/processed/ahmedml_{train,val,test}.h5

    The tables may be missing, or lie in ``root`` as ``geo_parameters_all.csv`` and
    ``force_mom_all.csv``. Mind that ``force_mom`` is for the fixed area here, while in DrivAerML
    it is for that of each run. The arguments are those of
    :class:`~flare_geo.datasets.cars.CarDataset`.

    Split ``"abupt"``, the only one built in: 400 runs for training, 50 for val, 50 for test, from
    AB-UPT (Emmi AI). The repository has lists of its own since 2026, ``splits/manifest.json``;
    take yours from there with ``splits=``.

    **Units.** Metres; flow along +x with U = 1 m/s, z up, ground at z = 0, tail of the body at
    x = 0. Pressure and shear are kinematic, in m^2/s^2, so :math:`q = U^2/2 = 0.5` and the
    pressure coefficient is 2 p. Reference area 0.112032 m^2.

    **Not verified here,** for want of the real files, but taken from public code that reads them:
    names and units of arrays and columns, U, the reference area, the orientation of the polygons
    (into the body, as in DrivAerML). Others found that the forces in the tables of runs 105, 159
    and 492 do not follow from their surface fields
    (https://huggingface.co/datasets/neashton/ahmedml/discussions/5).

    Shapes:
        ``pos [n, 3]`` centres of the polygons, the mean of their corners; ``y [n, c]`` the targets
        chosen; ``normal [n, 3]``, ``area [n, 1]``; where the tables are there ``geometry [1, 8]``
        and ``forces [1, 2]``; ``name`` like ``"run_12"``.

    Raises:
        ValueError: a list or option that does not fit; broken files, named with what is wrong.
        FileNotFoundError: no run of the split is there; says how to get them.

    Example:
        >>> AhmedMLDataset.download("data/ahmedml", runs=[1, 2, 4, 24])
        >>> train = AhmedMLDataset("data/ahmedml", targets=["cp"], num_points=4096)
        >>> train[0].y.shape
        torch.Size([4096, 1])
    """

    name: ClassVar[str] = "ahmedml"
    how_to_get: ClassVar[str] = (
        "get some (0.1 GB a run, CC BY-SA 4.0) with: flare-geo data download ahmedml --root {root} "
        "--runs [1,2]"
    )
    run_lists: ClassVar[dict[str, RunLists]] = {
        "abupt": run_lists(range(1, NUM_RUNS + 1), val=ABUPT_VAL, test=ABUPT_TEST)
    }
    arrays: ClassVar[dict[str, tuple[str, str]]] = {
        "surface": ("pMean", "wallShearStressMean"),
        "volume": ("pMean", "UMean"),
    }
    speed: ClassVar[float] = 1.0
    reference_area: ClassVar[float] = 0.112032
    tables: ClassVar[dict[str, Table]] = {
        "geometry": Table(
            "geo_parameters_{i}.csv",
            "geo_parameters_all.csv",
            (
                *(Channel(name, "mm", "of the body") for name in LENGTHS),
                Channel("slant-angle-degrees", "deg", "of the body"),
            ),
        ),
        "forces": Table(
            "force_mom_{i}.csv",
            "force_mom_all.csv",
            (Channel("Cd", "1", "drag coefficient"), Channel("Cl", "1", "lift coefficient")),
        ),
    }
    hub: ClassVar[tuple[str, str]] = (
        "neashton/ahmedml",
        "02688c727cdb8dc8678e28abc6bbbb7e93c5fa15",
    )
    files: ClassVar[dict[str, tuple[str, ...]]] = {
        "boundary": ("run_{i}/boundary_{i}.vtp",),
        "forces": ("run_{i}/force_mom_{i}.csv",),
        "geometry": ("run_{i}/geo_parameters_{i}.csv",),
        "stl": ("run_{i}/ahmed_{i}.stl",),
        "volume": ("run_{i}/volume_{i}.vtu",),
    }
