"""What the page of `viewer.py` draws, as arrays for the GPU of a browser."""

import base64
import zlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from flare_geo.mesh.quiet import vtk_messages
from flare_geo.viz.render import theme
from flare_geo.viz.render.painted import Painted
from flare_geo.viz.render.scene import Scene

LOST = 3e38  # stands for NaN in the page's buffers: GPUs need not know NaN


def buffers(
    ready: Scene, fields: Sequence[Painted]
) -> tuple[dict[str, np.ndarray], str, np.ndarray, np.ndarray]:
    """Arrays for the GPU, what they are, and the ends of the box in the scene's coordinates.

    Points are shared between faces, unless a field has a value per cell: then every face has
    points of its own, all with its value.
    """
    pv = theme.import_pyvista()
    surface = ready.surface
    array = pv.convert_array
    if surface.GetNumberOfPolys():
        kind = "triangles"
        if not surface.is_all_triangles or surface.GetNumberOfVerts() + surface.GetNumberOfLines():
            with vtk_messages():  # it remarks on every polygon without area
                surface = surface.triangulate()
        first = surface.GetNumberOfVerts() + surface.GetNumberOfLines()
        corners = np.asarray(array(surface.GetPolys().GetConnectivityArray())).reshape(-1, 3)
    elif surface.GetNumberOfLines():
        kind, first = "lines", surface.GetNumberOfVerts()
        lines = surface.GetLines()
        ends = np.asarray(array(lines.GetConnectivityArray()))
        offsets = np.asarray(array(lines.GetOffsetsArray()))
        starts = np.setdiff1d(np.arange(len(ends)), offsets[1:] - 1)
        corners = np.stack([ends[starts], ends[starts + 1]], axis=1)
        owner = np.searchsorted(offsets, starts, side="right") - 1
    else:
        kind, first = "points", 0
        corners = np.asarray(array(surface.GetVerts().GetConnectivityArray())).reshape(-1, 1)
    if kind != "lines":
        owner = np.arange(len(corners))
    placed = replace(ready, surface=surface)
    normal = np.zeros((surface.n_points, 3))
    if "Normals" in surface.point_data:
        normal = np.asarray(surface.point_data["Normals"], dtype=float)
    apart = any(field.association == "cell" for field in fields)
    order = corners.reshape(-1) if apart else np.arange(surface.n_points)
    index = np.arange(len(order)) if apart else corners.reshape(-1)
    points = np.asarray(surface.points, dtype=float)[order]
    low, high = points.min(axis=0), points.max(axis=0)

    blocks: dict[str, np.ndarray] = {}
    for number, field in enumerate(fields):
        if field.association == "cell":
            seen = field.rows[placed.sources("cell")[first + owner]]
            drawn = np.repeat(seen, corners.shape[1])
        else:
            drawn = field.rows[placed.sources("point")[order]]
        with np.errstate(over="ignore"):
            short = drawn.astype(np.float32)
        blocks[f"v{number}"] = np.where(np.abs(short) < 1e37, short, np.float32(LOST))
    blocks["index"] = index.astype(np.uint32)
    blocks["place"] = _shares(points, low, high)
    ends = np.zeros(0, dtype=int)
    if ready.outline.n_cells:
        ends = np.asarray(array(ready.outline.GetLines().GetConnectivityArray()))
    outline = np.asarray(ready.outline.points, dtype=float).reshape(-1, 3)[ends]
    blocks["outline"] = _shares(outline, low, high)
    four = np.zeros((len(order), 4), dtype=np.int8)
    four[:, :3] = np.round(127 * np.clip(normal[order], -1, 1))
    blocks["normal"] = four
    return blocks, kind, low, high


def _shares(points: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Places in the box as uint16 `[n, 3]`; the middle of a side that has no length."""
    side = high - low
    share = np.where(side > 0, (points - low) / np.where(side > 0, side, 1.0), 0.5)
    return np.round(65535 * np.clip(share, 0, 1)).astype(np.uint16)


def packed(blocks: dict[str, np.ndarray]) -> tuple[dict[str, list[int]], str]:
    """Offsets and lengths in bytes of the blocks, and base64 of zlib of all of them."""
    placed, raw = {}, bytearray()
    for name, block in blocks.items():
        placed[name] = [len(raw), block.nbytes]
        raw += block.astype(block.dtype.newbyteorder("<")).tobytes()
    return placed, base64.b64encode(zlib.compress(bytes(raw), 6)).decode()
