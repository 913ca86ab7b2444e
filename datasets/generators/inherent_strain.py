r"""Parts printed layer by layer and cut off their plate: the inherent-strain method on voxels.

Eight-node hexahedra, linear elasticity without yield, small displacements; mm, N, MPa. The material
is Inc625 at room temperature, :math:`E` = 150 GPa, :math:`\nu` = 0.278. On voxels of one size all
element matrices are equal.

1. A plate of the part's bounding box, 25 mm thick, of the same material, clamped at its bottom.
2. Groups of four layers of voxels are laid down at their nominal place, without stress on the
   already deformed part. Then the group shrinks by ``STRAIN``; plate and earlier groups hold it,
   so the sides end up slightly stepped from group to group. What begins in mid-air (nothing is
   supported) shrinks about itself until it meets the rest.
3. The part cools and shrinks by ``COOLING`` in all directions. At the end of 4 this is
   :math:`u = -\mathrm{COOLING} \cdot x` exactly, whatever held the part meanwhile.
4. The plate is removed, and with it its forces on the part, which finds a new balance. Then the
   rigid motion (least squares over the nodes) is taken out.

Two numbers were tuned, by hand, to two Netfabb results for Inc625 parts of about 20 mm: one for the
in-plane shrinkage (max |u_x| 0.066 and 0.103 mm, proportional to -x in every band of height) and
one for u_z (band means of the taller part from +0.044 mm at the bottom to -0.071 mm at the top:
nearly the same shrinkage, so most of it is alike in all directions; edges curled up over the lower
half, so some of it is ``STRAIN``). They measure no machine. Stresses follow from them and are those
of an elastic body. Netfabb's mesh is coarser inside the part; this one is uniform.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import LinearOperator, cg

from flare_geo.datasets.generators.voxels import (
    CORNERS,
    Array,
    Hexahedra,
    Indices,
    Solid,
    Voxel,
    hexahedra,
)

try:
    import skfem as fem
except ImportError:  # generate_lpbf says what to do
    fem = None

YOUNG, POISSON = 150e3, 0.278  # MPa, 1
STRAIN = (-0.0025, -0.0025, 0.0)  # of a group when it is laid down, in x, y, z
COOLING = 0.0055
PLATE = (13.8, 6.4, 3.2, 1.6)  # mm, layers of the plate from its clamped bottom
GROUP = 4  # layers of voxels laid down at once
VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))


class Brick(NamedTuple):
    r"""Matrices of one hexahedron of a given size; dofs are (ux, uy, uz) corner by corner.

    Shapes:
        ``stiffness [24, 24]``; ``load [24, 6]``, :math:`\int B^T D\,dV`: times an eigenstrain (xx,
        yy, zz, yz, xz, xy; shear doubled) the nodal forces of it, and, transposed, from
        displacements to the integral of the stress; ``elastic [6, 6]``, D; ``volume``.
    """

    stiffness: Array
    load: Array
    elastic: Array
    volume: float


@lru_cache(maxsize=64)
def brick(size: Voxel) -> Brick:
    """The matrices of a box of ``size`` mm."""
    from skfem.helpers import ddot, sym_grad
    from skfem.models.elasticity import lame_parameters, linear_elasticity

    lam, mu = lame_parameters(YOUNG, POISSON)
    mesh = fem.MeshHex.init_tensor(*([0, s] for s in size))
    basis = fem.Basis(mesh, fem.ElementVector(fem.ElementHex1()))
    corner = [int(np.abs(mesh.p.T - c * size).sum(axis=1).argmin()) for c in CORNERS]
    dofs = basis.nodal_dofs[:, corner].T.ravel()  # [24]
    elastic = np.diag([2 * mu] * 3 + [mu] * 3)
    elastic[:3, :3] += lam
    load = []
    for row in elastic:
        stress = np.empty((3, 3, 1, 1))
        for (i, j), value in zip(VOIGT, row, strict=True):
            stress[i, j] = stress[j, i] = value
        work = fem.LinearForm(lambda v, w, s=stress: ddot(s + 0 * w.x[0], sym_grad(v)))
        load.append(work.assemble(basis)[dofs])
    stiffness = linear_elasticity(lam, mu).assemble(basis).toarray()[np.ix_(dofs, dofs)]
    return Brick(stiffness, np.stack(load, axis=1), elastic, float(np.prod(size)))


class Printed(NamedTuple):
    """A part after the plate is gone.

    Shapes:
        ``mesh``: N nodes, M hexahedra. ``disp [N, 3]`` mm; ``stress [M, 6]`` MPa, mean of each
        hexahedron (xx, yy, zz, yz, xz, xy); ``forces [N, 3]`` N, what is left of balance at the
        nodes; ``held [N, 3]`` N, the same before the plate was removed.
    """

    mesh: Hexahedra
    disp: Array
    stress: Array
    forces: Array
    held: Array


def build(
    solid: Solid,
    voxel: Voxel,
    strain: Sequence[float] = STRAIN,
    cooling: float = COOLING,
    group: int = GROUP,
) -> Printed:
    """Print a part, steps 1 to 4 of the module.

    Args:
        solid: Voxels in one piece, at least one in the lowest layer. [nx, ny, nz]
        voxel: Their size in mm.
        strain: In-plane and vertical strain of a group. [3]
        cooling: Isotropic shrinkage of the whole part.
        group: Layers laid down at once.
    """
    thickness = np.array([*PLATE] + [voxel[2]] * solid.shape[2])
    plate = np.ones((*solid.shape[:2], len(PLATE)), dtype=bool)
    pos, elems, layer = hexahedra(np.concatenate([plate, solid], axis=2), voxel, thickness)
    dofs = _dofs(elems)
    part = layer >= len(PLATE)
    one, eigenstrain = brick(voxel), np.array([*strain, 0, 0, 0])
    stiffness = sum(
        _assemble(brick((*voxel[:2], h)).stiffness, dofs[layer == k], pos.size)
        for k, h in enumerate(PLATE)
    )
    clamped = 3 * (solid.shape[0] + 1) * (solid.shape[1] + 1)  # the first nodes are the lowest
    u, since_birth = np.zeros(pos.size), np.zeros(dofs.shape)
    for first in range(len(PLATE), thickness.size, group):
        new = (layer >= first) & (layer < first + group)
        there = slice(clamped, 3 * int(elems[new].max()) + 3)  # nodes come with their first layer
        stiffness = stiffness + _assemble(one.stiffness, dofs[new], pos.size)
        load = _scatter(np.tile(one.load @ eigenstrain, (int(new.sum()), 1)), dofs[new], pos.size)
        step = np.zeros_like(u)
        step[there] = _balance(stiffness[there, there], load[there])
        u += step
        laid = layer < first + group
        since_birth[laid] += step[dofs[laid]]

    mesh = hexahedra(solid, voxel)
    nodes = np.empty(len(mesh.pos), dtype=np.int64)
    nodes[mesh.elems] = elems[part]
    dofs, since_birth = _dofs(mesh.elems), since_birth[part]
    internal = partial(_scatter, dofs=dofs, size=mesh.pos.size)
    held = internal(since_birth @ one.stiffness - one.load @ eigenstrain)
    step = _balance(_assemble(one.stiffness, dofs, mesh.pos.size), -held)
    since_birth = since_birth + step[dofs]
    disp = u.reshape(-1, 3)[nodes] + step.reshape(-1, 3) - cooling * mesh.pos
    return Printed(
        mesh,
        disp - rigid_motion(mesh.pos, disp),
        since_birth @ one.load / one.volume - one.elastic @ eigenstrain,
        internal(since_birth @ one.stiffness - one.load @ eigenstrain).reshape(-1, 3),
        held.reshape(-1, 3),
    )


def rigid_motion(pos: Array, disp: Array) -> Array:
    """The small translation and rotation nearest to a displacement. [N, 3], [N, 3] -> [N, 3]"""
    arm = pos - pos.mean(axis=0)
    modes = np.stack(
        [*(np.broadcast_to(e, pos.shape) for e in np.eye(3)), *np.cross(np.eye(3)[:, None], arm)]
    )
    modes = modes.reshape(6, -1).T  # [3N, 6]
    return (modes @ np.linalg.lstsq(modes, disp.ravel(), rcond=None)[0]).reshape(-1, 3)


def von_mises(stress: Array) -> Array:
    """Von Mises stress of (xx, yy, zz, yz, xz, xy). [M, 6] -> [M]"""
    xx, yy, zz, yz, xz, xy = stress.T
    normal = (xx - yy) ** 2 + (yy - zz) ** 2 + (zz - xx) ** 2
    return np.sqrt(normal / 2 + 3 * (yz**2 + xz**2 + xy**2))


def _dofs(elems: Indices) -> Indices:
    return (3 * elems[..., None] + np.arange(3)).reshape(-1, 24)


def _assemble(matrix: Array, dofs: Indices, size: int) -> sp.csr_array:
    """The sum of one element matrix at many places. [24, 24], [m, 24] -> [size, size]"""
    row, column = np.repeat(dofs, 24, axis=1).ravel(), np.tile(dofs, (1, 24)).ravel()
    return sp.coo_array((np.tile(matrix.ravel(), len(dofs)), (row, column)), (size, size)).tocsr()


def _scatter(forces: Array, dofs: Indices, size: int) -> Array:
    """Sum of element forces at the dofs. [m, 24], [m, 24] -> [size]"""
    return np.bincount(dofs.ravel(), forces.ravel(), size).astype(np.float64)


def _balance(stiffness: Any, force: Array) -> Array:
    """Displacement under a force, by conjugate gradients scaled by the diagonal.

    Pieces that nothing holds leave rigid motions undetermined. Forces of strains do no work on
    them, so the method still converges, to the solution that holds none of them.
    """
    scale = 1 / stiffness.diagonal()
    scaled = LinearOperator(stiffness.shape, lambda r: scale * r.ravel(), dtype=force.dtype)
    blocks = stiffness.tobsr((3, 3))  # products are faster than by single entries
    u, failed = cg(blocks, force, rtol=1e-10, maxiter=10_000, M=scaled)
    if failed:
        raise RuntimeError(f"no balance of {force.size} forces after 10000 steps: please report it")
    return u
