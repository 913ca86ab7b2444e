"""Histograms of the channels of a data set, one small panel each."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from flare_geo.viz import page as pages
from flare_geo.viz import theme

COLUMNS = 4
BINS = 60


def plot_histograms(
    channels: Mapping[str, Any],
    path: str | os.PathLike[str] | None = None,
    *,
    title: str | None = None,
    note: str | None = None,
) -> np.ndarray:
    """Draw how often each value of each channel occurs, on a log axis.

    Args:
        channels: label with unit, as in "pressure [Pa]", to values `[n]`. Values that are not
            finite are left out and counted under the panel.
        path: a `.png` file to write.
        title: one line above the picture.
        note: one line at its foot, such as "generated data".

    Returns:
        The picture, uint8 `[height, width, 3]`.

    Raises:
        ValueError: no channel, or one without a finite value.
        ImportError: matplotlib is missing.

    Example::

        plot_histograms({"pressure [Pa]": case.y[:, 0]}, "histograms.png")
    """
    if path is not None:
        pages.checked_path(path, (".png",))
    if not channels:
        raise ValueError("channels is empty: expected at least one label with its values")
    matplotlib = theme.import_matplotlib()
    rows = -(-len(channels) // COLUMNS)
    size = (2.6 * min(COLUMNS, len(channels)) + 0.4, 1.9 * rows + 0.7)
    figure = matplotlib.figure.Figure(
        figsize=size, dpi=theme.DPI, facecolor=theme.BACKGROUND, layout="constrained"
    )
    canvas = matplotlib.backends.backend_agg.FigureCanvasAgg(figure)
    grid = figure.add_gridspec(rows, min(COLUMNS, len(channels)))
    for i, (label, values) in enumerate(channels.items()):
        axes = figure.add_subplot(grid[divmod(i, COLUMNS)])
        values = np.asarray(values, dtype=np.float64).ravel()
        finite = values[np.isfinite(values)]
        if not finite.size:
            raise ValueError(f"channel '{label}' has no finite value among {values.size}")
        counts, edges = histogram(finite)
        axes.stairs(counts, edges, fill=True, color="#0072b2", baseline=0.5)
        axes.set_yscale("log")
        axes.set_ylim(0.5, 2 * counts.max())
        missing = values.size - finite.size
        words = f"{label}\n{missing} values are not finite" if missing else label
        axes.set_xlabel(
            words, size=theme.SMALL_SIZE, color=theme.INK, family=theme.FONT, parse_math=False
        )
        axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(4))
        axes.yaxis.set_major_locator(matplotlib.ticker.LogLocator(numticks=4))
        axes.yaxis.set_minor_locator(matplotlib.ticker.NullLocator())
        axes.tick_params(labelsize=theme.SMALL_SIZE, colors=theme.SOFT_INK, length=2.5)
        axes.xaxis.get_offset_text().set(size=theme.SMALL_SIZE, color=theme.SOFT_INK)
        if i % COLUMNS == 0:
            axes.set_ylabel("values", size=theme.SMALL_SIZE, color=theme.SOFT_INK)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        for side in ("left", "bottom"):
            axes.spines[side].set_color(theme.SOFT_INK)
    if title:
        figure.suptitle(
            title, x=0.01, ha="left", size=theme.LABEL_SIZE, weight="bold", color=theme.INK
        )
    if note:
        figure.supxlabel(
            note, x=0.01, ha="left", size=theme.SMALL_SIZE, color=theme.SOFT_INK, family=theme.FONT
        )
    canvas.draw()
    image = np.array(canvas.buffer_rgba())[..., :3]
    if path is not None:
        pages.write_png(image, path)
    return image


def histogram(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Counts `[b]` and edges `[b + 1]` over the whole range; one bin if all values are equal."""
    low, high = float(values.min()), float(values.max())
    bins = BINS if np.isfinite((high - low) / BINS) and high - low > 1e-12 * abs(high) else 1
    half = 0.5 * max(abs(low), 1e-30) if bins == 1 else 0.0
    return np.histogram(values, bins, (low - half, high + half))
