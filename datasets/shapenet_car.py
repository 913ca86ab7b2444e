"""ShapeNet-Car: air flow around 889 cars, pressure on their surfaces and velocity around them."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Unpack

import numpy as np
import torch
from torch import Tensor

from flare_geo.datasets.base import Channel, PackedDataset
from flare_geo.datasets.reading import CaseTransform, Reading
from flare_geo.pyg import Data

NUM_CASES, NUM_TEST = 889, 189
NUM_RAW_POINTS = 3682
UNUSED = slice(16, 112)  # points of the surface files that belong to no car
WITHOUT_FILES = {
    "param2/854bb96a96a4d1b338acbabdc1252e2f",
    "param2/85bb9748c3836e566f81b21e2305c824",
    "param5/9ec13da6190ab1a3dd141480e2c154d3",
    "param8/c5079a5b8d59220bc3fb0d224baae2a",
}
PARAMS = tuple(f"param{i}" for i in range(9))
SURFACE, VOLUME = "quadpress_smpl.vtk", "hexvelo_smpl.vtk"
POSITION = (
    Channel("x", "m", "across the car"),
    Channel("y", "m", "up"),
    Channel("z", "m", "along the car"),
)
NORMAL = tuple(Channel(f"n{c}", "1", f"{c} component of the outward normal") for c in "xyz")
TOWARDS = tuple(Channel(f"d{c}", "1", f"{c} component of the direction from there") for c in "xyz")
CHANNELS = {
    "surface": {
        "pos": POSITION,
        "y": (Channel("pressure", "Pa", "pressure on the car"),),
        "normal": NORMAL,
        "area": (Channel("area", "m^2", "share of the surface that belongs to the point"),),
    },
    "volume": {
        "pos": POSITION,
        "x": (Channel("distance", "m", "to the nearest point of the car's surface"), *TOWARDS),
        "y": tuple(Channel(f"u{c}", "m/s", f"{c} component of the velocity") for c in "xyz"),
    },
}


class ShapeNetCarDataset(PackedDataset):
    r"""Pressure on 889 cars, or the velocity of the air around them, at 72 km/h.

    From `Learning three-dimensional flow for interactive aerodynamic design
    <https://doi.org/10.1145/3197517.3201325>`_ (Umetani, Bickel, 2018): ``mlcfd_data.zip``, 2 GB,
    http://www.nobuyuki-umetani.com/publication/mlcfd_data.zip. **No licence is stated**; the shapes
    come from ShapeNet, which is for non-commercial research. No checksum is published either, so
    the file is not fetched here: put it into ``root``, and :meth:`download` unpacks it.

    ::

        root/mlcfd_data.zip                                    may be deleted once unpacked
        root/mlcfd_data/training_data/param{0..8}/{id}/
            quadpress_smpl.vtk   3682 points, 3584 quadrilaterals, point_scalars = pressure
            hexvelo_smpl.vtk     29498 points, hexahedra, point_vectors = velocity
        root/processed/shapenet_car_*_{train,val,test}.h5

    The folders ``param0``, ``param1``, ... may lie anywhere below ``root``, and not all need to be
    there. Points 16 to 111 of a surface file belong to no quadrilateral and are dropped, as
    the literature does, which leaves 3586. Four folders of the archive are empty and left out.

    ==============  =========  =======  ==========================================================
    splits          train+val  test     test cases
    ==============  =========  =======  ==========================================================
    ``upt``         700        189      ``randperm(889, seed 0)[:189]`` of all cases in order
    ``transolver``  789        100      those of ``param0``
    ==============  =========  =======  ==========================================================

    ``upt`` is that of UPT, AB-UPT and FLARE, ``transolver`` that of Transolver and GINO. Of n other
    than 889 cases ``upt`` takes ``randperm(n, seed 0)[:189 n // 889]``. Neither has cases for
    choosing checkpoints: ``num_val``, evenly spread, are taken out of the training cases.

    Transolver trains one model on surface and volume together; here each part is a set of its own.
    Of UPT's 700 training cases the pressure has a mean of -36.31 Pa and a standard deviation of
    48.57 Pa; all cars lie in [-2, 2] x [-1, 4.5] x [-4.5, 6].

    **Not verified here,** for want of the real files: names of the arrays, counts and order of the
    folders (from public code that reads them); units (from the order of the values).

    The arguments that are not named here are those of :class:`PackedDataset`.

    Args:
        part: ``"surface"`` or ``"volume"``.
        splits: ``"upt"`` or ``"transolver"``.
        num_val: Training cases held out for validation; 0 leaves ``val`` empty, as published.

    Shapes:
        surface: ``pos [3586, 3]``, ``y [3586, 1]``, ``normal [3586, 3]``, ``area [3586, 1]``,
        ``face [3, 7168]``. volume: ``pos [29498, 3]``, ``x [29498, 4]``, ``y [29498, 3]``,
        ``cells [m, 8]``. ``name`` like ``"param0/1a0c..."``.

    Raises:
        ValueError: unknown part or splits, too large a ``num_val``, or unsound files, by name.
        FileNotFoundError: no files; says how to get them.
        ImportError: pyvista is missing.

    Example:
        >>> train = ShapeNetCarDataset("data/shapenet_car")
        >>> train[0].y.shape
        torch.Size([3586, 1])
    """

    name: ClassVar[str] = "shapenet_car"
    how_to_get: ClassVar[str] = (
        "put http://www.nobuyuki-umetani.com/publication/mlcfd_data.zip (2 GB, no licence stated, "
        "no checksum published) there and run: flare-geo data download shapenet_car --root {root}"
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
        part: str = "surface",
        splits: str = "upt",
        num_val: int = 50,
        **reading: Unpack[Reading],
    ) -> None:
        if part not in CHANNELS:
            raise ValueError(f"shapenet_car has the parts surface and volume, not '{part}'")
        if splits not in ("upt", "transolver"):
            raise ValueError(f"shapenet_car has the splits upt and transolver, not '{splits}'")
        if num_val < 0:
            raise ValueError(f"num_val must be at least 0, got {num_val}")
        self.part, self.chosen, self.num_val = part, splits, num_val
        self.channels = CHANNELS[part]
        super().__init__(
            root, split, transform, pre_transform, pre_filter, force_reload, log, **reading
        )

    @classmethod
    def download(cls, root: str | Path, log: bool = True) -> None:  # type: ignore[override]
        """Unpack ``mlcfd_data.zip``, which you have put into ``root``, and the archives in it.

        Raises:
            FileNotFoundError: it is not there.
            ValueError: it is cut off or damaged.
        """
        from flare_geo.datasets.fetch.archive import unpack

        folder = Path(root).expanduser()
        if not (folder / "mlcfd_data.zip").is_file():
            how = cls.how_to_get.format(root=root)
            raise FileNotFoundError(f"there is no {folder / 'mlcfd_data.zip'}; {how}")
        for inner in unpack(folder / "mlcfd_data.zip", folder, "*/param[0-8].tar.gz", log):
            unpack(inner, inner.parent, [f"*/{SURFACE}", f"*/{VOLUME}"], log)
            inner.unlink()

    def raw_files(self) -> list[Path]:
        """The files of this split's cases; those of cases that lack one are missing."""
        names = (SURFACE,) if self.part == "surface" else (SURFACE, VOLUME)
        files = [self._home / case / name for case in self.cases() for name in names]
        return [file for file in files if file.is_file()]

    def cases(self) -> list[str]:
        """``"param0/1a0c..."`` for each case of the split, in order."""
        everything = sorted(
            f"{param}/{folder.name}"
            for param in PARAMS
            if (self._home / param).is_dir()
            for folder in (self._home / param).iterdir()
            if folder.is_dir() and f"{param}/{folder.name}" not in WITHOUT_FILES
        )
        n = len(everything)
        if self.chosen == "upt":
            order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
            chosen = {everything[i] for i in order[: n * NUM_TEST // NUM_CASES].tolist()}
        else:
            chosen = {case for case in everything if case.startswith("param0/")}
        if self.split == "test":
            return [case for case in everything if case in chosen]
        rest = [case for case in everything if case not in chosen]
        if self.num_val > len(rest):
            raise ValueError(f"num_val must be at most {len(rest)} here, got {self.num_val}")
        spread = [(2 * i + 1) * len(rest) // (2 * self.num_val) for i in range(self.num_val)]
        val = {rest[i] for i in spread}
        return [case for case in rest if (case in val) == (self.split == "val")]

    def read_case(self, key: str) -> Data:
        """One car."""
        data = read_surface(self._home / key / SURFACE)
        if self.part == "volume":
            data = read_volume(self._home / key / VOLUME, data.pos)
        data.name = key
        return data

    @cached_property
    def _home(self) -> Path:
        """The folder with param0, param1, ... in it."""
        root = Path(self.root)
        hits = []
        for folder, below, _ in os.walk(root):
            if any(param in below for param in PARAMS):
                hits.append(Path(folder))
                below.clear()
            below[:] = sorted(set(below) - {"processed", "__MACOSX"})
        if not hits:
            how = self.how_to_get.format(root=root)
            raise FileNotFoundError(f"{self.name}: no folder param0 to param8 below {root}; {how}")
        if len(hits) > 1:
            places = ", ".join(str(p) for p in hits)
            raise ValueError(f"{self.name}: more than one folder with param0, keep one: {places}")
        return hits[0]


def read_surface(path: Path) -> Data:
    """The surface of a car: points, pressure, triangles, normals and areas, without the unused.

    Raises:
        FileNotFoundError, ValueError: no such file, or another number of points or array.
    """
    from flare_geo.mesh import from_pyvista, read_mesh, surface_geometry

    mesh = read_mesh(path, ["point_scalars"])
    if mesh.n_points != NUM_RAW_POINTS:
        raise ValueError(f"{path}: expected {NUM_RAW_POINTS} points, got {mesh.n_points}")
    data = from_pyvista(mesh, y="point_scalars", dim=3)
    keep = torch.ones(NUM_RAW_POINTS, dtype=torch.bool)
    keep[UNUSED] = False
    if data.face is None or not keep[data.face].all():
        raise ValueError(f"{path}: expected points 16 to 111 to belong to no quadrilateral")
    normal, area = (torch.from_numpy(a[keep.numpy()]) for a in surface_geometry(mesh, "point"))
    pos, face = data.pos[keep], (keep.cumsum(0) - 1)[data.face]
    # The surface is closed: its normals point outwards if the volume they enclose is positive.
    if ((pos.double() - pos.double().mean(0)) * normal * area[:, None]).sum() < 0:
        normal, face = -normal, face.flip(0)
    return Data(
        pos=pos,
        y=data.y[keep],
        normal=normal.float(),
        area=area.float().unsqueeze(1),
        face=face,
    )


def read_volume(path: Path, surface: Tensor) -> Data:
    """The air around a car: points, hexahedra, velocity, and where the car is from there."""
    from scipy.spatial import KDTree

    from flare_geo.mesh import from_pyvista, read_mesh

    data = from_pyvista(read_mesh(path, ["point_vectors"]), y="point_vectors", dim=3)
    pos, car = data.pos.double().numpy(), surface.double().numpy()
    distance, nearest = KDTree(car).query(pos)
    away = (pos - car[nearest]) / np.maximum(distance, 1e-12)[:, None]
    data.x = torch.from_numpy(np.column_stack([distance, away])).float()
    return data
