"""Triangles and discs to pixels, with a depth for each pixel: what a graphics card does, in numpy.

Places are in pixels: x to the right, y down, both from the upper left corner of the picture, and z
towards the eye. Pixel (i, j) has its centre at (i + 1/2, j + 1/2).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

CHUNK = 1 << 18  # pixels that are handled together: few enough for the cache of a processor
LEVELS = float(2**32 - 1)  # of depth


@dataclass(frozen=True)
class Fragments:
    """Where primitives cover the centres of pixels, one row for each pair."""

    owner: np.ndarray  # int64 [k], which primitive
    pixel: np.ndarray  # int64 [k], y * width + x
    depth: np.ndarray  # float64 [k], larger is nearer

    def chosen(self, kept: np.ndarray) -> "Fragments":
        """Some of the rows."""
        return Fragments(self.owner[kept], self.pixel[kept], self.depth[kept])


class Canvas:
    """What is nearest to the eye at each pixel of a picture of `width` x `height` pixels.

    Args:
        width, height: of the picture.
        near, far: the depths between which everything lies.

    Example::

        canvas = Canvas(80, 60, near=1.0, far=-1.0)
        canvas.add(triangles(corners, (80, 60)), first=0)  # corners [t, 3, 3]
        seen = canvas.seen()  # [60, 80], the triangle that is seen, -1 where none is
    """

    def __init__(self, width: int, height: int, *, near: float, far: float) -> None:
        self.width, self.height, self.size = width, height, (width, height)
        self.far, self.step = far, LEVELS / max(near - far, 1e-300)
        # Depth in the upper half of each number, primitive in the lower: the larger one is seen.
        self._nearest = np.zeros(width * height, dtype=np.uint64)

    def add(self, fragments: Iterator[Fragments], first: int) -> None:
        """Draw opaque primitives; the first of them is number `first` of the picture."""
        for part in fragments:
            number = (part.owner + (first + 1)).astype(np.uint64)
            key = self.level(part.depth) << np.uint64(32) | number
            np.maximum.at(self._nearest, part.pixel, key)

    def seen(self) -> np.ndarray:
        """Which primitive is seen at each pixel, int64 `[height, width]`; -1 where none is."""
        number = (self._nearest & np.uint64(2**32 - 1)).astype(np.int64) - 1
        return number.reshape(self.height, self.width)

    def before(self, part: Fragments) -> np.ndarray:
        """Which fragments nothing opaque hides, `[k]`."""
        hidden = self._nearest[part.pixel]
        return (hidden == 0) | (self.level(part.depth) >= hidden >> np.uint64(32))

    def level(self, depth: np.ndarray) -> np.ndarray:
        """Depths as whole numbers of 32 bits, uint64 `[k]`."""
        return np.clip((depth - self.far) * self.step, 0, LEVELS).astype(np.uint64)


def triangles(corners: np.ndarray, size: tuple[int, int]) -> Iterator[Fragments]:
    """The pixels whose centres lie in triangles `corners [t, 3, 3]`.

    A centre on the side between two triangles belongs to one of them.
    """
    width, height = size
    low, high = corners[..., 1].min(axis=1), corners[..., 1].max(axis=1)
    kept = np.flatnonzero((low < height) & (high > 0))  # in a band of a picture these are few
    x, y, z = np.ascontiguousarray(np.moveaxis(corners[kept], 2, 0), dtype=float)  # [t, 3] each
    x1, y1 = np.roll(x, -1, axis=1), np.roll(y, -1, axis=1)
    # A side is a x + b y + c = 0, positive inside; from the other end it is exactly the negative.
    a, b, c = y - y1, x1 - x, x * y1 - x1 * y
    area = (x1 - x)[:, 0] * (y[:, 2] - y[:, 0]) - (x[:, 2] - x[:, 0]) * (y1 - y)[:, 0]
    sign = np.sign(area)[:, None]
    a, b, c = sign * a, sign * b, sign * c
    safe = np.where(area == 0, 1.0, area)
    u, v = z[:, 1] - z[:, 0], z[:, 2] - z[:, 0]
    slope_x = (u * (y[:, 2] - y[:, 0]) - v * (y[:, 1] - y[:, 0])) / safe
    slope_y = (v * (x[:, 1] - x[:, 0]) - u * (x[:, 2] - x[:, 0])) / safe
    deepest, nearest = z.min(axis=1), z.max(axis=1)
    # A centre on the lower side is inside, one on the upper side is not, as OpenGL has it.
    top = np.clip(np.floor(low[kept] + 0.5), 0, height).astype(np.int64)
    bottom = np.clip(np.floor(high[kept] + 0.5), 0, height).astype(np.int64)
    rows = np.where(area == 0, 0, np.maximum(bottom - top, 0))
    for some in _chunks(rows):
        owner, line = _expanded(rows[some])
        owner += some.start
        line += top[owner]
        middle = line + 0.5
        left, right = np.full(len(owner), -np.inf), np.full(len(owner), np.inf)
        for side in range(3):
            rise = a[owner, side]
            with np.errstate(divide="ignore", invalid="ignore"):
                cross = -(b[owner, side] * middle + c[owner, side]) / rise
            left = np.where(rise > 0, np.maximum(left, cross), left)
            right = np.where(rise < 0, np.minimum(right, cross), right)
        for part in _across(owner, line, left, right, width):
            at, column, row = part
            depth = z[at, 0] + slope_x[at] * (column + 0.5 - x[at, 0])
            depth += slope_y[at] * (row + 0.5 - y[at, 0])
            # Slopes of slivers are rounding.
            depth = np.clip(depth, deepest[at], nearest[at])
            yield Fragments(kept[at], row * width + column, depth)


def discs(centres: np.ndarray, radius: float, size: tuple[int, int]) -> Iterator[Fragments]:
    """The pixels whose centres lie in discs around `centres [p, 3]`, as deep as balls are."""
    x, y, z = np.asarray(centres, dtype=float).T
    width, height = size
    top = np.clip(np.ceil(y - radius - 0.5), 0, height).astype(np.int64)
    bottom = np.clip(np.ceil(y + radius - 0.5), 0, height).astype(np.int64)
    rows = bottom - top
    for some in _chunks(rows):
        owner, line = _expanded(rows[some])
        owner += some.start
        line += top[owner]
        half = np.sqrt(np.maximum(radius**2 - (line + 0.5 - y[owner]) ** 2, 0))
        for part in _across(owner, line, x[owner] - half, x[owner] + half, width):
            at, column, row = part
            off = (column + 0.5 - x[at]) ** 2 + (row + 0.5 - y[at]) ** 2
            depth = z[at] + np.sqrt(np.maximum(radius**2 - off, 0))
            yield Fragments(at, row * width + column, depth)


def weights(corners: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Shares `[k, 3]` of the corners `[k, 3, 2|3]` of a triangle each in the places (x, y)."""
    px, py = corners[..., 0], corners[..., 1]
    x1, y1 = px[:, 1] - px[:, 0], py[:, 1] - py[:, 0]
    x2, y2 = px[:, 2] - px[:, 0], py[:, 2] - py[:, 0]
    area = x1 * y2 - x2 * y1
    area[area == 0] = 1.0
    dx, dy = x - px[:, 0], y - py[:, 0]
    second = np.clip((dx * y2 - x2 * dy) / area, 0, 1)
    third = np.clip((x1 * dy - dx * y1) / area, 0, 1 - second)
    return np.stack([1 - second - third, second, third], axis=1)


def _across(
    owner: np.ndarray, line: np.ndarray, left: np.ndarray, right: np.ndarray, width: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Owner, column and row of the pixels between `left` and `right` of each line."""
    start = np.ceil(np.clip(left, -1.0, width + 1.0) - 0.5).astype(np.int64).clip(0, width)
    stop = np.ceil(np.clip(right, -1.0, width + 1.0) - 0.5).astype(np.int64).clip(0, width)
    counts = np.maximum(stop - start, 0)
    for some in _chunks(counts):
        at, column = _expanded(counts[some])
        at += some.start
        yield owner[at], column + start[at], line[at]


def _expanded(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """0 0 0 1 2 2 and 0 1 2 0 0 1 for counts of 3 1 2."""
    owner = np.repeat(np.arange(len(counts)), counts)
    start = np.cumsum(counts) - counts
    return owner, np.arange(len(owner)) - start[owner]


def _chunks(counts: np.ndarray) -> Iterator[slice]:
    """Runs of rows that together count about `CHUNK`."""
    ends = np.cumsum(counts)
    if len(ends) == 0 or ends[-1] == 0:
        return
    cuts = np.searchsorted(ends, np.arange(CHUNK, ends[-1], CHUNK), side="right")
    edges = np.unique(np.concatenate([[0], cuts, [len(counts)]]))
    for start, stop in zip(edges[:-1].tolist(), edges[1:].tolist()):
        yield slice(start, stop)
