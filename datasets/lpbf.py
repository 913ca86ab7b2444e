"""The LPBF set: how much metal parts warp when they are built by a laser, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Unpack

import numpy as np
import torch

from flare_geo.datasets.base import Channel, PackedDataset
from flare_geo.datasets.readers.lpbf_format import read_lpbf, read_metadata
from flare_geo.datasets.reading import CaseTransform, Reading
from flare_geo.datasets.source import read_source
from flare_geo.pyg import Data

REPOSITORY = "vedantpuri/LPBF_FLARE"
LICENCE = "MIT by its card; geometry: Fusion 360 Gallery, NON-COMMERCIAL RESEARCH ONLY"
TARGETS: dict[str, tuple[str, int, Channel]] = {  # array, column, what it is
    "displacement_x": ("disp", 0, Channel("u_x", "mm", "displacement along x")),
    "displacement_y": ("disp", 1, Channel("u_y", "mm", "displacement along y")),
    "displacement_z": ("disp", 2, Channel("u_z", "mm", "displacement along the build direction")),
    "von_mises": ("vmstr", 0, Channel("von Mises stress", "MPa", "residual von Mises stress")),
    "temperature": ("temp", 0, Channel("temperature", "C", "temperature")),
}
THREE = ("displacement_x", "displacement_y", "displacement_z")
POSITION = tuple(
    Channel(axis, "mm", f"{axis} of the mesh node{', the build direction' * (axis == 'z')}")
    for axis in "xyz"
)


class LPBFDataset(PackedDataset):
    """Residual displacement, stress and temperature of parts built by laser powder bed fusion.

    From `FLARE <https://arxiv.org/abs/2508.12594>`_ (Puri et al., 2025):
    https://huggingface.co/datasets/vedantpuri/LPBF_FLARE. Thermomechanical simulations of
    metal parts in Autodesk Netfabb, the state after removal from the build plate. The card says
    MIT, but **the shapes are those of the Fusion 360 Gallery, which may be used for non-commercial
    research only**. :meth:`generate` computes a set of the same form by another, simpler model
    (``source["generated"]`` tells the two apart), ``flare-geo data convert netfabb`` makes one of
    your own simulations.

    ::

        root/train/case00012_<name>.npz   1100 of them: pos [n, 3] float32, elems [m, 8] int32,
        root/test/case00003_<name>.npz    290           disp [n, 3], vmstr [n, 1], temp [n, 1],
                                                        edge_index, _metadata (JSON, pickled)
        root/SOURCE.json                  where they come from
        root/processed/lpbf_{train,val,test}.h5

    ``train`` and ``test`` may also lie in ``root/raw`` or another folder in ``root``. The spellings
    of the card (points, elements, displacement, stress, temperature) are understood too.

    ======  ==============================================================  ========
    split   cases                                                           official
    ======  ==============================================================  ========
    train   the folder train less the cases of val                          1000
    val     num_val cases of the folder train, evenly spaced by name        100
    test    the folder test                                                 290
    ======  ==============================================================  ========

    The source has no validation split: those who choose a checkpoint would have to do it by the
    test cases. Here it can be chosen by cases that are in no other split. ``num_val=0`` trains on
    all 1100. Where there are no such folders, the files in ``root`` (those in
    ``root/include_list.txt``, if it is there) are dealt out in the official proportion, with the
    same seed.

    Coordinates are mm, the part stands on z = 0 and was built along z; heights are 0.6 to 60 mm.
    Stress is MPa (the source states none; its solver works in N and mm).

    The arguments that are not named here are those of :class:`PackedDataset`.

    Args:
        targets: What ``y`` holds, in this order: of "displacement" (all three),
            "displacement_x", "displacement_y", "displacement_z", "von_mises", "temperature".
            All are packed, so another choice costs nothing.
        num_val: Cases held out of train; None: an eleventh.

    Shapes:
        ``pos [n, 3]``, n = 736 to 47,542; ``y [n, t]``; ``cells [m, 8]`` hexahedra, 0-1-2-3 below
        4-5-6-7 (with hanging nodes where fine ones meet coarse ones); ``name`` the file's.

    Raises:
        ValueError: unknown target, or files that are not sound (all are named).
        FileNotFoundError: no files; says how to get them.

    Example:
        >>> LPBFDataset.generate("data/lpbf", num_train=2, num_test=1)
        >>> train = LPBFDataset("data/lpbf", targets=("displacement_z", "von_mises"))
        >>> train[0]
        Data(pos=[6716, 3], cells=[4719, 8], name='case00000_lattice', y=[6716, 2])
    """

    name: ClassVar[str] = "lpbf"
    how_to_get: ClassVar[str] = (
        f"get them from https://huggingface.co/datasets/{REPOSITORY} with: flare-geo data download "
        "lpbf --root {root}, or run: flare-geo data generate lpbf --root {root}"
    )
    shows: ClassVar[tuple[str, ...]] = ("targets",)

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
        targets: str | Sequence[str] = ("displacement_z",),
        num_val: int | None = None,
        **reading: Unpack[Reading],
    ) -> None:
        self.targets, self.num_val = expand_targets(targets), num_val
        self.channels = {"pos": POSITION, "y": tuple(TARGETS[t][2] for t in self.targets)}
        super().__init__(
            root, split, transform, pre_transform, pre_filter, force_reload, log, **reading
        )
        if len(self.store):
            self.present(self.store[0])  # all cases hold the same arrays: are the targets there?

    @classmethod
    def download(
        cls,
        root: str | Path,
        repository: str = REPOSITORY,
        revision: str = "main",
        log: bool = True,
    ) -> None:
        """Fetch the files of the hub repository into ``root``.

        Files that are there and right are kept.

        Args:
            root: Folder for the files.
            repository: Of the Hugging Face hub.
            revision: Branch, tag or commit.
            log: Say size and licence first, show progress on a terminal.
        """
        from flare_geo.datasets.fetch.hub import download_hub

        names = ["train/*.npz", "test/*.npz"]
        download_hub(repository, root, names, revision=revision, licence=LICENCE, log=log)

    @classmethod
    def generate(
        cls,
        root: str | Path,
        num_train: int = 100,
        num_test: int = 25,
        seed: int = 0,
        workers: int | None = None,
        log: bool = True,
        *,
        meshes: str | Path | None = None,
        voxel: tuple[float, float, float] = (0.625, 0.625, 0.8),
        extent: float = 20.0,
    ) -> None:
        """Compute warped parts and write them to ``root`` in the official form, marked generated.

        Args:
            root: Folder for the files.
            num_train: Officially 1100.
            num_test: Officially 290.
            seed: The same seed gives the same parts.
            workers: Number of processes; None lets the generator choose.
            log: Say how long it takes, show progress on a terminal.
            meshes: Folder of closed surfaces (STL, OBJ, PLY, OFF) to build before made-up parts.
            voxel: Size of a hexahedron in mm.
            extent: Largest width of a part in mm.
        """
        from flare_geo.datasets.generators.lpbf import generate_lpbf

        generate_lpbf(
            root,
            num_train=num_train,
            num_test=num_test,
            seed=seed,
            workers=workers,
            log=log,
            meshes=meshes,
            voxel=voxel,
            extent=extent,
        )

    @property
    def on_mesh(self) -> dict[str, Any]:
        """Nodes of a mesh, truth in arrays that are called as in the files."""
        outputs = [[TARGETS[name][0], TARGETS[name][1], 1.0] for name in self.targets]
        return super().on_mesh | {"outputs": outputs}

    @property
    def options(self) -> dict[str, Any]:
        """What decides which cases are packed."""
        return {k: v for k, v in super().options.items() if v is not None}

    @property
    def packed_channels(self) -> dict[str, tuple[Channel, ...]]:
        """Displacement is always there; stress and temperature, if a converted file has them."""
        return {
            "pos": POSITION,
            "disp": tuple(TARGETS[t][2] for t in expand_targets("displacement")),
        }

    def raw_files(self) -> list[Path]:
        """The files of the split."""
        found = find_cases(Path(self.root), "*.npz", self.num_val)
        if found is None:
            where = "" if Path(self.root).is_dir() else " (there is no such folder)"
            how = self.how_to_get.format(root=self.root)
            raise FileNotFoundError(
                f"{self.name}: no folder train or test with .npz files in {self.root}{where}; {how}"
            )
        return found[self.split]

    def cases(self) -> Sequence[Path]:
        """One file a case."""
        return self.raw_files()

    def read_case(self, key: Path) -> Data:
        """All arrays of a file, but for its edges: they follow from the hexahedra."""
        if (
            read_metadata(key).get("generated")
            and not read_source([key], Path(self.root))["generated"]
        ):
            raise ValueError(f"{key} was generated and its folder's SOURCE.json does not say so")
        data = Data(name=key.stem)
        for name, array in read_lpbf(key).items():
            data["cells" if name == "elems" else name] = torch.from_numpy(array)
        return data

    def present(self, data: Data) -> Data:
        """Put the chosen targets in ``y``."""
        data.y = stack_targets(data, self.targets)
        for name in ("disp", "vmstr", "temp"):
            if name in data:
                del data[name]
        return data


def expand_targets(targets: str | Sequence[str]) -> tuple[str, ...]:
    """The names of columns, "displacement" standing for its three.

    >>> expand_targets(["displacement", "temperature"])
    ('displacement_x', 'displacement_y', 'displacement_z', 'temperature')
    """
    names: list[str] = []
    for target in [targets] if isinstance(targets, str) else targets:
        names += THREE if target == "displacement" else [target]
    if not names or any(n not in TARGETS for n in names) or len(set(names)) < len(names):
        raise ValueError(
            f"targets must be some of displacement, {', '.join(TARGETS)}, each once; got {targets}"
        )
    return tuple(names)


def stack_targets(data: Data, targets: Sequence[str], prefix: str = "") -> torch.Tensor:
    """The chosen columns of ``disp``, ``vmstr`` and ``temp``, ``[n, t]``."""
    if missing := [t for t in targets if prefix + TARGETS[t][0] not in data]:
        there = ", ".join(t for t, (array, *_) in TARGETS.items() if prefix + array in data)
        raise ValueError(f"lpbf: {data.name} holds no {', '.join(missing)}, only {there}")
    columns = [data[prefix + TARGETS[t][0]][:, TARGETS[t][1]] for t in targets]
    return torch.stack(columns, dim=1)


def find_cases(root: Path, pattern: str, num_val: int | None) -> dict[str, list[Path]] | None:
    """The cases of each split below ``root``, sorted by name; None if there are none.

    Args:
        root: Holds ``train`` and ``test``, or a folder does that holds them, or just cases.
        pattern: Of the cases' names.
        num_val: Cases of train that go to val; None: an eleventh.
    """
    places = [root, root / "raw", *sorted(p for p in root.glob("*") if p.name != "processed")]
    parts: dict[str, list[Path]] = {}
    for place in places:
        parts = {part: sorted((place / part).glob(pattern)) for part in ("train", "test")}
        if parts["train"] or parts["test"]:
            break
    else:
        cases = next((found for p in places[:2] if (found := sorted(p.glob(pattern)))), [])
        if not cases:
            return None
        cases = _included(cases)
        order = np.random.RandomState(0).permutation(len(cases))  # as the source did
        cut = round(len(cases) * 1100 / 1390)
        parts = {"train": [cases[i] for i in sorted(order[:cut])]}
        parts["test"] = [cases[i] for i in sorted(order[cut:])]
    train = parts["train"]
    count = len(train) // 11 if num_val is None else num_val
    if count and not 0 <= count < len(train):
        raise ValueError(f"num_val must be 0 to {len(train) - 1}, got {num_val}")
    held_out = {(2 * i + 1) * len(train) // (2 * count) for i in range(count)}
    return {
        "train": [case for i, case in enumerate(train) if i not in held_out],
        "val": [case for i, case in enumerate(train) if i in held_out],
        "test": parts["test"],
    }


def _included(cases: list[Path]) -> list[Path]:
    path = cases[0].parent / "include_list.txt"
    if not path.is_file():
        return cases
    wanted = set(path.read_text(encoding="utf-8").split())
    names = [case.stem.removesuffix("_series") for case in cases]
    if missing := sorted(wanted - set(names)):
        raise ValueError(f"{path} names {len(missing)} cases that are not there: {missing[0]}, ...")
    return [case for case, name in zip(cases, names, strict=True) if name in wanted]
