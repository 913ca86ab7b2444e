"""Pictures within a page: trimmed, encoded, and a reason where there is none."""

import base64
from collections.abc import Callable
from io import BytesIO
from typing import NamedTuple

import numpy as np

DENSITY = 2  # pixels of a picture per pixel of the page, on which its type is then about 12 px
WIDEST = 2000  # pixels of a picture: sharp on screens with two pixels per point
MARGIN = 12  # pixels of white left around a picture
QUALITY = 88  # of JPEG, for pictures that are much larger as PNG


class Figure(NamedTuple):
    """A picture of a page as a data URL; without one, the reason why it could not be drawn."""

    alt: str
    source: str = ""
    width: int = 0
    height: int = 0
    reason: str = ""


def draw_figure(draw: Callable[[], np.ndarray], alt: str) -> Figure:
    """The figure of the picture that `draw` makes, uint8 `[h, w, 3]`; `alt` says what it shows."""
    try:
        image = trimmed(draw())
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        return Figure(alt, reason=str(error))
    data, kind = _encoded(image)
    height, width = (side // DENSITY for side in image.shape[:2])
    return Figure(alt, f"data:image/{kind};base64,{base64.b64encode(data).decode()}", width, height)


def trimmed(image: np.ndarray) -> np.ndarray:
    """The picture without its white margin; the page has its own."""
    y, x = np.nonzero((image < 255).any(axis=-1))
    if not len(y):
        return image
    rows = slice(max(int(y.min()) - MARGIN, 0), int(y.max()) + 1 + MARGIN)
    columns = slice(max(int(x.min()) - MARGIN, 0), int(x.max()) + 1 + MARGIN)
    return image[rows, columns]


def _encoded(image: np.ndarray) -> tuple[bytes, str]:
    """The bytes of a PNG, or of a JPEG where that is much smaller; and which of them."""
    from PIL import Image

    picture = Image.fromarray(image)
    if picture.width > WIDEST:
        size = (WIDEST, round(picture.height * WIDEST / picture.width))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    png, jpeg = BytesIO(), BytesIO()
    picture.save(png, "PNG", optimize=True)
    picture.save(jpeg, "JPEG", quality=QUALITY, subsampling=0, optimize=True)
    if jpeg.tell() < 0.6 * png.tell():
        return jpeg.getvalue(), "jpeg"
    return png.getvalue(), "png"
