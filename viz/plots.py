"""Plots of numbers, one a case or one a run: error histogram, predicted against true, scaling."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flare_geo.viz import page as pages
from flare_geo.viz import theme
from flare_geo.viz.sheet import (
    Path,
    Sheet,
    finite_pairs,
    joined_words,
    log_axes,
    numbers,
    positive_pairs,
)

WIDE = (6.6, 3.4)  # inches
WORD = 40  # letters of a case's name that are shown


def plot_error_histogram(
    errors: Any,
    path: Path = None,
    *,
    label: str = "relative L2 error",
    title: str | None = None,
    note: str | None = None,
) -> np.ndarray:
    """Draw how many cases have which error, with median, mean and worst; a tick for each case.

    Args:
        errors: `[n]`, one a case. Those that are not finite are left out and counted at the foot.
        path: a `.png` file to write.
        label: what is counted, with its unit.
        title: one line above the picture.
        note: one line at its foot, such as "generated data".

    Returns:
        The picture, uint8 `[height, width, 3]`.

    Raises:
        ValueError: no finite error.
        ImportError: matplotlib is missing.

    Example::

        plot_error_histogram([row["rel_l2"] for row in table], "errors.png")
    """
    every = numbers(errors, "errors")
    values = every[np.isfinite(every)]
    if not values.size:
        raise ValueError(f"errors has no finite value among {every.size}")
    sheet = Sheet(WIDE, path)
    axes = sheet.axes[0]
    counts, edges = np.histogram(values, int(np.clip(2 * np.sqrt(values.size), 5, 40)))
    axes.stairs(counts, edges, fill=True, color=theme.SERIES[0], alpha=0.75)
    axes.plot(values, np.zeros(values.size), "|", color=theme.INK, markersize=9, clip_on=False)
    marks = {"median": np.median(values), "mean": values.mean(), "worst": values.max()}
    for (word, value), style in zip(marks.items(), ("-", "--", ":"), strict=True):
        text = f"{word} {pages.number(value)}"
        axes.axvline(value, color=theme.INK, linewidth=1.1, linestyle=style, label=text)
    matplotlib = theme.import_matplotlib()
    axes.yaxis.set_major_locator(matplotlib.ticker.MaxNLocator(5, integer=True))
    axes.set_ylim(0, None)
    sheet.legend(axes, above=True)
    sheet.label(axes, label, "cases")
    missing = every.size - values.size
    return sheet.finished(
        title, joined_words(note, missing and f"errors that are not finite: {missing}")
    )


def plot_parity(
    pairs: Mapping[str, tuple[Any, Any]],
    path: Path = None,
    *,
    title: str | None = None,
    note: str | None = None,
) -> np.ndarray:
    """Draw predicted against true values, a panel each, with the line where they are equal.

    R2 and the largest error stand above each panel.

    Args:
        pairs: label with unit, as in "Cd", to true and predicted values, both `[n]`. Pairs that
            are not finite are left out and counted at the foot.
        path: a `.png` file to write.
        title: one line above the picture.
        note: one line at its foot.

    Returns:
        The picture, uint8 `[height, width, 3]`.

    Raises:
        ValueError: no pairs, true and predicted of unequal length, or nothing finite.

    Example::

        plot_parity({"Cd": (true_drag, drag), "Cl": (true_lift, lift)}, "forces.png")
    """
    if not pairs:
        raise ValueError("pairs is empty: expected at least one label with true and predicted")
    sheet = Sheet((0.4 + 3.4 * len(pairs), 3.9), path, columns=len(pairs))
    missing = 0
    for axes, (label, (true, predicted)) in zip(sheet.axes, pairs.items(), strict=True):
        t, p, lost = finite_pairs(true, predicted, label)
        missing += lost
        name, unit = pages.split_label(label)
        low, high = min(t.min(), p.min()), max(t.max(), p.max())
        room = 0.06 * (high - low) or 0.05 * max(abs(low), 1e-30)
        ends = (low - room, high + room)
        axes.plot(ends, ends, color=theme.SOFT_INK, linewidth=1.0, zorder=1)
        axes.scatter(t, p, s=18, color=theme.SERIES[0], linewidths=0, alpha=0.8, zorder=2)
        axes.set(xlim=ends, ylim=ends)
        axes.set_aspect("equal")
        r2, worst = agreement(t, p)
        words = f"{name}: R2 {pages.number(r2)}" if np.isfinite(r2) else name
        words += f", largest error {pages.number(worst)} {unit}".rstrip()
        sheet.head(axes, words)
        tail = f" [{unit}]" if unit else ""
        sheet.label(axes, f"true {name}{tail}", f"predicted {name}{tail}")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(theme.import_matplotlib().ticker.MaxNLocator(5))
    return sheet.finished(
        title, joined_words(note, missing and f"pairs that are not finite: {missing}")
    )


def plot_error_against_size(
    sizes: Any,
    errors: Any,
    path: Path = None,
    *,
    names: Sequence[str] | None = None,
    label: str = "relative L2 error",
    size_label: str = "points",
    title: str | None = None,
    note: str | None = None,
) -> np.ndarray:
    """Draw the error of each case against the size of its mesh, on log axes.

    Args:
        sizes: `[n]`, points of each mesh.
        errors: `[n]`. Cases whose error is not finite and positive are counted at the foot.
        path: a `.png` file to write.
        names: of the cases; the worst one is then named.
        label: the error, with its unit.
        size_label: what `sizes` counts.
        title: one line above the picture.
        note: one line at its foot.

    Returns:
        The picture, uint8 `[height, width, 3]`.

    Raises:
        ValueError: unequal lengths, or nothing to draw on log axes.

    Example::

        plot_error_against_size([972, 1943], [0.02, 0.03], names=["a", "b"])
    """
    x, y, kept = positive_pairs(sizes, errors, "sizes and errors")
    sheet = Sheet(WIDE, path)
    axes = sheet.axes[0]
    axes.scatter(x, y, s=18, color=theme.SERIES[0], linewidths=0, alpha=0.8)
    log_axes(axes, x, y)
    if names is not None:
        worst = int(y.argmax())
        left = np.log(x[worst]) < 0.5 * np.log(x.min() * x.max())
        axes.annotate(
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
    sheet.label(axes, size_label, label)
    missing = int((~kept).sum())
    return sheet.finished(
        title, joined_words(note, missing and f"cases that cannot be drawn: {missing}")
    )


def plot_scaling(
    series: Mapping[str, tuple[Any, Any]],
    path: Path = None,
    *,
    x_label: str,
    y_label: str,
    title: str | None = None,
    note: str | None = None,
) -> np.ndarray:
    """Draw one line a series on log axes, such as time against points, with its fitted slope.

    Args:
        series: name to x and y, both `[n]`; values that are not finite and positive (a run that
            did not fit in memory) are left out.
        path: a `.png` file to write.
        x_label: quantity and unit, as in "points".
        y_label: as in "time a step [s]".
        title: one line above the picture.
        note: one line at its foot, such as the device.

    Returns:
        The picture, uint8 `[height, width, 3]`.

    Raises:
        ValueError: no series, more than there are colours, unequal lengths, nothing positive.

    Example::

        plot_scaling({"FLARE": (n, seconds)}, x_label="points", y_label="time a step [s]")
    """
    if not 0 < len(series) <= len(theme.SERIES):
        raise ValueError(f"series must be 1 to {len(theme.SERIES)}, got {len(series)}")
    sheet = Sheet((6.6, 4.3), path)
    axes = sheet.axes[0]
    every = []
    for color, (name, (xs, ys)) in zip(theme.SERIES, series.items(), strict=False):
        x, y, _ = positive_pairs(xs, ys, name)
        slope = fitted_slope(x, y)
        order = np.argsort(x)
        words = f"{name}, slope {slope:.2f}".replace("-", "\N{MINUS SIGN}")
        words = words if np.isfinite(slope) else name
        axes.plot(x[order], y[order], "o-", color=color, linewidth=1.5, markersize=4.5, label=words)
        every.append((x, y))
    log_axes(axes, *(np.concatenate(both) for both in zip(*every, strict=True)))
    sheet.legend(axes)
    sheet.label(axes, x_label, y_label)
    return sheet.finished(title, note)


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
    return name if len(name) <= WORD else f"{name[: WORD - 1]}\N{HORIZONTAL ELLIPSIS}"
