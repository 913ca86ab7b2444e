"""Eigenvalue spectra of the mixing operators of a model, one small panel per block."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from flare_geo.mesh.fields import to_numpy
from flare_geo.viz.charts.axes import Chart
from flare_geo.viz.render import theme

COLUMNS = 4
FLOOR = 1e-12  # smaller values are mostly rounding, and lie below the axis
# Okabe and Ito, safe for colour-blind readers; more heads than these share one colour.
COLORS = (
    *("#0072b2", "#d55e00", "#009e73", "#cc79a7"),
    *("#e69f00", "#56b4e9", "#000000", "#9a8f00"),
)


def plot_spectra(
    eigenvalues: Sequence[Any],
    path: str | os.PathLike[str] | None = None,
    *,
    tolerance: float | None = None,
    title: str | None = None,
    note: str | None = None,
    axes: Any = None,
) -> Any:
    """Draw the eigenvalues of each block on a log axis, one line per head.

    Above each panel stands the effective rank of its heads, smallest to largest: the exponential
    of the entropy of the eigenvalues divided by their sum, 1 where a head only averages.

    Args:
        eigenvalues: for each block `[H, M]`, descending, as from `flare_geo.nn.explain.spectra`.
        tolerance: eigenvalue at which a thin line is drawn, such as that of a suggested M.
        axes: matplotlib axes to draw on instead, one per block.
        path, title, note: as for `plot_error_histogram`.

    Returns:
        The picture, uint8 `[height, width, 3]`, or `axes` where they are given.

    Raises:
        ValueError: no block, eigenvalues that are not `[H, M]`, or not one of `axes` per block.
        ImportError: matplotlib is missing.

    Example::

        plot_spectra(spectra(surrogate, data), "spectra.png")
    """
    blocks = [to_numpy(values, "eigenvalues") for values in eigenvalues]
    if not blocks:
        raise ValueError("eigenvalues is empty: expected [H, M] for at least one block")
    for values in blocks:
        if values.ndim != 2 or not values.size:
            raise ValueError(f"eigenvalues must be [H, M] for each block, got {list(values.shape)}")
    matplotlib = theme.import_matplotlib()
    columns = min(COLUMNS, len(blocks))
    rows = -(-len(blocks) // columns)
    heads = max(len(values) for values in blocks)
    legend = 1 < heads <= len(COLORS)
    width = max(2.6 * columns + 0.4, 4.8)  # inches
    across = min(heads, int((width - 1.8) / 0.75))  # names of heads in one line beside the note
    height = 2.0 * rows + 0.45 + 0.2 * legend * -(-heads // across)
    chart = Chart(
        (width, height), len(blocks), columns, path=path, title=title, note=note, axes=axes
    )
    low = max(FLOOR, min(float(values[:, -1].min()) for values in blocks))
    for i, (panel, values) in enumerate(zip(chart.axes, blocks, strict=True)):
        order = np.arange(1, values.shape[1] + 1)
        for head, line in enumerate(values):
            color = COLORS[head] if heads <= len(COLORS) else COLORS[0]
            thin = 1.2 if heads <= len(COLORS) else 0.7
            shown = np.where(line > 0, line, np.nan)
            dot = "." if len(order) == 1 else ""
            panel.plot(order, shown, color=color, linewidth=thin, marker=dot, label=f"head {head}")
        if tolerance is not None:
            panel.axhline(tolerance, color=theme.SOFT_INK, linewidth=0.7, linestyle=(0, (4, 3)))
        panel.set_yscale("log")
        panel.set_ylim(10 ** np.floor(np.log10(0.7 * low)), 2.0)
        panel.tick_params(length=2.5)
        panel.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(5, integer=True))
        panel.yaxis.set_major_locator(matplotlib.ticker.LogLocator(numticks=5))
        panel.yaxis.set_minor_locator(matplotlib.ticker.NullLocator())
        chart.head(panel, f"block {i}: effective rank {_span(effective_rank(values))}")
        first, last = i % columns == 0, i + columns >= len(blocks)
        chart.label(panel, "index" if last else "", "eigenvalue" if first else "", small=True)
    if legend and axes is None:
        lines, words = chart.axes[0].get_legend_handles_labels()
        chart.figure.legend(
            lines,
            words,
            loc="outside lower right",
            ncols=across,
            frameon=False,
            prop={"size": theme.SMALL_SIZE, "family": theme.FONT},
            handlelength=1.2,
            columnspacing=1.2,
        )
    return chart.finished(title_size=theme.LABEL_SIZE)


def effective_rank(eigenvalues: np.ndarray) -> np.ndarray:
    """Exponential of the entropy of each row of `[H, M]` divided by its sum: `[H]`."""
    p = eigenvalues / eigenvalues.sum(axis=1, keepdims=True)
    logarithm = np.log(p, out=np.zeros_like(p), where=p > 0)
    return np.exp(-(p * logarithm).sum(axis=1))


def _span(ranks: np.ndarray) -> str:
    low, high = f"{ranks.min():.3g}", f"{ranks.max():.3g}"
    return low if low == high else f"{low} to {high}"
