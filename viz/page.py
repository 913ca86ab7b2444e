"""Set panels, colour bars and text on one white page, and write it to a file.

Panels are copied pixel by pixel, never resampled, so their colours are the ones VTK drew.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from flare_geo.files import write_aside
from flare_geo.viz import theme
from flare_geo.viz.values import ColorScale

BAR_WIDTH = 26  # pixels
MARGIN = 50  # pixels around a page
LINE = 46  # pixels a line of text takes
BAR_ROOM = 180  # pixels a bar takes with its numbers and label


@dataclass
class Page:
    """A white page of `width` x `height` pixels; x to the right, y down, from the upper left."""

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
        """Write one line that starts at x, stands on y, and shrinks to end on the page."""
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
        power = exponent(max(abs(scale.low), abs(scale.high)))
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
        """Set the note at the foot, write the page where wanted, and return it."""
        if note:
            y = self.height - MARGIN // 2
            self.text(note, MARGIN, y, size=theme.SMALL_SIZE, color=theme.SOFT_INK)
        image = self.image()
        if path is not None:
            write_png(image, path)
        return image

    def image(self) -> np.ndarray:
        """Return the finished page, uint8 `[height, width, 3]`."""
        matplotlib = theme.import_matplotlib()
        canvas = matplotlib.backends.backend_agg.FigureCanvasAgg(self._figure)
        canvas.draw()
        page = np.array(canvas.buffer_rgba())[: self.height, : self.width, :3]
        for panel, x, y in self._panels:
            page[y : y + panel.shape[0], x : x + panel.shape[1]] = panel
        return page


def ticks(scale: ColorScale) -> list[tuple[float, str]]:
    """Round values on a colour bar and what stands there, without the bar's power of ten."""
    power = exponent(max(abs(scale.low), abs(scale.high)))
    locator = theme.import_matplotlib().ticker.MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10])
    slack = 1e-9 * (scale.high - scale.low)
    return [
        (float(value), f"{value / 10.0**power:.6g}".replace("-", "\N{MINUS SIGN}"))
        for value in locator.tick_values(scale.low, scale.high)
        if scale.low - slack <= value <= scale.high + slack
    ]


def _em(size: float) -> float:
    """Average width of a letter in pixels for type of `size` points."""
    return 0.6 * size * theme.DPI / 72


def exponent(size: float) -> int:
    """Power of ten, a multiple of three, that is taken out of numbers up to `size`; 0 if none."""
    if not 0 < size < np.inf or 1e-2 <= size < 1e4:
        return 0
    return 3 * int(np.floor(np.log10(size) / 3))


def split_label(label: str) -> tuple[str, str]:
    """Part a label into name and unit, "" if it has none: "stress [Pa]" into "stress", "Pa"."""
    if label.endswith("]") and "[" in label:
        name, unit = label[:-1].rsplit("[", 1)
        return name.rstrip(), unit
    return label, ""


def scaled_label(label: str, power: int) -> str:
    """Name the power of ten in front of the unit: "p [Pa]" with 6 is "p [10⁶ Pa]"."""
    if power == 0:
        return label
    name, unit = split_label(label)
    digits = str.maketrans("-0123456789", "\N{SUPERSCRIPT MINUS}⁰¹²³⁴⁵⁶⁷⁸⁹")
    ten = "10" + str(power).translate(digits)
    return f"{name} [{ten}{f' {unit}' if unit not in ('', '-', '1') else ''}]".lstrip()


def extremes(values: np.ndarray, scale: ColorScale, label: str = "") -> str:
    """Say the true range of a field in the unit of its bar, and how many values are no numbers."""
    finite = values[np.isfinite(values)]
    missing = values.size - finite.size
    words = [f"{missing} of {values.size} values are not finite"] if missing else []
    if finite.size:
        power = exponent(max(abs(scale.low), abs(scale.high)))
        low, high = float(finite.min()) / 10.0**power, float(finite.max()) / 10.0**power
        unit = split_label(scaled_label(label, power))[1]
        spread = f"min {number(low, high)}    max {number(high, low)}"
        words = [f"{spread} [{unit}]" if unit else spread, *words]
    return "    ".join(words)


def number(value: float, beside: float = 0.0) -> str:
    """Four significant digits; a value lost in rounding beside another one is 0."""
    value = 0.0 if abs(value) < 1e-6 * abs(beside) else value
    return f"{value:.4g}".replace("-", "\N{MINUS SIGN}")


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
