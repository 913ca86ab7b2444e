"""Plots of points: predicted against true values, error against size, scaling."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flare_geo.viz.charts.axes import Chart, finite_pairs, log_axes, positive_pairs
from flare_geo.viz.render import theme
from flare_geo.viz.render.labels import number, split_label

LETTERS = 40  # of a case's name that are shown


def plot_parity(
    pairs: Mapping[str, tuple[Any, Any]],
    path: str | os.PathLike[str] | None = None,
    *,
    title: str | None = None,
    note: str | None = None,
    axes: Any = None,
) -> Any:
    """Draw predicted against true values, one panel per label, with the line where they are equal.

    R2 and the largest error stand above each panel.

    Args:
        pairs: label with unit, as in "Cd", to true and predicted values, both `[n]`. Pairs that
            are not finite are left out and counted at the foot.
        axes: matplotlib axes to draw on instead, one per label.
        path, title, note: as for `plot_error_histogram`.

    Returns:
        The picture, uint8 `[height, width, 3]`, or `axes` where they are given.

    Raises:
        ValueError: no pairs, true and predicted of unequal length, or nothing finite.

    Example::

        plot_parity({"Cd": (true_drag, drag), "Cl": (true_lift, lift)}, "forces.png")
    """
    if not pairs:
        raise ValueError("pairs is empty: expected at least one label with true and predicted")
    inches, count = (0.4 + 3.4 * len(pairs), 3.9), len(pairs)
    chart = Chart(inches, count, count, path=path, title=title, note=note, axes=axes)
    missing = 0
    for panel, (label, (true, predicted)) in zip(chart.axes, pairs.items(), strict=True):
        t, p, lost = finite_pairs(true, predicted, label)
        missing += lost
        name, unit = split_label(label)
        low, high = min(t.min(), p.min()), max(t.max(), p.max())
        room = 0.06 * (high - low) or 0.05 * max(abs(low), 1e-30)
        ends = (low - room, high + room)
        panel.plot(ends, ends, color=theme.SOFT_INK, linewidth=1.0, zorder=1)
        panel.scatter(t, p, s=18, color=theme.SERIES[0], linewidths=0, alpha=0.8, zorder=2)
        panel.set(xlim=ends, ylim=ends)
        panel.set_aspect("equal")
        r2, worst = agreement(t, p)
        words = f"{name}: R2 {number(r2)}" if np.isfinite(r2) else name
        words += f", largest error {number(worst)} {unit}".rstrip()
        chart.head(panel, words)
        tail = f" [{unit}]" if unit else ""
        chart.label(panel, f"true {name}{tail}", f"predicted {name}{tail}")
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_major_locator(theme.import_matplotlib().ticker.MaxNLocator(5))
    return chart.finished(f"pairs that are not finite: {missing}" if missing else "")


def plot_error_against_size(
    sizes: Any,
    errors: Any,
    path: str | os.PathLike[str] | None = None,
    *,
    names: Sequence[str] | None = None,
    label: str = "relative L2 error",
    size_label: str = "points",
    title: str | None = None,
    note: str | None = None,
    axes: Any = None,
) -> Any:
    """Draw the error of each case against the size of its mesh, on log axes.

    Args:
        sizes: `[n]`, points of each mesh.
        errors: `[n]`. Cases whose error is not finite and positive are counted at the foot.
        names: of the cases; the worst one is then named.
        label: the error, with its unit.
        size_label: what `sizes` counts.
        path, title, note, axes: as for `plot_error_histogram`.

    Returns:
        The picture, uint8 `[height, width, 3]`, or `axes` where they are given.

    Raises:
        ValueError: unequal lengths, or nothing to draw on log axes.

    Example::

        plot_error_against_size([972, 1943], [0.02, 0.03], names=["a", "b"])
    """
    x, y, kept = positive_pairs(sizes, errors, "sizes and errors")
    chart = Chart((6.6, 3.4), path=path, title=title, note=note, axes=axes)
    panel = chart.axes[0]
    panel.scatter(x, y, s=18, color=theme.SERIES[0], linewidths=0, alpha=0.8)
    log_axes(panel, x, y)
    if names is not None:
        worst = int(y.argmax())
        left = np.log(x[worst]) < 0.5 * np.log(x.min() * x.max())
        panel.annotate(
            _short(names[int(np.flatnonzero(kept)[worst])]),
            (x[worst], y[worst]),
            xytext=(0, 5),
            textcoords="offset points",
            ha="left" if left else "right",
            size=theme.SMALL_SIZE,
            color=theme.SOFT_INK,
            family=theme.FONT,
            parse_math=False,
        )
    chart.label(panel, size_label, label)
    missing = int((~kept).sum())
    return chart.finished(f"cases that cannot be drawn: {missing}" if missing else "")


def plot_scaling(
    series: Mapping[str, tuple[Any, Any]],
    path: str | os.PathLike[str] | None = None,
    *,
    x_label: str,
    y_label: str,
    title: str | None = None,
    note: str | None = None,
    axes: Any = None,
) -> Any:
    """Draw one line per series on log axes, such as time against points, with its fitted slope.

    Args:
        series: name to x and y, both `[n]`; values that are not finite and positive (a run that
            did not fit in memory) are left out.
        x_label: quantity and unit, as in "points".
        y_label: quantity and unit, as in "time per step [s]".
        path, title, note, axes: as for `plot_error_histogram`.

    Returns:
        The picture, uint8 `[height, width, 3]`, or `axes` where they are given.

    Raises:
        ValueError: no series, more than there are colours, unequal lengths, nothing positive.

    Example::

        plot_scaling({"FLARE": (n, seconds)}, x_label="points", y_label="time per step [s]")
    """
    if not 0 < len(series) <= len(theme.SERIES):
        raise ValueError(f"series must be 1 to {len(theme.SERIES)}, got {len(series)}")
    chart = Chart((6.6, 4.3), path=path, title=title, note=note, axes=axes)
    panel = chart.axes[0]
    every = []
    for color, (name, (xs, ys)) in zip(theme.SERIES, series.items(), strict=False):
        x, y, _ = positive_pairs(xs, ys, name)
        slope = fitted_slope(x, y)
        order = np.argsort(x)
        words = f"{name}, slope {slope:.2f}".replace("-", "\N{MINUS SIGN}")
        words = words if np.isfinite(slope) else name
        panel.plot(
            x[order], y[order], "o-", color=color, linewidth=1.5, markersize=4.5, label=words
        )
        every.append((x, y))
    log_axes(panel, *(np.concatenate(both) for both in zip(*every, strict=True)))
    chart.legend(panel)
    chart.label(panel, x_label, y_label)
    return chart.finished()


def agreement(true: np.ndarray, predicted: np.ndarray) -> tuple[float, float]:
    """R2 over all values, NaN where the true ones do not differ, and the largest error."""
    spread = float(np.square(true - true.mean()).sum())
    error = predicted - true
    r2 = 1 - float(np.square(error).sum()) / spread if spread > 0 else float("nan")
    return r2, float(np.abs(error).max())


def fitted_slope(x: np.ndarray, y: np.ndarray) -> float:
    """Exponent a of the power law y = c x^a fitted to positive values; NaN for one x alone."""
    if len(np.unique(x)) < 2:
        return float("nan")
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def _short(name: str) -> str:
    return name if len(name) <= LETTERS else f"{name[: LETTERS - 1]}\N{HORIZONTAL ELLIPSIS}"
