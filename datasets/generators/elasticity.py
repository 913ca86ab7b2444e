"""The elasticity set of Geo-FNO, generated: a unit cell with a random void, pulled at its top.

The source (https://arxiv.org/abs/2207.05209) has an incompressible Rivlin-Saunders solid,
W = C1 (I1 - 3) + C2 (I2 - 3), clamped at the bottom, under a traction of 100 on the top. With
mu = 2 (C1 + C2) = 3.9e5 strains are about 2e-4: one linear solve gives its stress to about 0.1 %.
It does not state plane stress or strain; we take plane stress, a sheet pulled in its plane, as
others who fitted the official arrays prefer. Then eps_zz = -(eps_xx + eps_yy), sigma_zz = 0 gives
the pressure, and nu = 1/2 (E = 3 mu) needs no mixed elements:

    sigma_xx = mu (4 eps_xx + 2 eps_yy)   sigma_yy = mu (2 eps_xx + 4 eps_yy)   sigma_xy = mu gamma

Where the clamped edge meets the free sides the exact stress is infinite: at those two nodes it is a
matter of the mesh. Elsewhere it differs from a mesh four times finer by 1.6 % (mean relative L2).
"""

import hashlib
import json
import os
import sys
import tempfile
from dataclasses import dataclass, replace
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.interpolate import make_interp_spline

from flare_geo.datasets.generators.run import run_cases
from flare_geo.datasets.source import SOURCE

try:
    import skfem as fem
except ImportError:  # generate_elasticity says what to do
    fem = None

Array = NDArray[np.float64]
MU = 2 * (1.863e5 + 9.79e3)  # 2 (C1 + C2)
FILES = {key: f"Random_UnitCell_{key}_10.npy" for key in ("XY", "sigma", "rr", "theta")}
RECORD = {
    "generated": True,
    "generator": __name__,
    "version": 1,  # raise it when the numbers change
    "physics": "incompressible Rivlin-Saunders solid, C1 = 1.863e5, C2 = 9.79e3, linearised, in "
    "plane stress; void radius 0.2 + 0.2/(1 + exp(g)), g ~ N(0, 4^2 (-Lap + 3^2)^-1), modes 1 to "
    "5; bottom clamped, traction (0, 100) on top, sides and void free; von Mises stress",
}


def void_radius(theta: Array, phi: Array) -> Array:
    r"""Radius of the void at angle ``phi``, in (0.2, 0.4). ``theta [10], phi [p] -> [p]``.

    .. math::
        r = 0.2 + \frac{0.2}{1 + e^g}, \quad g \sim N(0,\ 4^2 (-\Delta + 3^2)^{-1}), \quad
        g(\varphi) = \sum_{k=1}^5 \frac{4}{\sqrt{\pi (k^2 + 9)}}
        (\theta_{2k-2} \cos k\varphi + \theta_{2k-1} \sin k\varphi), \quad \theta \sim N(0, I)

    is the Karhunen-Loeve series: :math:`(\cos k\varphi, \sin k\varphi) / \sqrt\pi` are orthonormal
    eigenfunctions of :math:`-\Delta` with eigenvalue :math:`k^2`. Our reading: the coordinate is
    the angle, and there is no constant mode, since the official ``theta`` has ten numbers that
    correspond to modes 1 to 5; its order and scaling are not stated.
    """
    k = np.arange(1, 6)
    scale = 4 / np.sqrt(np.pi * (k**2 + 9))
    angle = np.multiply.outer(phi, k)  # [p, 5]
    g = np.cos(angle) @ (scale * theta[0::2]) + np.sin(angle) @ (scale * theta[1::2])
    return 0.2 + 0.2 / (1 + np.exp(g))


@dataclass(frozen=True)
class OGrid:
    """Nine-node quadrilaterals between void and square: R rings of A nodes on straight rays.

    Rays leave the centre at equal angles within each side; all four corners are element corners.
    Node r A + a: ring r, from void to square, and ray a, counter-clockwise from -45 degrees.

    Args:
        sides: Elements on the right, top, left and bottom side.
        layers: Elements from void to square.
        grading: Layers grow from 1 - grading times the mean at the void to 1 + grading.
    """

    sides: tuple[int, int, int, int] = (13, 14, 13, 14)
    layers: int = 4
    grading: float = 0.3

    @cached_property
    def phi(self) -> Array:
        """Angles of the rays. [A]"""
        quarters = [i - 0.5 + np.arange(2 * n) / (2 * n) for i, n in enumerate(self.sides)]
        return np.pi / 2 * np.concatenate(quarters)

    @cached_property
    def depth(self) -> Array:
        """Positions of the rings, 0 on the void, 1 on the square. [R]"""
        s = np.linspace(0, 1, self.layers + 1)
        s = s * (1 - self.grading * (1 - s))
        return np.interp(np.arange(2 * self.layers + 1), 2 * np.arange(self.layers + 1), s)

    def nodes(self, theta: Array) -> Array:
        """Nodes around the void with coefficients ``theta``. [2, R, A]"""
        ray = np.array([np.cos(self.phi), np.sin(self.phi)])
        square = (ray / (2 * np.abs(ray).max(axis=0))).round(12)  # corners exact
        void = ray * void_radius(theta, self.phi)
        t = self.depth[:, None]
        return 0.5 + (1 - t) * void[:, None] + t * square[:, None]

    @cached_property
    def template(self) -> tuple[Any, NDArray[np.intp]]:
        """The mesh for scikit-fem, and the number here of each of its nodes. [N]"""
        nodes = self.nodes(np.zeros(10))
        vertices = nodes[:, ::2, ::2]  # [2, layers + 1, elements around]
        i, j = (x.ravel() for x in np.indices((self.layers, vertices.shape[2])))
        corners = i + np.array([[0], [1], [1], [0]]), j + np.array([[0], [0], [1], [1]])
        cells = np.ravel_multi_index(corners, vertices[0].shape, mode="wrap")
        mesh = fem.MeshQuad2.from_mesh(fem.MeshQuad1(vertices.reshape(2, -1).copy(), cells))
        r, a = np.rint(2 * fem.ElementQuad2.doflocs).astype(int).T[..., None]  # [9, 1] each
        number = np.empty(nodes[0].size, dtype=np.intp)
        lattice = 2 * i + r, 2 * j + a
        number[mesh.dofs.element_dofs] = np.ravel_multi_index(lattice, nodes[0].shape, mode="wrap")
        return mesh, number

    @cached_property
    def load(self) -> Array:
        """Work of the traction (0, 100) on the top edge; no void changes it. [2N]"""
        mesh = self.mesh(self.nodes(np.zeros(10)))
        top = mesh.facets_satisfying(lambda x: x[1] == 1)
        basis = fem.FacetBasis(mesh, fem.ElementQuad2(), facets=top)
        work = fem.LinearForm(lambda v, w: 100 * v).assemble(basis)
        return np.concatenate([np.zeros_like(work), work])

    def mesh(self, nodes: Array) -> Any:
        """The scikit-fem mesh with these nodes. [2, R, A]"""
        mesh, number = self.template
        return replace(mesh, doflocs=np.ascontiguousarray(nodes.reshape(2, -1)[:, number]))

    @cached_property
    def recovery(self) -> tuple[Array, Array]:
        """Cubic splines from the 2 x 2 Gauss points of the elements to the nodes. [R, R-1], [A, A]

        Gradients of quadratic elements are one order more accurate at those points. Around, each
        side has its own spline (the rays bend at the corners); a corner takes the mean of two.
        """
        around, first = np.zeros((self.phi.size, self.phi.size)), 0
        for n in self.sides:
            spline = _spline(np.linspace(0, 1, 2 * n + 1))
            spline[[0, -1]] /= 2
            rays = np.arange(first, first + 2 * n + 1)
            around[np.ix_(rays % self.phi.size, rays[:-1])] += spline
            first += 2 * n
        return _spline(self.depth), around


GRID = OGrid()


def _spline(nodes: Array) -> Array:
    """Matrix from values at the two Gauss points of each element to values at its nodes."""
    middle, half = nodes[1::2, None], np.diff(nodes[::2])[:, None] / 2
    gauss = (middle + half * np.array([-1, 1]) / np.sqrt(3)).ravel()
    return make_interp_spline(gauss, np.eye(gauss.size), k=3)(nodes)


def stiffness(mesh: Any, mu: float = MU) -> sp.csr_matrix:
    r"""Stiffness of the incompressible sheet, x components before y components. [2N, 2N]

    .. math::
        K = \mu \begin{pmatrix} 4 A_{xx} + A_{yy} & 2 A_{xy} + A_{yx} \\ 2 A_{yx} + A_{xy} &
        4 A_{yy} + A_{xx} \end{pmatrix}, \quad A_{ij} = \int \partial_i v\, \partial_j u
    """
    basis = fem.Basis(mesh, fem.ElementQuad2(), intorder=4)
    form = fem.BilinearForm(lambda u, v, w: v.grad[w.i] * u.grad[w.j])
    xx, xy, yy = (form.assemble(basis, i=i, j=j) for i, j in ((0, 0), (0, 1), (1, 1)))
    return mu * sp.bmat([[4 * xx + yy, 2 * xy + xy.T], [2 * xy.T + xy, 4 * yy + xx]], format="csr")


def stress(grid: OGrid, mesh: Any, u: Array, mu: float = MU) -> Array:
    """Stress components xx, yy, xy at the nodes. [3, R, A]"""
    gauss = 0.5 + np.array([[-1, -1, 1, 1], [-1, 1, -1, 1]]) / np.sqrt(12)
    basis = fem.Basis(mesh, fem.ElementQuad2(), quadrature=(gauss, np.ones(4)))
    (xx, xy), (yx, yy) = (basis.interpolate(part).grad for part in np.split(u, 2))
    sigma = mu * np.array([4 * xx + 2 * yy, 2 * xx + 4 * yy, xy + yx])  # [3, elements, 4]
    sigma = sigma.reshape(3, grid.layers, -1, 2, 2).swapaxes(2, 3).reshape(3, 2 * grid.layers, -1)
    radial, around = grid.recovery
    return np.einsum("rg,cga->cra", radial, np.einsum("ab,cgb->cga", around, sigma))


def solve(theta: Array, grid: OGrid = GRID, mu: float = MU) -> tuple[Array, Array]:
    """Nodes [2, R, A] and von Mises stress [R, A] of the cell whose void has ``theta`` [10]."""
    nodes = grid.nodes(theta)
    mesh = grid.mesh(nodes)
    clamped = np.flatnonzero(np.tile(mesh.doflocs[1] == 0, 2))
    direct = fem.solver_direct_scipy(permc_spec="MMD_AT_PLUS_A", use_umfpack=False)
    u = fem.solve(*fem.condense(stiffness(mesh, mu), grid.load, D=clamped), solver=direct)
    xx, yy, xy = stress(grid, mesh, u, mu)
    return nodes, np.sqrt(xx**2 - xx * yy + yy**2 + 3 * xy**2)


def sample(index: int, seed: int = 0) -> dict[str, Array]:
    """One sample: XY [972, 2], sigma [972], rr [42], theta [10]. Depends on (seed, index) only."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(index,)))
    theta = rng.standard_normal(10)
    nodes, sigma = solve(theta)
    rr = void_radius(theta, np.linspace(0, 2 * np.pi, 42) % (2 * np.pi))
    return {"XY": nodes.reshape(2, -1).T, "sigma": sigma.ravel(), "rr": rr, "theta": theta}


def generate_elasticity(
    root: str | Path,
    num_samples: int = 2000,
    seed: int = 0,
    workers: int | None = None,
    log: bool = True,
) -> Path:
    """Write a generated elasticity set under the names of the official one, all float64::

        root/Random_UnitCell_XY_10.npy      [972, 2, n]  nodes
        root/Random_UnitCell_sigma_10.npy   [972, n]     von Mises stress
        root/Random_UnitCell_rr_10.npy      [42, n]      void radius at 42 angles, 0 to 2 pi
        root/Random_UnitCell_theta_10.npy   [n, 10]      coefficients of void_radius
        root/SOURCE.json                    "generated": true, seed, physics, checksums

    The same set (seed, n, version) is taken as it is; nothing is ever overwritten. Sample i depends
    on the seed and i only.

    Args:
        root: Folder, made if missing; one process at a time may generate into it.
        num_samples: n, 2000 in the official set.
        seed: Of the set.
        workers: Processes; default: one per core and 200 samples. If several, they are spawned:
            a script needs ``if __name__ == "__main__":``.
        log: Progress on standard error.

    Raises:
        FileExistsError: ``root`` holds another set, such as the official one.
        ImportError: scikit-fem is missing.
    """
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}")
    if fem is None:
        raise ImportError('scikit-fem is missing: pip install "flare-geo[generate]"')
    root, ready, source = Path(root), Path(root, ".ready"), Path(root, SOURCE)
    root.mkdir(parents=True, exist_ok=True)
    say = partial(print, "elasticity:", file=sys.stderr) if log else lambda *_: None
    workers = workers or max(1, min(os.cpu_count() or 1, num_samples // 200))
    if ready.exists():  # an earlier run was cut while moving a complete set into place
        _publish(ready, root)
    record = {**RECORD, "seed": seed, "num_samples": num_samples}
    if source.exists() or _checksums(root):
        there = json.loads(source.read_text()) if source.exists() else {}
        if not there.items() >= {**record, "sha256": _checksums(root)}.items():
            raise FileExistsError(f"{root} holds another elasticity set: choose another folder")
        say(f"taking the {num_samples} samples of seed {seed} in {root} as they are")
        return root
    say(f"solving {num_samples} unit cells, seed {seed}, {workers} process(es)")
    arrays = _compute(num_samples, seed, workers, log)
    with tempfile.TemporaryDirectory(".tmp", dir=root, ignore_cleanup_errors=True) as folder:
        for name, array in arrays.items():
            np.save(Path(folder, name), array)
        tools = {name: version(name) for name in ("flare-geo", "numpy", "scipy", "scikit-fem")}
        record |= {"tools": tools, "sha256": _checksums(Path(folder))}
        Path(folder, SOURCE).write_text(json.dumps(record, indent=2))
        Path(folder).rename(ready)
    _publish(ready, root)
    say(f"{num_samples} samples in {root}")
    return root


def _compute(num_samples: int, seed: int, workers: int, log: bool) -> dict[str, Array]:
    """All samples, by file name, in the axis order of the official arrays."""
    task = partial(sample, seed=seed)
    samples = list(run_cases(task, range(num_samples), workers=workers, unit="cell", log=log))
    axis = {"XY": 2, "sigma": 1, "rr": 1, "theta": 0}
    return {FILES[key]: np.stack([one[key] for one in samples], axis[key]) for key in FILES}


def _checksums(folder: Path) -> dict[str, str]:
    files = [folder / name for name in FILES.values() if (folder / name).exists()]
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def _publish(ready: Path, root: Path) -> None:
    """Move a complete set into place, SOURCE.json last; may be cut and called again."""
    for file in [ready / name for name in (*FILES.values(), SOURCE) if (ready / name).exists()]:
        if (root / file.name).exists():
            raise FileExistsError(f"{root / file.name} is in the way of {file}")
        file.rename(root / file.name)
    ready.rmdir()
