"""An LPBF set, generated: parts printed layer by layer and cut off their plate, in official form.

Stands in for the Autodesk Netfabb results of https://huggingface.co/datasets/vedantpuri/LPBF_FLARE.
The physics and what was tuned: :mod:`flare_geo.datasets.generators.inherent_strain`.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flare_geo.datasets.generators.cad_parts import cad_part
from flare_geo.datasets.generators.inherent_strain import (
    COOLING,
    GROUP,
    PLATE,
    POISSON,
    STRAIN,
    YOUNG,
    build,
    fem,
    von_mises,
)
from flare_geo.datasets.generators.run import claim, run_cases
from flare_geo.datasets.generators.voxels import (
    MESH_SUFFIXES,
    Hexahedra,
    Solid,
    Voxel,
    voxelise,
)
from flare_geo.datasets.readers.lpbf_format import write_lpbf

TEMPERATURE = 25.0  # at the end, degrees Celsius
RECORD = {
    "generator": __name__,
    "version": 1,  # raise it when the numbers change
    "physics": "inherent strain, layer by layer: linear elastic hexahedra, "
    f"E {YOUNG:g} MPa, nu {POISSON}; plate of {sum(PLATE):g} mm clamped below; each group of "
    f"layers is laid down without stress, then strained by {STRAIN} in x, y, z; all cools by "
    f"-{COOLING}; plate removed, rigid motion taken out",
}


def part(
    index: int, seed: int, meshes: Sequence[Path], extent: float, voxel: Voxel
) -> tuple[str, Solid]:
    """Name and voxels of part ``index``: one of ``meshes`` while there are, else a made-up one."""
    if index < len(meshes):
        path = meshes[index]
        return re.sub(r"[^\w.-]+", "_", path.stem), voxelise(path, extent, voxel)
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(index,)))
    return cad_part(rng, extent, voxel)


def sample(
    solid: Solid, voxel: Voxel, group: int = GROUP
) -> tuple[Hexahedra, dict[str, NDArray[Any]], int]:
    """Mesh, fields at its nodes under their official names, number of steps.

    A part no higher than a group is laid down in two halves: at once it would be free of stress.
    """
    group = min(group, -(-solid.shape[2] // 2))
    mesh, disp, stress, *_ = build(solid, voxel, group=group)
    at = mesh.elems.ravel()
    mises = np.bincount(at, np.repeat(von_mises(stress), 8)) / np.bincount(at)
    temperature = np.full((len(disp), 1), TEMPERATURE)
    fields = {"disp": disp, "vmstr": mises[:, None], "temp": temperature}
    return mesh, fields, -(-solid.shape[2] // group) + 2  # cooling and removal


def generate_lpbf(
    root: str | Path,
    num_train: int = 100,
    num_test: int = 25,
    seed: int = 0,
    workers: int | None = None,
    log: bool = True,
    *,
    meshes: str | Path | None = None,
    voxel: Voxel = (0.625, 0.625, 0.8),
    extent: float = 20.0,
    group: int = GROUP,
) -> Path:
    """Write a generated LPBF set in the official form::

        root/train/case00012_bracket.npz   pos, elems, edge_index, disp, vmstr, temp, _metadata
        root/test/case00003_tube.npz       likewise; of 125 cases, a random 25
        root/SOURCE.json                   "generated": true, seed, physics, counts, parts

    A case of the usual size has about 7000 nodes and takes about 5 s of one core and 0.2 MB: 10
    minutes of one core for all. Files that are there are kept, an interrupted run is resumed. What
    case i holds depends on the seed, i, the meshes and the sizes only; its split on the counts too.

    Args:
        root: Folder, made if missing; one process at a time may generate into it.
        num_train: Cases to train on; officially 1100.
        num_test: Cases to test on; officially 290.
        seed: Of the made-up parts and of the split.
        workers: Processes; None: one per core. If several, they are spawned: a script needs
            ``if __name__ == "__main__":``.
        log: Progress on standard error.
        meshes: Folder of closed surfaces (STL, OBJ, PLY, OFF), in any unit. Each becomes one case,
            in the order of their names and standing as in the file; made-up parts are the rest.
        voxel: Sides of a voxel in mm.
        extent: Longest side of every part in mm.
        group: Layers of voxels laid down at once.

    Raises:
        FileExistsError: ``root`` holds another set, such as the official one.
        ImportError: scikit-fem is missing.
        ValueError: a count, a size or a surface is unsound; more meshes than cases.
    """
    total = num_train + num_test
    if num_train < 0 or num_test < 0 or not total:
        raise ValueError(f"expected counts that are not negative, got {num_train} and {num_test}")
    if group < 1:
        raise ValueError(f"group must be at least 1 layer, got {group}")
    if len(voxel) != 3 or not 0 < min(voxel) <= max(voxel) <= extent / 8:
        raise ValueError(
            f"voxel must be three sides from above 0 to extent/8 = {extent / 8:g} mm, got {voxel}"
        )
    if fem is None:
        raise ImportError('scikit-fem is missing: pip install "flare-geo[generate]"')
    root, voxel = Path(root), (float(voxel[0]), float(voxel[1]), float(voxel[2]))
    paths = _surfaces(meshes, extent, voxel) if meshes else []
    if len(paths) > total:
        raise ValueError(f"{meshes} holds {len(paths)} meshes: ask for as many cases, not {total}")
    order = np.random.default_rng(np.random.SeedSequence(seed)).permutation(total)
    test = frozenset(order[num_train:].tolist())
    sizes = {"voxel": voxel, "extent": extent, "group": group}
    counts = {"seed": seed, "num_train": num_train, "num_test": num_test}
    parts = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
    claim(root, RECORD | counts | sizes | {"meshes": parts})
    there = {path.name.split("_")[0] for path in root.glob("t*/case*.npz")}
    todo = [i for i in range(total) if f"case{i:05d}" not in there]
    if log:
        minutes = len(todo) * 5 * (extent**3 / np.prod(voxel) / 25600) ** 1.2 / 60
        print(
            f"lpbf: {len(todo)} of {total} cases to print, {total - len(paths)} of made-up parts, "
            f"about {minutes:.1f} min of one core",
            file=sys.stderr,
        )
    task = partial(
        _case,
        root=root,
        test=test,
        seed=seed,
        meshes=paths,
        extent=extent,
        voxel=voxel,
        group=group,
    )
    for _ in run_cases(task, todo, workers=workers, log=log):
        pass
    return root


def _case(
    index: int,
    root: Path,
    test: frozenset[int],
    seed: int,
    meshes: Sequence[Path],
    extent: float,
    voxel: Voxel,
    group: int,
) -> None:
    name, solid = part(index, seed, meshes, extent, voxel)
    case = f"case{index:05d}_{name}"
    mesh, fields, steps = sample(solid, voxel, group)
    about = {"case_name": case, "zmax": float(mesh.pos[:, 2].max()), "time_steps": steps}
    about |= {"generated": True, "generator": __name__, "seed": seed, "voxel": voxel}
    path = root / ("test" if index in test else "train") / f"{case}.npz"
    write_lpbf(path, mesh.pos, mesh.elems, fields, about)


def _surfaces(folder: str | Path, extent: float, voxel: Voxel) -> list[Path]:
    """The meshes of a folder by name, each tried before the first case is solved."""
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(
            f"{folder} is not a folder: meshes must be one of STL, OBJ, PLY, OFF files"
        )
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in MESH_SUFFIXES)
    if not paths:
        raise ValueError(f"{folder} holds no mesh: expected {', '.join(MESH_SUFFIXES)} files")
    wrong = []
    for path in paths:
        try:
            voxelise(path, extent, voxel)
        except ValueError as error:
            wrong.append(str(error))
    if wrong:
        raise ValueError(
            f"{len(wrong)} of {len(paths)} meshes in {folder} cannot be printed (take them out, "
            f"or repair, or refine voxel): {'; '.join(wrong[:10])}{'; ...' * (len(wrong) > 10)}"
        )
    return paths
