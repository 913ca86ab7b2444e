"""Potential flow around a closed body by constant source panels, with mirror planes.

The perturbation velocity is that of a source layer on the surface (Hess and Smith, 1967,
https://doi.org/10.1016/0376-0421(67)90003-6): n sources, as strong as it takes for no flow through
the n panel centres. The velocity of one flat panel of unit strength is exact: with n the normal,
m_e the outward normal of edge e in the plane of the panel, r1 and r2 the distances to its ends,
d its length and Omega the solid angle the panel fills,

    4 pi v = Omega n + sum_e m_e log((r1 + r2 + d) / (r1 + r2 - d))
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
PAIRS = 200_000  # point-panel pairs at a time: about 100 MB


class Panels(NamedTuple):
    """Flat quadrilaterals, counter-clockwise seen from outside; two corners may coincide.

    Shapes:
        ``corners [n, 4, 3]``, ``centre [n, 3]``, ``normal [n, 3]`` of length one, ``area [n]``.
    """

    corners: Array
    centre: Array
    normal: Array
    area: Array


class Mirror(NamedTuple):
    """The plane where coordinate ``axis`` equals ``at``; nothing flows through it."""

    axis: int
    at: float


def panels_of(corners: Array) -> Panels:
    """Panels of quadrilaterals ``[n, 4, 3]``, flattened into the plane of their diagonals."""
    cross = np.cross(corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1]) / 2
    area = np.linalg.norm(cross, axis=1)
    normal = cross / area[:, None]
    middle = corners.mean(axis=1)  # every corner is equally far above or below it
    height = np.einsum("nkc,nc->nk", corners - middle[:, None], normal)
    flat = corners - height[..., None] * normal[:, None]  # [n, 4, 3]
    halves = [np.cross(flat[:, i] - flat[:, 0], flat[:, i + 1] - flat[:, 0]) for i in (1, 2)]
    weights = [np.einsum("nc,nc->n", half, normal) / 2 for half in halves]
    thirds = [(flat[:, 0] + flat[:, i] + flat[:, i + 1]) / 3 for i in (1, 2)]
    moment = sum(w[:, None] * t for w, t in zip(weights, thirds))
    return Panels(flat, moment / area[:, None], normal, area)


def influence(points: Array, panels: Panels, *, own: bool = False) -> Array:
    """Velocity at ``points [p, 3]`` of each of n panels with strength one. ``[p, n, 3]``

    Args:
        points: Where.
        panels: The sources.
        own: The points are the centres of the panels, just outside: there Omega is 2 pi.
    """
    out = np.empty((len(points), len(panels.area), 3))
    step = max(1, PAIRS // len(panels.area))
    for start in range(0, len(points), step):
        part = points[start : start + step]
        out[start : start + step] = _influence(part, panels, start if own else None)
    return out


def _influence(points: Array, panels: Panels, own: int | None) -> Array:
    corners, normal = panels.corners, panels.normal
    edge = np.roll(corners, -1, axis=1) - corners  # [n, 4, 3]
    d = np.linalg.norm(edge, axis=2)
    outward = np.cross(edge, normal[:, None]) / np.maximum(d, 1e-300)[..., None]
    r = [_distance(points, corners[:, k]) for k in range(4)]  # 4 [p, n]
    height = points @ normal.T - np.einsum("nc,nc->n", corners[:, 0], normal)
    angle = np.zeros_like(height)
    for i in (1, 2):  # each triangle: van Oosterom and Strackee, 1983
        a, b, c = r[0], r[i], r[i + 1]
        ab, bc, ca = (
            np.sum((corners[:, j] - corners[:, k]) ** 2, axis=1)
            for j, k in ((0, i), (i, i + 1), (i + 1, 0))
        )
        side = np.cross(corners[:, i] - corners[:, 0], corners[:, i + 1] - corners[:, 0])
        dots = (a * a + b * b - ab) * c + (b * b + c * c - bc) * a + (c * c + a * a - ca) * b
        triple = height * np.einsum("nc,nc->n", side, normal)
        angle += 2 * np.arctan2(triple, a * b * c + dots / 2)
    if own is not None:
        rows = np.arange(len(points))
        angle[rows, own + rows] = 2 * np.pi
    velocity = angle[..., None] * normal
    for k in range(4):
        ends = r[k] + r[(k + 1) % 4]  # r1 + r2
        log = np.log((ends + d[:, k]) / np.maximum(ends - d[:, k], 1e-300))
        velocity += log[..., None] * outward[:, k]
    return velocity / (4 * np.pi)


def _distance(points: Array, others: Array) -> Array:
    r = [points[:, None, c] - others[:, c] for c in range(3)]
    return np.sqrt(r[0] * r[0] + r[1] * r[1] + r[2] * r[2])


def induced(
    points: Array, panels: Panels, mirrors: Sequence[Mirror] = (), *, own: bool = False
) -> Array:
    """As :func:`influence`, each panel with its images behind the mirrors. ``[p, n, 3]``"""
    total = np.zeros((len(points), len(panels.area), 3))
    for sign, shift in _reflections(mirrors):
        same = own and bool((sign > 0).all())
        # the image of a panel does at a point what the panel does at the image of the point
        total += sign * influence(sign * points + shift, panels, own=same)
    return total


def _reflections(mirrors: Sequence[Mirror]) -> Iterator[tuple[Array, Array]]:
    for chosen in product((False, True), repeat=len(mirrors)):
        sign, shift = np.ones(3), np.zeros(3)
        for axis, at in (m for m, use in zip(mirrors, chosen) if use):
            sign[axis], shift[axis] = -1, 2 * at
        yield sign, shift


def surface_flow(
    panels: Panels, freestream: Array, mirrors: Sequence[Mirror] = ()
) -> tuple[Array, Array]:
    """Source strengths ``[n]`` and velocity ``[n, 3]`` at the panel centres, which is tangential.

    Args:
        panels: The body; of a body cut by mirrors only the part on one side.
        freestream: Velocity far away ``[3]``, parallel to the mirrors.
        mirrors: Planes at right angles, such as the ground and the plane of symmetry.
    """
    velocity = induced(panels.centre, panels, mirrors, own=True)
    through = np.einsum("pnc,pc->pn", velocity, panels.normal)
    strength = np.linalg.solve(through, -panels.normal @ freestream)
    return strength, freestream + np.einsum("pnc,n->pc", velocity, strength)
