"""The choice of who draws a picture: VTK, or `software.py` without it."""

from collections.abc import Sequence

import numpy as np

from flare_geo.viz.render import graphics
from flare_geo.viz.render.items import Eye, Item
from flare_geo.viz.render.opengl import paint_by_vtk
from flare_geo.viz.render.software import paint_by_software


def paint(items: Sequence[Item], eye: Eye, samples: int) -> np.ndarray:
    """Draw the items on a white ground, `samples` times as large as the frame each way.

    Returns:
        uint8 `[samples * height, samples * width, 3]`.
    """
    if graphics.can_draw():
        return paint_by_vtk(items, eye, samples)
    return paint_by_software(items, eye, samples)
