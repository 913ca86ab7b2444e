"""What a picture is made of: meshes with their looks, and the camera before them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from flare_geo.viz.render.camera import Frame
from flare_geo.viz.render.colors import ColorScale
from flare_geo.viz.render.painted import Association

if TYPE_CHECKING:
    import pyvista as pv

FIELD = "flare_geo_field"  # the array with the numbers that a scale turns into colours


@dataclass(frozen=True)
class Item:
    """One mesh of a picture and how it looks. Widths are in pixels of the finished picture."""

    mesh: "pv.PolyData"  # carries `FIELD` where it is painted by a scale
    paint: "ColorScale | str"  # a scale for the numbers in `FIELD`, or one colour
    association: Association = "point"  # of the numbers
    lit: bool = False  # shaded; else the colours are exactly those of the paint
    smooth: bool = False  # shaded by the normals of the points; else face by face
    opacity: float = 1.0
    width: float = 1.0  # of lines
    ball: float = 0.0  # diameter of the balls that points are drawn as; 0: there are no points
    edges: bool = False  # draw the borders of the faces


@dataclass(frozen=True)
class Eye:
    """A parallel camera before the items, which are given relative to `origin`."""

    frame: Frame
    origin: np.ndarray
    reach: float  # no item is farther from the middle of the frame

    @property
    def axes(self) -> np.ndarray:
        """Unit vectors to the right, up, and towards the eye, the rows of `[3, 3]`."""
        up, towards = self.frame.up, self.frame.towards
        return np.stack([np.cross(up, towards), up, towards])

    @property
    def centre(self) -> np.ndarray:
        """The middle of the picture among the items."""
        return self.frame.centre - self.origin
