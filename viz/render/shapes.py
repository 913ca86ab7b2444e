"""Meshes as triangles and balls on the screen, which know their colour at every pixel."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from flare_geo.mesh.quiet import vtk_messages
from flare_geo.viz.render import theme
from flare_geo.viz.render.colors import ColorScale
from flare_geo.viz.render.items import FIELD, Eye, Item
from flare_geo.viz.render.raster import Fragments, discs, triangles, weights

if TYPE_CHECKING:
    import pyvista as pv

EDGE_LIFT = 5e-4  # of the borders of faces before the faces, as a share of the reach


@dataclass(frozen=True)
class Shape:
    """The triangles or the balls of one item."""

    item: Item
    corners: np.ndarray  # [t, 3, 3] triangles, or [p, 1, 3] balls; pixels, z towards the eye
    values: np.ndarray | None = None  # numbers for the scale: [t, 3] or [t, 1]
    normals: np.ndarray | None = None  # [t, 3, 3] or [t, 1, 3]; right, up, towards the eye
    radius: float = 0.0  # of balls, pixels
    once: bool = False  # where it covers a pixel twice it is blended once, as a line is

    def below(self, top: int) -> "Shape":
        """The same on a picture that begins `top` pixels lower."""
        return replace(self, corners=self.corners - [0, top, 0])

    def fragments(self, size: tuple[int, int]) -> Iterator[Fragments]:
        """The pixels that it covers of a picture of `size` (width, height)."""
        if self.radius:
            return discs(self.corners[:, 0], self.radius, size)
        return triangles(self.corners, size)

    def colors(self, owner: np.ndarray, pixel: np.ndarray, width: int) -> np.ndarray:
        """Colours `[k, 3]`, from 0 to 1, of its triangles or balls `owner [k]` at pixels `[k]`."""
        x, y = pixel % width + 0.5, pixel // width + 0.5
        corners = self.corners[owner]
        shares = np.ones((len(owner), 1)) if self.radius else weights(corners, x, y)
        paint = self.item.paint
        if isinstance(paint, str) or self.values is None:
            rgb = np.broadcast_to(_rgb(str(paint)), (len(owner), 3))
        else:
            rgb = _painted(paint, self.values[owner], shares)
        if not self.item.lit:
            return rgb
        if self.radius:
            side = np.stack([x - corners[:, 0, 0], corners[:, 0, 1] - y], axis=1) / self.radius
            front = np.sqrt(np.maximum(1 - (side**2).sum(axis=1), 0))
            normal = np.column_stack([side, front])
        else:
            assert self.normals is not None
            normal = _between(shares, self.normals[owner])
        return _lit(rgb, normal, plain=isinstance(self.item.paint, str))


def shapes_of(item: Item, eye: Eye, samples: int) -> list[Shape]:
    """What an item is on a screen with `samples` times as many pixels as the frame each way."""
    mesh = item.mesh
    screen = _screen(np.asarray(mesh.points, dtype=float), eye, samples)
    if item.ball:
        _, at = _cells(mesh.GetVerts())
        values = _values(item, at[:, None], np.arange(len(at)))
        return [Shape(item, screen[at][:, None], values, radius=0.5 * samples * item.ball)]
    found = []
    if mesh.GetNumberOfLines():
        start, end, owner = segments(mesh)
        values = _values(item, np.stack([start, end], axis=1), mesh.GetNumberOfVerts() + owner)
        found.append(_strokes(item, screen[start], screen[end], values, samples))
    if mesh.GetNumberOfPolys():
        found.append(_faces(item, eye, samples))
        if item.edges:
            ends = np.unique(np.sort(_borders(mesh), axis=1), axis=0)
            screen[:, 2] += EDGE_LIFT * eye.reach * samples / eye.frame.pixel
            line = Item(mesh, theme.INK, opacity=theme.EDGE_OPACITY * item.opacity)
            found.append(_strokes(line, screen[ends[:, 0]], screen[ends[:, 1]], None, samples))
    return found


def segments(mesh: "pv.PolyData") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First point, second point and line `[s]` of all straight segments of the lines of a mesh."""
    offsets, points = _cells(mesh.GetLines())
    start = np.setdiff1d(np.arange(len(points)), offsets[1:] - 1)
    owner = np.searchsorted(offsets, start, side="right") - 1
    return points[start], points[start + 1], owner


def _faces(item: Item, eye: Eye, samples: int) -> Shape:
    mesh = item.mesh
    if not mesh.is_all_triangles or mesh.GetNumberOfVerts() + mesh.GetNumberOfLines():
        with vtk_messages():  # it remarks on every polygon without area
            mesh = mesh.triangulate()
    corners = _cells(mesh.GetPolys())[1].reshape(-1, 3)
    points = np.asarray(mesh.points, dtype=float)
    normals = None
    if item.lit and item.smooth and "Normals" in mesh.point_data:
        normals = (np.asarray(mesh.point_data["Normals"], dtype=float) @ eye.axes.T)[corners]
    elif item.lit:
        sides = points[corners[:, 1:]] - points[corners[:, :1]]  # [t, 2, 3]
        normals = (np.cross(sides[:, 0], sides[:, 1]) @ eye.axes.T)[:, None]
    first = mesh.GetNumberOfVerts() + mesh.GetNumberOfLines()
    values = _values(replace(item, mesh=mesh), corners, first + np.arange(len(corners)))
    return Shape(item, _screen(points, eye, samples)[corners], values, normals)


def _strokes(
    item: Item, start: np.ndarray, end: np.ndarray, values: np.ndarray | None, samples: int
) -> Shape:
    """Lines as rectangles of two triangles; `start`, `end` `[s, 3]` on the screen."""
    along = end - start
    length = np.hypot(along[:, 0], along[:, 1])
    seen = length > 1e-9
    start, end = start[seen], end[seen]
    along = along[seen, :2] / length[seen, None]
    half = np.zeros_like(start)
    half[:, :2] = 0.5 * samples * item.width * np.stack([-along[:, 1], along[:, 0]], axis=1)
    corners = np.stack([start - half, start + half, end + half, end - half], axis=1)  # [s, 4, 3]
    if values is not None and values.shape[1] == 2:
        values = values[seen][:, [[0, 0, 1], [0, 1, 1]]].reshape(-1, 3)
    elif values is not None:
        values = np.repeat(values[seen], 2, axis=0)
    return Shape(item, corners[:, [[0, 1, 2], [0, 2, 3]]].reshape(-1, 3, 3), values, once=True)


def _values(item: Item, corners: np.ndarray, cells: np.ndarray) -> np.ndarray | None:
    """The numbers of an item at the points `corners [t, k]`, or of the cells `[t]`."""
    if isinstance(item.paint, str):
        return None
    if item.association == "point":
        return np.asarray(item.mesh.point_data[FIELD], dtype=float)[corners]
    return np.asarray(item.mesh.cell_data[FIELD], dtype=float)[cells][:, None]


def _painted(scale: ColorScale, values: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Numbers between the corners, and then their colours: none that the bar has not."""
    number = _between(shares, values)  # NaN where a corner is
    table = scale.cmap(np.arange(scale.cmap.N))[:, :3]
    known = np.isfinite(number)
    entry = (np.where(known, number, 0.0) - scale.low) / (scale.high - scale.low) * len(table)
    rgb = table[np.clip(entry, 0, len(table) - 1).astype(np.int64)]
    rgb[~known] = _rgb(theme.NAN)
    return rgb


def _lit(rgb: np.ndarray, normal: np.ndarray, *, plain: bool) -> np.ndarray:
    """Colours under the lights of the theme; the back of a face is lit as its front."""
    length = np.sqrt(np.einsum("kd,kd->k", normal, normal))
    size = np.where(normal[:, 2] < 0, -1, 1) / np.where(length > 0, length, 1)
    light = np.zeros(len(normal))
    for place, strength in theme.LIGHTS:
        towards = np.asarray(place) / np.linalg.norm(place)
        light += strength * np.maximum(size * (normal @ towards), 0)
    look = theme.PLAIN_LIGHT if plain else theme.PAINTED_LIGHT
    return np.clip(rgb * (look["ambient"] + look["diffuse"] * light[:, None]), 0, 1)


def _between(shares: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """What is between the corners, `rows [k, 3, ...]`; `[k, 1, ...]` is the same for all three.

    Where the corners agree the result is exactly theirs.
    """
    first = rows[:, 0]
    if rows.shape[1] == 1:
        return first
    steps = rows[:, 1:] - rows[:, :1]
    mixed: np.ndarray = first + np.einsum("kc,kc...->k...", shares[:, 1:], steps)
    return mixed


def _screen(points: np.ndarray, eye: Eye, samples: int) -> np.ndarray:
    """Places `[n, 3]` in pixels: x to the right, y down, z towards the eye."""
    width, height = eye.frame.size
    seen = (points - eye.centre) @ eye.axes.T * (samples / eye.frame.pixel)
    return seen * [1, -1, 1] + [0.5 * samples * width, 0.5 * samples * height, 0]


def _borders(mesh: "pv.PolyData") -> np.ndarray:
    """The two ends `[e, 2]` of every side of every face."""
    offsets, points = _cells(mesh.GetPolys())
    following = np.arange(1, len(points) + 1)
    following[offsets[1:] - 1] = offsets[:-1]
    return np.stack([points, points[following]], axis=1)


def _cells(cells: Any) -> tuple[np.ndarray, np.ndarray]:
    """Offsets and points of VTK's cells."""
    array = theme.import_pyvista().convert_array
    offsets, points = cells.GetOffsetsArray(), cells.GetConnectivityArray()
    return np.asarray(array(offsets)).astype(np.int64), np.asarray(array(points)).astype(np.int64)


def _rgb(color: str) -> np.ndarray:
    rgb: np.ndarray = np.asarray(theme.import_matplotlib().colors.to_rgb(color))
    return rgb
