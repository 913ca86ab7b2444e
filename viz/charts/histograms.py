"""Histograms: of the errors of cases, and of the channels of a data set."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from flare_geo.viz.charts.axes import Chart, numbers
from flare_geo.viz.render import theme
from flare_geo.viz.render.labels import number

COLUMNS = 4
BINS = 60


def plot_error_histogram(
    errors: Any,
    path: str | os.PathLike[str] | None = None,
    *,
    label: str = "relative L2 error",
    title: str | None = None,
    note: str | None = None,
    axes: Any = None,
) -> Any:
    """Draw how many cases have which error, with median, mean and worst; a tick for each case.

    Args:
        errors: `[n]`, one per case. Those that are not finite are left out and counted at the
            foot.
        path: a `.png` file to write.
        label: what is counted, with its unit.
        title: one line above the picture.
        note: one line at its foot, such as "generated data".
        axes: matplotlib axes of your own to draw on instead. Nothing is rendered, and `path`,
            `title` and `note` must be None.

    Returns:
        The picture, uint8 `[height, width, 3]`, or `axes` where they are given.

    Raises:
        ValueError: no finite error, or `axes` with `path`, `title` or `note`.
        ImportError: matplotlib is missing.

    Example::

        plot_error_histogram([row["rel_l2"] for row in table], "errors.png")
    """
    every = numbers(errors, "errors")
    values = every[np.isfinite(every)]
    if not values.size:
        raise ValueError(f"errors has no finite value among {every.size}")
    chart = Chart((6.6, 3.4), path=path, title=title, note=note, axes=axes)
    panel = chart.axes[0]
    counts, edges = np.histogram(values, int(np.clip(2 * np.sqrt(values.size), 5, 40)))
    panel.stairs(counts, edges, fill=True, color=theme.SERIES[0], alpha=0.75)
    panel.plot(values, np.zeros(values.size), "|", color=theme.INK, markersize=9, clip_on=False)
    marks = {"median": np.median(values), "mean": values.mean(), "worst": values.max()}
    for (word, value), style in zip(marks.items(), ("-", "--", ":"), strict=True):
        text = f"{word} {number(value)}"
        panel.axvline(value, color=theme.INK, linewidth=1.1, linestyle=style, label=text)
    matplotlib = theme.import_matplotlib()
    panel.yaxis.set_major_locator(matplotlib.ticker.MaxNLocator(5, integer=True))
    panel.set_ylim(0, None)
    chart.legend(panel, above=True)
    chart.label(panel, label, "cases")
    missing = every.size - values.size
    return chart.finished(f"errors that are not finite: {missing}" if missing else "")


def plot_histograms(
    channels: Mapping[str, Any],
    path: str | os.PathLike[str] | None = None,
    *,
    title: str | None = None,
    note: str | None = None,
    axes: Any = None,
) -> Any:
    """Draw how often each value of each channel occurs, on a log axis.

    Args:
        channels: label with unit, as in "pressure [Pa]", to values `[n]`. Values that are not
            finite are left out and counted under the panel.
        axes: matplotlib axes to draw on instead, one per channel.
        path, title, note: as for `plot_error_histogram`.

    Returns:
        The picture, uint8 `[height, width, 3]`, or `axes` where they are given.

    Raises:
        ValueError: no channel, one without a finite value, or not one of `axes` per channel.
        ImportError: matplotlib is missing.

    Example::

        plot_histograms({"pressure [Pa]": case.y[:, 0]}, "histograms.png")
    """
    if not channels:
        raise ValueError("channels is empty: expected at least one label with its values")
    columns = min(COLUMNS, len(channels))
    inches = (2.6 * columns + 0.4, 1.9 * -(-len(channels) // COLUMNS) + 0.7)
    chart = Chart(inches, len(channels), columns, path=path, title=title, note=note, axes=axes)
    ticker = theme.import_matplotlib().ticker
    for i, (panel, (label, values)) in enumerate(zip(chart.axes, channels.items(), strict=True)):
        values = np.asarray(values, dtype=np.float64).ravel()
        finite = values[np.isfinite(values)]
        if not finite.size:
            raise ValueError(f"channel '{label}' has no finite value among {values.size}")
        counts, edges = histogram(finite)
        panel.stairs(counts, edges, fill=True, color=theme.SERIES[0], baseline=0.5)
        panel.set_yscale("log")
        panel.set_ylim(0.5, 2 * counts.max())
        missing = values.size - finite.size
        words = f"{label}\n{missing} values are not finite" if missing else label
        chart.label(panel, y="values" if i % COLUMNS == 0 else "", small=True)
        panel.set_xlabel(
            words, size=theme.SMALL_SIZE, color=theme.INK, family=theme.FONT, parse_math=False
        )
        panel.xaxis.get_offset_text().set(color=theme.SOFT_INK)
        panel.xaxis.set_major_locator(ticker.MaxNLocator(4))
        panel.yaxis.set_major_locator(ticker.LogLocator(numticks=4))
        panel.yaxis.set_minor_locator(ticker.NullLocator())
        panel.tick_params(colors=theme.SOFT_INK, length=2.5, width=0.8)
        panel.grid(visible=False)
        for side in ("left", "bottom"):
            panel.spines[side].set_linewidth(0.8)
    return chart.finished(title_size=theme.LABEL_SIZE)


def histogram(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Counts `[b]` and edges `[b + 1]` over the whole range; one bin if all values are equal."""
    low, high = float(values.min()), float(values.max())
    bins = BINS if np.isfinite((high - low) / BINS) and high - low > 1e-12 * abs(high) else 1
    half = 0.5 * max(abs(low), 1e-30) if bins == 1 else 0.0
    return np.histogram(values, bins, (low - half, high + half))
