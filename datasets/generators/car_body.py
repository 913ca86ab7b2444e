"""A smooth closed body that looks like a notchback car, shaped by the 16 DrivAerML parameters.

Names and ranges of the parameters are those of the official table; their effect is our reading:
each moves one feature of a fixed car by that many millimetres, the last turns it by degrees. It
has no wheels, mirrors or underbody detail.

The body is the image of a rounded cube. A point of the cube is found from its ring s, 0 at the
nose and 1 at the tail, and the place t on the ring, once around from the bottom over the +y side:

    |u|^5 + rho^5 = 1 along the rings,  (v, w) with |v|^5 + |w|^5 = rho^5 around each of them.

Then u is stretched to x, w to the height between the profiles of the underbody and of the upper
body at x, and v to the half width at x and z. All of it is smooth in (s, t), also at both ends.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

Array = NDArray[np.float64]
GROUND = -0.3176  # z of the ground, from the official geo_ref files
FRONT_AXLE, WHEELBASE = 0.007, 2.78618  # of the reference car, from the same files
POWER = 5  # of the rounded cube: larger is boxier
SHARP = 0.1  # metres over which the profile turns from one slope to the next
RANGES = {  # least and greatest value in mm, for the pitch in degrees; what grows with it
    "Vehicle_Length": (-150, 250),  # wheelbase
    "Vehicle_Width": (-100, 100),
    "Vehicle_Height": (-100, 100),  # of the roof
    "Front_Overhang": (-150, 100),
    "Front_Planview": (-75, 75),  # how far the corners of the nose stand back
    "Hood_Angle": (-50, 50),  # height of the nose
    "Approach_Angle": (-40, 30),  # height of the lip under the nose
    "Windscreen_Angle": (-150, 150),  # its upper edge moves back
    "Greenhouse_Tapering": (-100, 100),  # the roof becomes narrower
    "Backlight_Angle": (-100, 200),  # its upper edge moves back
    "Decklid_Height": (-50, 50),
    "Rearend_tapering": (-90, 70),  # the tail becomes narrower
    "Rear_Overhang": (-150, 100),
    "Rear_Diffusor_Angle": (-50, 50),  # height of the underbody at the tail
    "Vehicle_Ride_Height": (-50, 50),
    "Vehicle_Pitch": (-1, 1),  # nose up
}


def draw_parameters(seed: int, run: int) -> dict[str, float]:
    """Uniform in the ranges, with six digits as in the official tables; for (seed, run) only."""
    share = np.random.default_rng([seed, run]).random(len(RANGES))
    low, high = np.array(list(RANGES.values()), dtype=float).T
    drawn = low + share * (high - low)
    return {name: float(f"{value:.6g}") for name, value in zip(RANGES, drawn)}


def wheelbase(parameters: dict[str, float]) -> float:
    """Distance of the axles in metres: the car grows between them."""
    return WHEELBASE + parameters["Vehicle_Length"] / 1000


def car_surface(s: Array, t: Array, parameters: dict[str, float]) -> Array:
    """Points of the body at rings ``s`` and places ``t``, arrays of one shape. ``[..., 3]``, m."""
    mm = {name: value / 1000 for name, value in parameters.items()}
    u, rho = _along(s)
    v, w = (rho * part for part in _around(t))
    grown = mm["Vehicle_Length"]
    nose, tail = -0.86 - mm["Front_Overhang"], 3.76 + grown + mm["Rear_Overhang"]
    x = nose + (tail - nose) * (u + 1) / 2
    rear_axle = FRONT_AXLE + wheelbase(parameters)

    roof = 1.10 + mm["Vehicle_Height"]
    deck = 0.72 + mm["Decklid_Height"]
    upper = _profile(
        x,
        (nose, 0.50 + mm["Hood_Angle"]),
        (0.48, 0.70),
        (1.33 + mm["Windscreen_Angle"], roof),
        (2.20 + grown + mm["Backlight_Angle"], roof - 0.03),
        (3.12 + grown, deck),
        (tail, deck - 0.02),
    )
    lower = _profile(
        x,
        (nose, 0.08 + mm["Approach_Angle"]),
        (-0.35, 0),
        (rear_axle - 0.1, 0),
        (tail, 0.11 + mm["Rear_Diffusor_Angle"]),
    )
    floor = GROUND + 0.17
    z = floor + lower + (w + 1) / 2 * (upper - lower - floor)

    half = 0.93 + mm["Vehicle_Width"] / 2
    y = v * half
    y = y * (1 - 0.035 * _ramp(FRONT_AXLE + 0.4 - x, 0.2) ** 2)
    y = y * (1 - (0.085 + mm["Rearend_tapering"]) * _ramp(x - rear_axle + 0.3, 0.2) / 1.2)
    y = y * (1 - (0.52 + 2 * mm["Greenhouse_Tapering"]) * _ramp(z - 0.62, SHARP))
    x = x + (0.12 + mm["Front_Planview"]) * (y / half) ** 2 * ((1 - u) / 2) ** 3

    z = z + mm["Vehicle_Ride_Height"]
    middle = (FRONT_AXLE + rear_axle) / 2
    turn = np.deg2rad(parameters["Vehicle_Pitch"])  # nose up
    x, z = (
        middle + (x - middle) * np.cos(turn) + (z - GROUND) * np.sin(turn),
        GROUND + (z - GROUND) * np.cos(turn) - (x - middle) * np.sin(turn),
    )
    return np.stack([x, y, z], axis=-1)


def _ramp(x: Array, width: float) -> Array:
    """0 below zero, x above it, with a smooth turn."""
    return (x + np.hypot(x, width)) / 2


def _profile(x: Array, *corners: tuple[float, float]) -> Array:
    """A polygon line through the corners, its turns made smooth."""
    at, height = np.array(corners).T
    slope = np.diff(height) / np.diff(at)
    z = height[0] + slope[0] * (x - at[0])
    for place, change in zip(at[1:-1], np.diff(slope)):
        z = z + change * (_ramp(x - place, SHARP) - _ramp(at[:1] - place, SHARP))
    return z


def _along(s: Array) -> tuple[Array, Array]:
    """Where the rings are, (u, rho): even steps of s are even steps of length and turning."""
    u, rho = _oval(_even(2.35, 0.8, np.pi)(s))
    return -u, rho


def _around(t: Array) -> tuple[Array, Array]:
    """Where the places are on the outermost ring, (v, w)."""
    w, v = _oval(_even(0.65, 0.92, 2 * np.pi)(t))
    return v, -w


def _oval(angle: Array) -> tuple[Array, Array]:
    """Point of |a|^5 + |b|^5 = 1 in the direction of the angle."""
    a, b = np.cos(angle), np.sin(angle)
    size = (np.abs(a) ** POWER + np.abs(b) ** POWER) ** (1 / POWER)
    return a / size, b / size


@cache
def _even(half_a: float, half_b: float, span: float) -> CubicSpline:
    """Angle, 0 to ``span``, over the share of length along an oval of these half axes.

    Each full turn counts as 1.6 m more, so that the rounded edges get their share.
    """
    angle = np.linspace(0, span, 4001)
    a, b = _oval(angle)
    da, db = np.gradient(half_a * a, angle), np.gradient(half_b * b, angle)
    turning = np.abs(np.gradient(np.unwrap(np.arctan2(db, da)), angle))
    speed = np.hypot(da, db) + 1.6 / (2 * np.pi) * turning
    length = np.concatenate([[0], np.cumsum((speed[1:] + speed[:-1]) / 2)])
    return CubicSpline(length / length[-1], angle)


class Polygons(NamedTuple):
    """A polygon mesh of the body in (s, t): corners, counter-clockwise from outside, and centres.

    Shapes:
        ``corners [v, 2]``; ``connectivity [k]``, ``offsets [f + 1]`` as in VTK; ``centres [f, 2]``.
    """

    corners: Array
    connectivity: NDArray[np.int64]
    offsets: NDArray[np.int64]
    centres: Array


def car_polygons(count: int) -> Polygons:
    """About ``count`` polygons: quadrilaterals, and where rings shrink, towards nose and tail,
    pentagons that halve their number, down to a fan of triangles at each end.
    """
    around = 16 * max(1, round(np.sqrt(1.05 * count) / 16))
    rings = max(8, round(1.1 * count / around) + 1)
    s = np.arange(1, rings) / rings
    number = _corners_on_rings(s, around)
    first = np.concatenate([[0], np.cumsum(number)])  # corner of each ring; then nose and tail
    place = np.concatenate([np.arange(n) / n for n in number])
    corners = np.stack([np.repeat(s, number), place], axis=1)

    def pairs(i: int, size: int) -> NDArray[np.int64]:  # ring i in so many pieces: their ends
        j = np.arange(size + 1) * (number[i] // size) % number[i]
        return first[i] + np.stack([j[:-1], j[1:]])

    def middles(n: int) -> Array:
        return (np.arange(n) + 0.5) / n

    faces, centres = [], []
    for i, pole, at in ((0, 0, s[0] * 2 / 3), (len(s) - 1, 1, 1 - s[0] * 2 / 3)):
        a0, a1 = pairs(i, number[i])
        tip = np.full(number[i], first[-1] + pole)
        faces.append(np.column_stack([tip, a0, a1] if pole else [tip, a1, a0]))
        centres.append(np.stack([np.full(number[i], at), middles(number[i])], axis=1))
    for i in range(len(s) - 1):
        size = min(number[i], number[i + 1])
        (a0, a1), (b0, b1) = pairs(i, size), pairs(i + 1, size)
        face = [a0, a1, b1, b0]
        if number[i] > size:  # the corner between two others first: fans from it have no flat parts
            face = [a0 + 1, a1, b1, b0, a0]
        elif number[i + 1] > size:
            face = [b0 + 1, b0, a0, a1, b1]
        faces.append(np.column_stack(face))
        centres.append(np.stack([np.full(size, (s[i] + s[i + 1]) / 2), middles(size)], axis=1))
    sizes = np.concatenate([np.full(len(f), f.shape[1]) for f in faces])
    return Polygons(
        np.concatenate([corners, [[0.0, 0.0], [1.0, 0.0]]]),
        np.concatenate([f.ravel() for f in faces]),
        np.concatenate([[0], np.cumsum(sizes)]),
        np.concatenate(centres),
    )


def _corners_on_rings(s: Array, around: int) -> NDArray[np.int64]:
    """Number of corners on each ring: halved where they would be much closer than the rings."""
    radius = _along(s)[1]
    number = np.full(len(s), around)
    while (thin := (5 * radius / number < 2.6 * s[0]) & (number > 8) & (number % 2 == 0)).any():
        number[thin] //= 2
    for ring in (number, number[::-1]):  # from one ring to the next it may at most double
        for i in range(1, len(ring)):
            ring[i] = min(ring[i], 2 * ring[i - 1])
    return number
