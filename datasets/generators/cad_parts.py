"""Parts made of formulas: blocks with holes, brackets, tubes, sections, overhangs, lattices, cones.

Each family draws its measures from a random generator and says which points are solid. A part fills
a box of size ``size`` mm with x and y around 0 and z from 0; no wall is thinner than ``thin``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from flare_geo.datasets.generators.voxels import Array, Solid, Voxel, largest_piece

Points = tuple[Array, Array, Array]
Family = Callable[[np.random.Generator, Points, Array, float], Solid]
THIN = 0.11  # of the extent: four voxels of the usual grid
SMALLEST = 40  # voxels


def cad_part(rng: np.random.Generator, extent: float, voxel: Voxel) -> tuple[str, Solid]:
    """A random part whose longest side is ``extent`` mm: name of its family, voxels [nx, ny, nz].

    Half of the parts are turned by 90 degrees about z, a quarter is upside down: as in a folder of
    CAD models nobody has chosen how they stand.
    """
    name = str(rng.choice(list(FAMILIES)))
    while True:
        size = extent * rng.uniform(0.3, 1, size=3)
        size *= extent / size.max()
        axes = [(np.arange(round(s / h)) + 0.5) * h for s, h in zip(size, voxel, strict=True)]
        axes[:2] = [a - a.mean() for a in axes[:2]]
        x, y, z = np.meshgrid(*axes, indexing="ij")
        if rng.random() < 0.5:
            x, y, size = y, x, size[[1, 0, 2]]
        if rng.random() < 0.25:
            z = size[2] - z
        solid = FAMILIES[name](rng, (x, y, z), size, THIN * extent)
        if solid.sum() >= SMALLEST and np.ptp(np.nonzero(solid)[2]) >= 2:
            return name, largest_piece(solid)


def block(rng: np.random.Generator, p: Points, size: Array, thin: float) -> Solid:
    """A block with up to three holes right through and perhaps a pocket in its top."""
    x, y, z = p
    solid = np.ones(x.shape, dtype=bool)
    middle = np.array([0, 0, size[2] / 2])
    for _ in range(rng.integers(1, 4)):
        along = int(rng.integers(3))
        across = [i for i in range(3) if i != along]
        radius = rng.uniform(0.1, 0.3) * size[across].min()
        centre = middle + rng.uniform(-0.3, 0.3, size=3) * size
        solid &= np.hypot(*(p[i] - centre[i] for i in across)) > radius
    if rng.random() < 0.4:
        wall, floor = size[:2].min() * rng.uniform(0.2, 0.35), size[2] * rng.uniform(0.3, 0.7)
        solid &= (size[0] / 2 - abs(x) < wall) | (size[1] / 2 - abs(y) < wall) | (z < floor)
    return solid


def bracket(rng: np.random.Generator, p: Points, size: Array, thin: float) -> Solid:
    """A foot and an upright with a rib between them and two bolt holes in the foot."""
    x, y, z = p
    foot, wall = thin * rng.uniform(1, 1.8, size=2)
    back = x + size[0] / 2
    solid = (z < foot) | (back < wall)
    run, rise = rng.uniform(0.5, 0.9) * size[0], rng.uniform(0.5, 0.9) * size[2]
    solid |= (abs(y) < thin / 2 * rng.uniform(1, 2)) & (back / run + z / rise < 1)
    hole = np.hypot(x - size[0] / 5, abs(y) - size[1] / 4)
    return solid & ~((hole < rng.uniform(0.08, 0.15) * size[:2].min()) & (z < foot))


def tube(rng: np.random.Generator, p: Points, size: Array, thin: float) -> Solid:
    """An elliptic tube, upright with a flange or lying on its side."""
    x, y, z = p
    wall = thin * rng.uniform(1, 1.8)
    if rng.random() < 0.5:
        u, v, a, b, flange = x, y, size[0] / 2, size[1] / 2, z < rng.uniform(0, 1.5) * thin
    else:
        u, v, a, b, flange = y, z - size[2] / 2, size[1] / 2, size[2] / 2, np.zeros(x.shape, bool)
    a_in, b_in = max(a - wall, 0.2 * a), max(b - wall, 0.2 * b)
    hollow = np.hypot(u / a_in, v / b_in) < 1
    slim = rng.uniform(0.75, 1)
    a, b = (a * slim, b * slim) if flange.any() else (a, b)
    within = np.hypot(u / max(a, a_in + thin / 2), v / max(b, b_in + thin / 2)) < 1
    return (within | flange) & ~hollow


def section(rng: np.random.Generator, p: Points, size: Array, thin: float) -> Solid:
    """An L, T, U or I section, lying along y or standing."""
    across, up = p[0] + size[0] / 2, p[2]
    width, height = size[0], size[2]
    if rng.random() < 0.4:
        up, height = p[1] + size[1] / 2, size[1]
    flange, web = thin * rng.uniform(1, 1.6, size=2)
    left, right = across < web, width - across < web
    low, high = up < flange, height - up < flange
    middle = abs(across - width / 2) < web / 2
    shape = rng.integers(4)
    return (left | low, middle | high, left | right | low, middle | low | high)[shape]


def overhang(rng: np.random.Generator, p: Points, size: Array, thin: float) -> Solid:
    """A table on one column, a bridge on two legs, or an arm held at one end, over nothing."""
    x, y, z = p
    slab = size[2] - z < thin * rng.uniform(1, 1.8)
    kind = rng.integers(3)
    if kind == 0:
        return slab | (np.hypot(x, y) < rng.uniform(0.2, 0.35) * size[:2].min() + thin / 2)
    leg = thin * rng.uniform(1, 2)
    if kind == 1:
        return slab | (size[0] / 2 - abs(x) < leg)
    return slab | (x + size[0] / 2 < leg) | ((z < thin) & (x < rng.uniform(-0.2, 0.4) * size[0]))


def lattice(rng: np.random.Generator, p: Points, size: Array, thin: float) -> Solid:
    """Struts or a gyroid on a base, some with a cover."""
    z = p[2]
    cell = rng.uniform(3, 4) * thin
    a, b, c = (2 * np.pi * (q + s) / cell for q, s in zip(p, rng.uniform(0, cell, 3), strict=True))
    if rng.random() < 0.5:
        gyroid = np.sin(a) * np.cos(b) + np.sin(b) * np.cos(c) + np.sin(c) * np.cos(a)
        inner = abs(gyroid) < rng.uniform(0.5, 0.8)
    else:
        near = [np.cos(q) > np.cos(np.pi * thin / cell) for q in (a, b, c)]
        inner = (near[0] & near[1]) | (near[1] & near[2]) | (near[0] & near[2])
    return inner | (z < thin) | (size[2] - z < thin * rng.integers(2))


def revolved(rng: np.random.Generator, p: Points, size: Array, thin: float) -> Solid:
    """A round body whose radius changes with height: cones, steps and waists, perhaps bored."""
    x, y, z = p
    radius = size[:2].min() / 2
    at, share = np.linspace(0, size[2], 4), rng.uniform(0.4, 1, size=4)
    share[rng.integers(4)] = 1
    r = np.hypot(x, y)
    solid = r < radius * np.interp(z, at, share)
    if rng.random() < 0.5:
        solid &= r > rng.uniform(0.3, 0.5) * 0.4 * radius
    return solid


FAMILIES: dict[str, Family] = {
    f.__name__: f for f in (block, bracket, tube, section, overhang, lattice, revolved)
}
