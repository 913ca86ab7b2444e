"""Where the eye is: a parallel camera that fits what is to be seen."""

from dataclasses import dataclass

import numpy as np

from flare_geo.viz.render import theme

View = str | tuple[float, float, float] | None
# Direction towards the eye and the direction that is up in the picture.
VIEWS: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "iso": (theme.ISOMETRIC, (0, 0, 1)),
    "x": ((1, 0, 0), (0, 0, 1)),
    "-x": ((-1, 0, 0), (0, 0, 1)),
    "y": ((0, 1, 0), (0, 0, 1)),
    "-y": ((0, -1, 0), (0, 0, 1)),
    "z": ((0, 0, 1), (0, 1, 0)),
    "-z": ((0, 0, -1), (0, 1, 0)),
}


@dataclass(frozen=True)
class Frame:
    """A parallel camera that fits given points: no perspective, so lengths can be compared."""

    centre: np.ndarray  # [3] in mesh coordinates, as all of the frame
    up: np.ndarray  # [3] unit vectors
    towards: np.ndarray
    size: tuple[int, int]  # of the panel, pixels
    pixel: float  # side of one pixel in mesh units
    flat: bool  # the points lie in one plane that faces the camera


def fit(points: np.ndarray, view: View, largest: tuple[int, int], *, around: float = 0.0) -> Frame:
    """Fit a camera and a panel to `points [n, 3]`.

    Args:
        points: everything that shall be seen.
        view: one of "iso", "x", "-x", "y", "-y", "z", "-z" (the side the eye is on), or a vector
            towards the eye. None looks straight onto points that lie in a plane of two axes
            (x to the right and y up in the xy plane), and isometrically onto all others.
        largest: most pixels (width, height).
        around: room left around the points, in mesh units.

    Raises:
        ValueError: an unknown view.
    """
    low, high = points.min(axis=0), points.max(axis=0)
    thin = high - low <= 1e-6 * float(np.max(high - low))
    if view is None:
        view = ("x", "-y", "z")[int(np.flatnonzero(thin)[-1])] if thin.any() else "iso"
    up, towards = _axes(view)
    axes = np.stack([np.cross(up, towards), up, towards])  # right, up, towards the eye
    middle = 0.5 * (low + high)
    seen = (points - middle) @ axes.T  # [n, 3]
    near, far = seen.min(axis=0), seen.max(axis=0)
    centre = middle + 0.5 * (near + far) @ axes
    width, height, depth = far - near
    flat = bool(depth <= 1e-6 * max(width, height))

    size = max(width, height) + 2 * around  # zero for a single point, which is given a size
    tiny = 1e-3 * (size or max(depth, 0.0) or 1.0)
    width, height = max(width + 2 * around, tiny), max(height + 2 * around, tiny)
    room = [most - 2 * theme.PADDING for most in largest]
    pixel = max(width / room[0], height / room[1])
    sides = [
        min(max(2 * round(side / pixel / 2) + 2 * theme.PADDING, theme.SMALLEST_PANEL), most)
        for side, most in zip((width, height), largest)
    ]
    return Frame(centre, up, towards, (sides[0], sides[1]), float(pixel), flat)


def _axes(view: "str | tuple[float, float, float]") -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors that are up in the picture and point towards the eye."""
    if isinstance(view, str):
        if view not in VIEWS:
            raise ValueError(f"view must be one of {', '.join(VIEWS)} or a vector, got '{view}'")
        eye, above = VIEWS[view]
    else:
        eye, above = view, (0.0, 0.0, 1.0)
        if len(eye) != 3 or not np.linalg.norm(eye) > 0:
            raise ValueError(f"view must be a vector of three numbers, not all zero, got {view}")
        if np.linalg.norm(np.cross(above, eye)) < 1e-6 * np.linalg.norm(eye):
            above = (0.0, 1.0, 0.0)
    towards = np.asarray(eye, dtype=float) / np.linalg.norm(eye)
    up = np.asarray(above) - np.dot(above, towards) * towards
    return up / np.linalg.norm(up), towards
