"""The Darcy set of the FNO benchmark, generated as its authors did.

The procedure is that of their MATLAB scripts (github.com/neuraloperator/neuraloperator, folder
data_generation/darcy, commit 6bedfe74), with 12 and 3 for the two phases: the demo script says 4,
but with 3 the solution has the size of the published one. On s x s cells, s = 421:

1. a Gaussian field g = sum_k c_k xi_k phi_k, phi_k the cosines (zero Neumann), xi ~ N(0, 1),
   c_k = tau^(alpha-1) (pi^2 |k|^2 + tau^2)^(-alpha/2), alpha = 2, tau = 3, no constant mode;
2. a = 12 where g >= 0, else 3, at the cell centres (2i + 1) / (2s);
3. a is interpolated to the nodes i / (s - 1) by cubic splines. These overshoot at the jumps: the
   coefficient that is solved with runs from about -9 to 22. It is used as it is;
4. -div(a grad u) = 1, u = 0 on the boundary: five-point scheme, means of neighbouring a, sparse LU;
5. u is interpolated back to the cell centres, so its outer ring is small but not zero.

MATLAB's interp2(..., 'spline') is a tensor product of not-a-knot splines and extrapolates by them.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.fft import idctn
from scipy.interpolate import CubicSpline
from scipy.io import savemat
from scipy.sparse.linalg import splu

from flare_geo.datasets.generators.run import claim, run_cases
from flare_geo.datasets.readers.darcy_format import file_name
from flare_geo.files import write_aside

Array = NDArray[np.float64]
ALPHA, TAU = 2, 3
HIGH, LOW = 12.0, 3.0
CHUNK = 16
LIMIT = 2**31  # bytes of a variable in a version 5 file
RECORD = {
    "generator": __name__,
    "version": 1,  # raise it when the numbers change
    "physics": "-div(a grad u) = 1 on the unit square, u = 0 on the boundary; a = 12 or 3 by the "
    "sign of a Gaussian field, covariance 3^2 (-Lap + 3^2)^-2, zero Neumann; spline interpolation "
    "to the nodes, five-point scheme, spline interpolation back to the cell centres",
}


def gaussian_field(s: int, rng: np.random.Generator) -> Array:
    """The Gaussian field at the cell centres. [s, s]"""
    k = np.arange(s)
    size = TAU ** (ALPHA - 1) * (np.pi**2 * (k[:, None] ** 2 + k**2) + TAU**2) ** (-ALPHA / 2)
    modes = s * size * rng.standard_normal((s, s))
    modes[0, 0] = 0
    return np.asarray(idctn(modes, norm="ortho"))


@lru_cache(maxsize=4)
def splines(s: int) -> tuple[Array, Array]:
    """Matrices from values at cell centres to values at nodes, and back. [s, s] each"""
    centres, nodes = (np.arange(s) + 0.5) / s, np.linspace(0, 1, s)
    to_nodes, to_centres = (
        CubicSpline(here, np.eye(s), bc_type="not-a-knot")(there)
        for here, there in ((centres, nodes), (nodes, centres))
    )
    return to_nodes, to_centres


def operator(a: Array) -> sp.csc_array:
    """-div(a grad .) at the inner nodes, from a at all nodes. [(s-2)^2, (s-2)^2]"""
    s = a.shape[0]
    n = s - 2
    down = (a[1:, 1:-1] + a[:-1, 1:-1]) / 2  # [s - 1, n] on the edges along the first axis
    right = (a[1:-1, 1:] + a[1:-1, :-1]) / 2  # [n, s - 1]
    centre = down[1:] + down[:-1] + right[:, 1:] + right[:, :-1]
    beside = np.zeros((n, n))
    beside[:, :-1] = -right[:, 1:-1]  # nothing follows the last of a row
    beside = beside.ravel()[:-1]
    below = -down[1:-1].ravel()
    matrix = sp.diags_array(
        [below, beside, centre.ravel(), beside, below], offsets=[-n, -1, 0, 1, n]
    )
    return sp.csc_array(matrix * (s - 1) ** 2)


def solve(a: Array) -> Array:
    """Solution at the cell centres from the coefficient at the cell centres. [s, s] -> [s, s]"""
    to_nodes, to_centres = splines(a.shape[0])
    matrix = operator(to_nodes @ a @ to_nodes.T)
    u = np.zeros_like(a)
    u[1:-1, 1:-1] = (
        splu(matrix, permc_spec="MMD_AT_PLUS_A")
        .solve(np.ones(matrix.shape[0]))
        .reshape(u[1:-1, 1:-1].shape)
    )
    return to_centres @ u @ to_centres.T


def sample(key: tuple[int, int], seed: int = 0, s: int = 421) -> tuple[Array, Array]:
    """Coefficient and solution of sample (part, index). [s, s] each; by seed and key only"""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))
    a = np.where(gaussian_field(s, rng) >= 0, HIGH, LOW)
    return a, solve(a)


def generate_darcy(
    root: str | Path,
    num_train: int = 1024,
    num_test: int = 200,
    seed: int = 0,
    resolution: int = 421,
    matlab: str = "5",
    workers: int | None = None,
    log: bool = True,
) -> Path:
    """Write a generated Darcy set under the names of the official one, float64::

        root/piececonst_r421_N1024_smooth1.mat   coeff, sol [num_train, 421, 421], generated = 1
        root/piececonst_r421_N1024_smooth2.mat   coeff, sol [num_test, 421, 421], generated = 1
        root/SOURCE.json                         "generated": true, seed, physics

    Samples go to a hidden folder as they are solved: an interrupted run is resumed. The disk must
    hold them twice for a while: 3.4 GB at the default sizes, the memory the larger array, 1.5 GB.

    Args:
        root: Folder, made if missing; one process at a time may generate into it.
        num_train: Samples of the first file.
        num_test: Samples of the second file, of another seed.
        seed: Of the set; sample i of a file depends on the seed, the file and i only.
        resolution: s, 421 in the official set; also in the file names.
        matlab: ``"5"``, or ``"7.3"`` for HDF5 with the axes reversed.
        workers: Processes; None: one per core. If several, they are spawned: a script needs
            ``if __name__ == "__main__":``.
        log: Say what is done, show progress on a terminal.

    Raises:
        FileExistsError: ``root`` holds another set, such as the official one.
        ValueError: a number out of range, or too much for a version 5 file.
    """
    for name, value, least in (
        ("num_train", num_train, 1),
        ("num_test", num_test, 1),
        ("resolution", resolution, 5),
    ):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    if matlab not in WRITERS:
        raise ValueError(f"matlab must be {' or '.join(WRITERS)}, got {matlab}")
    most = LIMIT // (8 * resolution**2)
    if matlab == "5" and max(num_train, num_test) > most:
        raise ValueError(
            f"a version 5 file holds at most {most} samples of {resolution} x {resolution}, got "
            f'{max(num_train, num_test)}; take matlab="7.3"'
        )
    root = Path(root).expanduser()
    say = partial(print, "darcy:", file=sys.stderr) if log else lambda *_: None
    counts = {"num_train": num_train, "num_test": num_test}
    record = {**RECORD, "seed": seed, **counts, "resolution": resolution, "matlab": matlab}
    claim(root, record)
    for part, n in enumerate(counts.values(), start=1):
        target = root / file_name(resolution, part)
        if target.exists():
            say(f"taking {target} as it is")
            continue
        say(f"solving {n} samples of {resolution} x {resolution} for {target.name}, seed {seed}")
        folder = root / f".smooth{part}"
        coeff, sol = _compute(folder, part, n, seed, resolution, workers, log)
        with write_aside(target) as aside:
            WRITERS[matlab](aside, {"coeff": coeff, "sol": sol}, record)
        shutil.rmtree(folder)
    return root


def _compute(
    folder: Path, part: int, n: int, seed: int, s: int, workers: int | None, log: bool
) -> tuple[Array, Array]:
    """All samples of a file as memory-mapped arrays, from where an earlier run was interrupted."""
    folder.mkdir(exist_ok=True)
    done_file = folder / "done"
    done = int(done_file.read_text()) if done_file.exists() else 0
    coeff, sol = (
        np.lib.format.open_memmap(
            folder / f"{key}.npy", mode="r+" if done else "w+", dtype=np.float64, shape=(n, s, s)
        )
        for key in ("coeff", "sol")
    )
    keys = [(part, i) for i in range(done, n)]
    task = partial(sample, seed=seed, s=s)
    for i, (a, u) in enumerate(run_cases(task, keys, workers=workers, unit="sample", log=log)):
        coeff[done + i], sol[done + i] = a, u
        if (i + 1) % CHUNK == 0 or done + i + 1 == n:
            coeff.flush()
            sol.flush()
            with write_aside(done_file) as aside:
                aside.write_text(str(done + i + 1))
    return coeff, sol


def write_v5(path: Path, arrays: dict[str, Array], record: dict[str, Any]) -> None:
    """A version 5 file, uncompressed, with the mark ``generated`` and how they were made."""
    content = {**arrays, "generated": 1.0, "recipe": json.dumps(record)}
    savemat(path, content)


def write_v73(path: Path, arrays: dict[str, Array], record: dict[str, Any]) -> None:
    """Likewise as MATLAB 7.3 does: HDF5 behind a header of 512 bytes, the axes reversed."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in {**arrays, "generated": np.ones((1, 1))}.items():
            reversed_axes = array.T
            dataset = file.create_dataset(name, reversed_axes.shape, np.float64)
            dataset.attrs["MATLAB_class"] = np.bytes_("double")
            for start in range(0, len(dataset), CHUNK):
                dataset[start : start + CHUNK] = reversed_axes[start : start + CHUNK]
        file.attrs["recipe"] = json.dumps(record)
    header = b"MATLAB 7.3 MAT-file, written by flare_geo".ljust(124) + b"\x00\x02IM"
    with path.open("r+b") as raw:
        raw.write(header)


WRITERS: dict[str, Callable[[Path, dict[str, Array], dict[str, Any]], None]] = {
    "5": write_v5,
    "7.3": write_v73,
}
