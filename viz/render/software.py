"""Draw without OpenGL: what `opengl.py` has VTK draw, by the pixels of `raster.py`.

The camera, the lights and the colours are the same, and so the pictures are too, but for the
rounding of edges. Shading is done once for each pixel, for what is seen there.
"""

from collections.abc import Sequence

import numpy as np

from flare_geo.viz.render.items import Eye, Item
from flare_geo.viz.render.raster import CHUNK, Canvas, Fragments
from flare_geo.viz.render.shapes import Shape, shapes_of

BAND = 1 << 19  # pixels that are drawn at a time, so that memory does not grow with the picture


def paint_by_software(items: Sequence[Item], eye: Eye, samples: int) -> np.ndarray:
    """Draw the items; arguments and result are those of `painting.paint`."""
    width, height = (samples * side for side in eye.frame.size)
    shapes = [shape for item in items for shape in shapes_of(item, eye, samples)]
    shapes = [shape for shape in shapes if len(shape.corners)]
    near = max((float(s.corners[..., 2].max()) + s.radius for s in shapes), default=1.0)
    far = min((float(s.corners[..., 2].min()) for s in shapes), default=0.0)
    rows = max(1, BAND // width)
    bands = []
    for top in range(0, height, rows):
        canvas = Canvas(width, min(rows, height - top), near=near, far=far)
        bands.append(_drawn(canvas, [shape.below(top) for shape in shapes]))
    image: np.ndarray = np.concatenate(bands).reshape(height, width, 3)
    return image


def _drawn(canvas: Canvas, shapes: Sequence[Shape]) -> np.ndarray:
    """The picture on an empty canvas, uint8 `[height * width, 3]`."""
    solid = [shape for shape in shapes if shape.item.opacity == 1]
    starts = np.cumsum([0, *(len(shape.corners) for shape in solid)])
    for shape, start in zip(solid, starts.tolist()):
        canvas.add(shape.fragments(canvas.size), start)
    image = np.ones((canvas.width * canvas.height, 3), dtype=np.float32)
    seen = canvas.seen().ravel()
    pixels = np.flatnonzero(seen >= 0)
    which = np.searchsorted(starts, seen[pixels], side="right") - 1
    for number, (shape, start) in enumerate(zip(solid, starts.tolist())):
        own = pixels[which == number]
        for some in np.array_split(own, 1 + len(own) // CHUNK):
            image[some] = shape.colors(seen[some] - start, some, canvas.width)
    _blend(image, canvas, [shape for shape in shapes if 0 < shape.item.opacity < 1])
    return np.round(255 * image).astype(np.uint8)


def _blend(image: np.ndarray, canvas: Canvas, shapes: Sequence[Shape]) -> None:
    """Lay what is see-through over what is behind it, from the farthest to the nearest."""
    pixels, depths, colors, opacities = [], [], [], []
    for shape in shapes:
        parts = [part.chosen(canvas.before(part)) for part in shape.fragments(canvas.size)]
        for part in [_nearest(parts)] if shape.once and parts else parts:
            pixels.append(part.pixel)
            depths.append(canvas.level(part.depth))
            colors.append(shape.colors(part.owner, part.pixel, canvas.width).astype(np.float32))
            opacities.append(np.full(len(part.pixel), shape.item.opacity, dtype=np.float32))
    if not pixels:
        return
    pixel = np.concatenate(pixels)
    order = np.argsort(pixel.astype(np.uint64) << np.uint64(32) | np.concatenate(depths))
    pixel, color = pixel[order], np.concatenate(colors)[order]
    opacity = np.concatenate(opacities)[order, None]
    first = np.append(True, pixel[1:] != pixel[:-1])[: len(pixel)]
    begin = np.flatnonzero(first)
    rank = np.arange(len(pixel)) - begin[np.cumsum(first) - 1]  # 0 is the farthest of its pixel
    by_rank = np.argsort(rank, kind="stable")
    for layer in np.split(by_rank, np.cumsum(np.bincount(rank))[:-1]):
        at, share = pixel[layer], opacity[layer]
        image[at] = share * color[layer] + (1 - share) * image[at]


def _nearest(parts: Sequence[Fragments]) -> Fragments:
    """Of each pixel the fragment that is nearest to the eye."""
    owner = np.concatenate([part.owner for part in parts])
    pixel = np.concatenate([part.pixel for part in parts])
    depth = np.concatenate([part.depth for part in parts])
    order = np.lexsort((-depth, pixel))
    first = np.append(True, np.diff(pixel[order]) != 0)[: len(order)]
    return Fragments(owner, pixel, depth).chosen(order[first])
