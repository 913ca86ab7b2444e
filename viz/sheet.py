"""A white sheet for plots of numbers, and the checks of the columns that are drawn on it."""

import os
from typing import Any

import numpy as np

from flare_geo.viz import page as pages
from flare_geo.viz import theme
from flare_geo.viz.curves import plain_axes

Path = str | os.PathLike[str] | None


class Sheet:
    """Plain axes side by side, texts in the type of all pictures; `finished` gives the picture."""

    def __init__(self, inches: tuple[float, float], path: Path, columns: int = 1) -> None:
        if path is not None:
            pages.checked_path(path, (".png",))
        matplotlib = theme.import_matplotlib()
        self.path = path
        self.figure = matplotlib.figure.Figure(
            figsize=inches, dpi=theme.DPI, facecolor=theme.BACKGROUND, layout="constrained"
        )
        self.canvas = matplotlib.backends.backend_agg.FigureCanvasAgg(self.figure)
        self.axes = [self.figure.add_subplot(1, columns, 1 + i) for i in range(columns)]
        for axes in self.axes:
            plain_axes(axes)

    def label(self, axes: Any, x: str, y: str) -> None:
        """Name the axes, with their units."""
        for write, words in ((axes.set_xlabel, x), (axes.set_ylabel, y)):
            write(
                words,
                size=theme.LABEL_SIZE,
                color=theme.INK,
                family=theme.FONT,
                parse_math=False,
            )
        for axis in (axes.xaxis, axes.yaxis):
            axis.get_offset_text().set(size=theme.SMALL_SIZE, color=theme.INK, family=theme.FONT)

    def head(self, axes: Any, words: str) -> None:
        """One small line above the axes."""
        axes.set_title(
            words,
            loc="left",
            size=theme.SMALL_SIZE,
            color=theme.INK,
            family=theme.FONT,
            parse_math=False,
        )

    def legend(self, axes: Any, above: bool = False) -> None:
        """Name the lines: where there is room, or in a row above the axes."""
        place: dict[str, Any] = {"loc": "best"}
        if above:  # in one line
            place = {
                "loc": "lower left",
                "bbox_to_anchor": (0, 1),
                "ncols": 9,
                "borderaxespad": 0.2,
            }
        font = {"family": theme.FONT, "size": theme.SMALL_SIZE}
        legend = axes.legend(frameon=False, labelcolor=theme.INK, prop=font, **place)
        for text in legend.get_texts():
            text.set_parse_math(False)

    def finished(self, title: str | None, note: str | None) -> np.ndarray:
        """Set title and note, write the picture where wanted, and return it, uint8 `[h, w, 3]`."""
        if title:
            self.figure.suptitle(
                title,
                x=0.01,
                ha="left",
                size=theme.TITLE_SIZE,
                weight="bold",
                color=theme.INK,
                family=theme.FONT,
                parse_math=False,
            )
        if note:
            self.figure.supxlabel(
                note,
                x=0.01,
                ha="left",
                size=theme.SMALL_SIZE,
                color=theme.SOFT_INK,
                family=theme.FONT,
                parse_math=False,
            )
        self.canvas.draw()
        image = np.array(self.canvas.buffer_rgba())[..., :3]
        if self.path is not None:
            pages.write_png(image, self.path)
        return image


def log_axes(axes: Any, x: np.ndarray, y: np.ndarray) -> None:
    """Log axes with room around the values and plain numbers where they span little."""
    matplotlib = theme.import_matplotlib()
    for which, values in (("x", x), ("y", y)):
        low, high = float(values.min()), float(values.max())
        room = max((high / low) ** 0.06, 1.05)
        getattr(axes, f"set_{which}scale")("log")
        getattr(axes, f"set_{which}lim")(low / room, high * room)
        axis = getattr(axes, f"{which}axis")
        if high < 30 * low:
            few = matplotlib.ticker.MaxNLocator(5, steps=[1, 2, 2.5, 5, 10])
            some = matplotlib.ticker.LogLocator(subs=(1, 2, 5))
            axis.set_major_locator(few if high < 4 * low else some)
            axis.set_minor_locator(matplotlib.ticker.NullLocator())
            axis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda v, _: f"{v:,.5g}"))


def numbers(values: Any, name: str) -> np.ndarray:
    """A column as float64 `[n]`, or a ValueError."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"{name} must be one number a case [n], got {list(array.shape)}")
    return array


def _pair(x: Any, y: Any, name: str) -> tuple[np.ndarray, np.ndarray]:
    first, second = numbers(x, name), numbers(y, name)
    if len(first) != len(second):
        raise ValueError(f"{name}: expected as many of both, got {len(first)} and {len(second)}")
    return first, second


def finite_pairs(x: Any, y: Any, name: str) -> tuple[np.ndarray, np.ndarray, int]:
    """The rows of two columns where both are finite, both `[m]`, and how many are not."""
    first, second = _pair(x, y, name)
    kept = np.isfinite(first) & np.isfinite(second)
    if not kept.any():
        raise ValueError(f"{name}: no pair of finite values among {len(kept)}")
    return first[kept], second[kept], int((~kept).sum())


def positive_pairs(x: Any, y: Any, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What of two columns can be drawn on log axes, both `[m]`, and which rows those are `[n]`."""
    first, second = _pair(x, y, name)
    kept = np.isfinite(first) & np.isfinite(second) & (first > 0) & (second > 0)
    if not kept.any():
        raise ValueError(f"{name}: no pair of positive values among {len(kept)}")
    first, second = first[kept], second[kept]
    return first, second, kept


def joined_words(*words: str | int | None) -> str | None:
    """What is to be said in one line; None if nothing."""
    return "    ".join(str(word) for word in words if word) or None
