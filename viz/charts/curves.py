"""Learning curves: loss, relative error and learning rate over the epochs of a run."""

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flare_geo.viz.charts.axes import Chart
from flare_geo.viz.render import theme
from flare_geo.viz.render.composition import check_output

# Colours of Okabe and Ito, safe for colour-blind readers.
COLORS = {"train": "#0072b2", "val": "#d55e00", "test": "#009e73", "": "#69707a"}
NAMES = {"train": "train", "val": "validation", "test": "test"}
QUANTITIES = {"rel_l2": "relative L2", "loss": "loss"}

Curve = tuple[np.ndarray, np.ndarray]  # epochs [k], values [k]


def plot_learning_curves(
    history: Mapping[str, Sequence[float]] | str | os.PathLike[str],
    path: str | os.PathLike[str] | None = None,
    *,
    title: str | None = None,
    axes: Any = None,
) -> Any:
    """Draw losses and relative errors over epochs on a log axis, the learning rate below them.

    Args:
        history: the `metrics.csv` of Lightning's `CSVLogger`, or a mapping of column names to
            values. Columns whose name holds "loss" or "rel_l2" are curves ("train/loss",
            "val/rel_l2", "test/rel_l2"), those starting with "lr" the learning rate; others are
            left out. Blank or non-finite values are skipped. Several values within an epoch are
            averaged. Without an "epoch" column (counted from 0) every value is an epoch.
        path: a `.png` file to write.
        title: one line above the picture.
        axes: matplotlib axes to draw on instead: two, or one where there is no learning rate.

    Returns:
        The picture, uint8 `[height, width, 3]`, or `axes` where they are given.

    Raises:
        FileNotFoundError: there is no such CSV file.
        ValueError: no curve with a positive value, or columns of unequal length.
        ImportError: matplotlib is missing.

    Example::

        plot_learning_curves("runs/darcy/metrics.csv", "curves.png")
    """
    check_output(path, title, axes=axes)
    table = history if isinstance(history, Mapping) else read_metrics(history)
    found = curves(table)
    rates = {name: curve for name, curve in found.items() if name.startswith("lr")}
    lines = {name: curve for name, curve in found.items() if name not in rates}
    if not lines:
        raise ValueError(
            "history has nothing to draw: expected columns such as 'train/loss' or 'val/rel_l2' "
            f"with positive values, got {sorted(table)}"
        )
    heights = [5, 1] if rates else [1]
    chart = Chart((6.6, 4.3), len(heights), heights=heights, path=path, axes=axes)
    ticker = theme.import_matplotlib().ticker
    upper, lowest = chart.axes[0], chart.axes[-1]
    for name, curve in lines.items():
        _draw_line(upper, name, curve)
    upper.set_yscale("log")
    plain = ticker.FuncFormatter(lambda value, _: f"{value:g}")
    low, high = upper.get_ylim()
    upper.yaxis.set_major_formatter(plain)
    upper.yaxis.set_minor_formatter(plain if high < 10 * low else ticker.NullFormatter())
    _label_ends(upper, lines)
    if title:
        upper.set_title(
            title, loc="left", size=theme.TITLE_SIZE, weight="bold", color=theme.INK, pad=10
        )
    if rates:
        lower = lowest
        lower.sharex(upper)
        for epochs, rate in rates.values():
            lower.plot(epochs, rate, color=theme.SOFT_INK, linewidth=1.2)
        peak = max(float(rate.max()) for _, rate in rates.values())
        lower.set_ylim(0, 1.08 * peak)
        lower.set_yticks([0, peak], ["0", ""])
        lower.annotate(
            f"peak\n{peak:.2g}",
            (1, peak),
            xycoords=("axes fraction", "data"),
            xytext=(2, 0),
            textcoords="offset points",
            va="top",
            size=theme.SMALL_SIZE,
            color=theme.SOFT_INK,
            family=theme.FONT,
        )
        lower.set_ylabel("learning\nrate", size=theme.SMALL_SIZE, color=theme.INK)
        upper.tick_params(labelbottom=False)
    chart.label(lowest, "epoch")
    lowest.set_xlim(0, 1.02 * max(float(epochs[-1]) for epochs, _ in found.values()))
    lowest.xaxis.set_major_locator(ticker.MaxNLocator(8, integer=True))
    return chart.finished()


def read_metrics(path: str | os.PathLike[str]) -> dict[str, list[float]]:
    """Read a CSV of numbers with a header line; blank and unreadable cells become NaN."""
    with Path(path).open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        table: dict[str, list[float]] = {name: [] for name in reader.fieldnames or ()}
        for row in reader:
            for name, column in table.items():
                column.append(_number(row.get(name)))
    return table


def curves(table: Mapping[str, Sequence[float]]) -> dict[str, Curve]:
    """Turn logged columns into curves, in the order of the columns.

    Returns:
        For each column of a loss, relative L2 or learning rate with at least one positive value:
        epochs `[k]`, counted from 1, and the mean of its positive values in each epoch `[k]`.
        Of "loss" and "loss_epoch" or "loss_step" Lightning's epoch value is kept.

    Raises:
        ValueError: a column is longer or shorter than the "epoch" column.
    """
    found: dict[str, Curve] = {}
    for name, column in table.items():
        wanted = "loss" in name or "rel_l2" in name or name.startswith("lr")
        if not wanted or (name.endswith("_step") and f"{name[:-5]}_epoch" in table):
            continue
        values = np.asarray(column, dtype=float)
        epochs = np.asarray(table.get("epoch", np.arange(len(values))), dtype=float)
        if len(epochs) != len(values):
            raise ValueError(
                f"column '{name}' must have as many values as 'epoch' ({len(epochs)}), "
                f"got {len(values)}"
            )
        kept = np.isfinite(values) & np.isfinite(epochs) & (values > 0)
        if kept.any():
            at, where = np.unique(epochs[kept], return_inverse=True)
            mean = np.bincount(where, values[kept]) / np.bincount(where)
            found[name.removesuffix("_epoch")] = (at + 1, mean)
    return found


def _number(cell: str | None) -> float:
    try:
        return float(cell) if cell else float("nan")
    except ValueError:
        return float("nan")


def _split(name: str) -> str:
    return next((key for key in NAMES if name.startswith(key)), "")


def _draw_line(axes: Any, name: str, curve: Curve) -> None:
    """Errors are strong lines, losses thin; a single value, as of a test, is a diamond."""
    color = COLORS[_split(name)]
    if len(curve[0]) == 1:
        axes.plot(*curve, marker="D", markersize=5, color=color, linestyle="none", zorder=3)
    elif "rel_l2" in name:
        axes.plot(*curve, color=color, linewidth=1.8, zorder=2)
    else:
        axes.plot(*curve, color=color, linewidth=0.9, zorder=1)


def _label_ends(axes: Any, lines: dict[str, Curve]) -> None:
    """Name every curve at its end, with its last value, moved apart where they would overlap."""
    last = max(float(curve[0][-1]) for curve in lines.values())
    low, high = np.log10(np.array(axes.get_ylim()))
    order = sorted(lines, key=lambda name: float(lines[name][1][-1]))
    heights = np.array([(np.log10(lines[name][1][-1]) - low) / (high - low) for name in order])
    step = 0.105  # two lines of small type, as a share of the height
    for _ in range(200):  # push overlapping neighbours apart, evenly, and back into the axes
        overlap = np.maximum(step - np.diff(heights), 0) / 2
        heights[:-1] -= overlap
        heights[1:] += overlap
        heights = np.clip(heights, 0.03, 0.97)
    for name, height in zip(order, heights):
        split = _split(name)
        quantity = next((text for key, text in QUANTITIES.items() if key in name), name)
        axes.annotate(
            f"{NAMES.get(split, '')} {quantity}\n{lines[name][1][-1]:.3g}".strip(),
            (last, 10 ** (low + height * (high - low))),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            size=theme.SMALL_SIZE,
            color=COLORS[split],
            family=theme.FONT,
            annotation_clip=False,
        )
