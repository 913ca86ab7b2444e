"""White axes for plots of numbers, and the checks of the columns that are drawn on them."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from flare_geo.viz.render import theme
from flare_geo.viz.render.composition import check_output, write_png


class Chart:
    """Plain axes in a grid, with texts in the type of all pictures; `finished` gives the picture.

    Args:
        inches: width and height.
        count: number of panels.
        columns: panels side by side.
        heights: of the rows, relative to each other; None makes them alike.
        path: a `.png` file to write.
        title: one line above the panels.
        note: one small line below them.
        axes: matplotlib axes of the caller to draw on instead, one per panel.

    Raises:
        ValueError: as many axes as panels are not there, or they come with a path, title or note.
        ImportError: matplotlib is missing.
    """

    def __init__(
        self,
        inches: tuple[float, float],
        count: int = 1,
        columns: int = 1,
        *,
        heights: Sequence[float] | None = None,
        path: str | os.PathLike[str] | None = None,
        title: str | None = None,
        note: str | None = None,
        axes: Any = None,
    ) -> None:
        check_output(path, title, note, axes=axes)
        matplotlib = theme.import_matplotlib()
        self.path, self.title, self.note, self.given = path, title, note, axes
        if axes is None:
            self.figure = matplotlib.figure.Figure(
                figsize=inches, dpi=theme.DPI, facecolor=theme.BACKGROUND, layout="constrained"
            )
            self.canvas = matplotlib.backends.backend_agg.FigureCanvasAgg(self.figure)
            grid = self.figure.add_gridspec(-(-count // columns), columns, height_ratios=heights)
            self.axes = [self.figure.add_subplot(grid[divmod(i, columns)]) for i in range(count)]
        else:
            self.axes = list(np.ravel(np.asarray(axes, dtype=object)))
            if len(self.axes) != count:
                raise ValueError(
                    f"axes must be one per panel ({count}), got {len(self.axes)}: "
                    f"such as plt.subplots(1, {count})[1]"
                )
            self.figure = self.axes[0].figure
        for each in self.axes:
            plain_axes(each)

    def label(self, axes: Any, x: str = "", y: str = "", *, small: bool = False) -> None:
        """Name the axes, with their units."""
        look = {"size": theme.LABEL_SIZE, "color": theme.INK}
        if small:
            look = {"size": theme.SMALL_SIZE, "color": theme.SOFT_INK}
        for write, words in ((axes.set_xlabel, x), (axes.set_ylabel, y)):
            if words:
                write(words, family=theme.FONT, parse_math=False, **look)
        for axis in (axes.xaxis, axes.yaxis):
            axis.get_offset_text().set(size=theme.SMALL_SIZE, color=theme.INK, family=theme.FONT)

    def head(self, axes: Any, words: str) -> None:
        """Write one small line above the axes."""
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

    def finished(self, remark: str = "", *, title_size: float = theme.TITLE_SIZE) -> Any:
        """Set title and note, write the picture where wanted, and return it.

        Args:
            remark: a few words that follow the note.
            title_size: of the title, in points.

        Returns:
            uint8 `[h, w, 3]`, or the axes of the caller, on which nothing more is written.
        """
        if self.given is not None:
            return self.given
        left = {"x": 0.01, "ha": "left", "family": theme.FONT, "parse_math": False}
        if self.title:
            self.figure.suptitle(
                self.title, size=title_size, weight="bold", color=theme.INK, **left
            )
        if note := "    ".join(words for words in (self.note, remark) if words):
            self.figure.supxlabel(note, size=theme.SMALL_SIZE, color=theme.SOFT_INK, **left)
        self.canvas.draw()
        image = np.array(self.canvas.buffer_rgba())[..., :3]
        if self.path is not None:
            write_png(image, self.path)
        return image


def plain_axes(axes: Any) -> None:
    """Give axes the look of all plots: left and lower line only, soft ink, a faint grid."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set(color=theme.SOFT_INK, linewidth=0.7)
    axes.tick_params(which="both", color=theme.SOFT_INK, labelcolor=theme.INK)
    axes.tick_params(
        which="both", labelsize=theme.SMALL_SIZE, labelfontfamily=theme.FONT, width=0.6
    )
    axes.grid(axis="y", which="major", color="#e3e6ea", linewidth=0.6)
    axes.set_axisbelow(True)


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
        raise ValueError(f"{name} must be one number per case [n], got {list(array.shape)}")
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
    """The rows of two columns that log axes can show, both `[m]`, and which rows they are `[n]`."""
    first, second = _pair(x, y, name)
    kept = np.isfinite(first) & np.isfinite(second) & (first > 0) & (second > 0)
    if not kept.any():
        raise ValueError(f"{name}: no pair of positive values among {len(kept)}")
    first, second = first[kept], second[kept]
    return first, second, kept
