"""Compose panels, colour bars and texts into one white picture, and write it to a file.

Panels are copied pixel by pixel, never resampled, so their colours are the ones VTK drew.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flare_geo.files import write_aside
from flare_geo.viz.render import theme
from flare_geo.viz.render.colors import ColorScale
from flare_geo.viz.render.labels import exponent, scaled_label, ticks

if TYPE_CHECKING:
    from flare_geo.viz.render.scene import Panel

BAR_WIDTH = 26  # pixels
MARGIN = 50  # pixels around a picture
LINE = 46  # pixels a line of text takes
BAR_ROOM = 180  # pixels a bar takes with its numbers and label


@dataclass
class Composition:
    """A white picture of `width` x `height` pixels; x to the right, y down, from the upper left."""

    width: int
    height: int
    _panels: list[tuple[np.ndarray, int, int]] = field(default_factory=list)
    _figure: Any = None

    def __post_init__(self) -> None:
        matplotlib = theme.import_matplotlib()
        inches = (self.width / theme.DPI, self.height / theme.DPI)
        self._figure = matplotlib.figure.Figure(
            figsize=inches, dpi=theme.DPI, facecolor=theme.BACKGROUND
        )

    def panel(self, image: np.ndarray, x: int, y: int) -> None:
        """Put the picture `image`, uint8 `[h, w, 3]`, with its upper left corner at (x, y)."""
        self._panels.append((image, x, y))

    def text(
        self,
        words: str,
        x: int,
        y: int,
        *,
        size: float = theme.LABEL_SIZE,
        color: str = theme.INK,
        bold: bool = False,
    ) -> None:
        """Write one line that starts at x, stands on y, and shrinks to end within the picture."""
        size = min(size, (self.width - x) / (len(words) or 1) / _em(1.0))
        self._figure.text(
            x / self.width,
            1 - y / self.height,
            words,
            size=size,
            color=color,
            family=theme.FONT,
            weight="bold" if bold else "normal",
            ha="left",
            va="baseline",
            parse_math=False,
        )

    def heading(self, title: str | None) -> None:
        """Write the title in the upper left corner, where there is one."""
        if title:
            self.text(title, MARGIN, MARGIN + 20, size=theme.TITLE_SIZE, bold=True)

    def color_bar(self, scale: ColorScale, x: int, y: int, height: int, label: str) -> None:
        """Draw an upright colour bar with its upper left corner at (x, y); `label` has the unit."""
        matplotlib = theme.import_matplotlib()
        from matplotlib.cm import ScalarMappable

        box = (x / self.width, 1 - (y + height) / self.height)
        axes = self._figure.add_axes((*box, BAR_WIDTH / self.width, height / self.height))
        norm = matplotlib.colors.Normalize(scale.low, scale.high)
        ends = {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}
        bar = self._figure.colorbar(
            ScalarMappable(norm, scale.cmap),
            cax=axes,
            extend=ends[(scale.below, scale.above)],
            extendfrac=0.04,
        )
        power = exponent(scale.size)
        marks = ticks(scale)
        bar.set_ticks([value for value, _ in marks], labels=[words for _, words in marks])
        bar.minorticks_off()
        bar.outline.set_visible(False)
        axes.tick_params(
            labelsize=theme.SMALL_SIZE, labelcolor=theme.INK, color=theme.SOFT_INK, width=0.6
        )
        axes.tick_params(length=3, labelfontfamily=theme.FONT)
        words = scaled_label(label, power)
        axes.set_ylabel(
            words,
            size=min(theme.LABEL_SIZE, (height + 90) / (len(words) or 1) / _em(1.0)),
            color=theme.INK,
            family=theme.FONT,
            labelpad=6,
            parse_math=False,
        )

    def finished(self, note: str | None, path: str | os.PathLike[str] | None) -> np.ndarray:
        """Set the note at the foot, write the picture where wanted, and return it."""
        if note:
            y = self.height - MARGIN // 2
            self.text(note, MARGIN, y, size=theme.SMALL_SIZE, color=theme.SOFT_INK)
        image = self.image()
        if path is not None:
            write_png(image, path)
        return image

    def image(self) -> np.ndarray:
        """The finished picture, uint8 `[height, width, 3]`."""
        matplotlib = theme.import_matplotlib()
        canvas = matplotlib.backends.backend_agg.FigureCanvasAgg(self._figure)
        canvas.draw()
        image = np.array(canvas.buffer_rgba())[: self.height, : self.width, :3]
        for panel, x, y in self._panels:
            image[y : y + panel.shape[0], x : x + panel.shape[1]] = panel
        return image


def picture(
    panel: "Panel",
    *,
    plotter: Any = None,
    scale: ColorScale | None = None,
    label: str = "",
    title: str | None = None,
    subtitle: str | None = None,
    note: str | None = None,
    path: str | os.PathLike[str] | None = None,
) -> Any:
    """The result of a function that draws one panel: a picture, or the caller's plotter.

    Returns:
        `framed` of the pixels, or with `plotter` that one, to which the panel was added.
    """
    if plotter is not None:
        return panel.add_to(plotter, label)
    return framed(
        panel.pixels(),
        scale=scale,
        label=label,
        title=title,
        subtitle=subtitle,
        note=note,
        path=path,
    )


def framed(
    panel: np.ndarray,
    *,
    scale: ColorScale | None = None,
    label: str = "",
    title: str | None = None,
    subtitle: str | None = None,
    note: str | None = None,
    path: str | os.PathLike[str] | None = None,
) -> np.ndarray:
    """Compose one panel with its texts and colour bar, and write the picture where wanted.

    Returns:
        The picture, uint8 `[height, width, 3]`.
    """
    height, width = panel.shape[:2]
    top = MARGIN + LINE * (bool(title) + bool(subtitle))
    page = Composition(
        width + 2 * MARGIN + (BAR_ROOM if scale else 0),
        height + top + MARGIN + LINE * bool(note),
    )
    page.heading(title)
    if subtitle:
        y = MARGIN + 20 + LINE * bool(title)
        page.text(subtitle, MARGIN, y, size=theme.SMALL_SIZE, color=theme.SOFT_INK)
    page.panel(panel, MARGIN, top)
    if scale is not None:
        bar = min(height, 700)
        page.color_bar(scale, MARGIN + width + 40, top + (height - bar) // 2, bar, label)
    return page.finished(note, path)


def _em(size: float) -> float:
    """Average width of a letter in pixels for type of `size` points."""
    return 0.6 * size * theme.DPI / 72


def write_png(image: np.ndarray, path: str | os.PathLike[str]) -> None:
    """Write `image`, uint8 `[h, w, 3]`, to `path`: aside first, then renamed into place.

    A reader never sees half a file, and a failure leaves an earlier picture as it was. Missing
    folders are made.
    """
    target = checked_path(path, (".png",))
    with write_aside(target) as aside:
        theme.import_matplotlib().image.imsave(
            aside, image, format="png", metadata={"Software": "flare_geo"}
        )


def checked_path(path: str | os.PathLike[str], suffixes: tuple[str, ...]) -> Path:
    """Raise ValueError unless `path` ends in one of `suffixes`; done before any drawing."""
    target = Path(path)
    if target.suffix.lower() not in suffixes:
        raise ValueError(f"path must end in {' or '.join(suffixes)}, got '{target.name}'")
    return target


def check_output(
    path: str | os.PathLike[str] | None,
    title: str | None = None,
    note: str | None = None,
    *,
    plotter: Any = None,
    axes: Any = None,
) -> None:
    """Check where a picture shall go; done before any drawing.

    Raises:
        ValueError: `path` does not end in .png, or there are a title, a note or a path for a
            plotter or axes of the caller, who titles and writes them.
    """
    if path is not None:
        checked_path(path, (".png",))
    name = "plotter" if plotter is not None else "axes"
    if plotter is None and axes is None:
        return
    for what, given in (("path", path), ("title", title), ("note", note)):
        if given is not None:
            raise ValueError(f"{what} must be None with {name}: title and write what is yours")
