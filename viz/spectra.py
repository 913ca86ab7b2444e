"""Eigenvalue spectra of the mixing operators of a model, one small panel a block."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from flare_geo.mesh.fields import to_numpy
from flare_geo.viz import page as pages
from flare_geo.viz import theme
from flare_geo.viz.curves import plain_axes

COLUMNS = 4
FLOOR = 1e-12  # what is smaller is mostly rounding, and below the axis
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
) -> np.ndarray:
    """Draw the eigenvalues of each block on a log axis, one line a head.

    Above each panel stands the effective rank of its heads, smallest to largest: the exponential
    of the entropy of the eigenvalues divided by their sum, 1 where a head only averages.

    Args:
        eigenvalues: for each block `[H, M]`, descending, as from `flare_geo.nn.explain.spectra`.
        path: a `.png` file to write.
        tolerance: eigenvalue at which a thin line is drawn, such as that of a suggested M.
        title: one line above the picture.
        note: one line at its foot.

    Returns:
        The picture, uint8 `[height, width, 3]`.

    Raises:
        ValueError: no block, or eigenvalues that are not `[H, M]`.

    Example::

        plot_spectra(spectra(surrogate, data), "spectra.png")
    """
    if path is not None:
        pages.checked_path(path, (".png",))
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
    figure = matplotlib.figure.Figure(
        figsize=(width, 2.0 * rows + 0.45 + 0.2 * legend * -(-heads // across)),
        dpi=theme.DPI,
        facecolor=theme.BACKGROUND,
        layout="constrained",
    )
    canvas = matplotlib.backends.backend_agg.FigureCanvasAgg(figure)
    grid = figure.add_gridspec(rows, columns)
    low = max(FLOOR, min(float(values[:, -1].min()) for values in blocks))
    for i, values in enumerate(blocks):
        axes = figure.add_subplot(grid[divmod(i, columns)])
        order = np.arange(1, values.shape[1] + 1)
        for head, line in enumerate(values):
            color = COLORS[head] if heads <= len(COLORS) else COLORS[0]
            thin = 1.2 if heads <= len(COLORS) else 0.7
            shown = np.where(line > 0, line, np.nan)
            dot = "." if len(order) == 1 else ""
            axes.plot(order, shown, color=color, linewidth=thin, marker=dot, label=f"head {head}")
        if tolerance is not None:
            axes.axhline(tolerance, color=theme.SOFT_INK, linewidth=0.7, linestyle=(0, (4, 3)))
        axes.set_yscale("log")
        axes.set_ylim(10 ** np.floor(np.log10(0.7 * low)), 2.0)
        plain_axes(axes)
        axes.tick_params(length=2.5)
        axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(5, integer=True))
        axes.yaxis.set_major_locator(matplotlib.ticker.LogLocator(numticks=5))
        axes.yaxis.set_minor_locator(matplotlib.ticker.NullLocator())
        ranks = effective_rank(values)
        axes.set_title(
            f"block {i}: effective rank {_span(ranks)}",
            size=theme.SMALL_SIZE,
            color=theme.INK,
            family=theme.FONT,
            loc="left",
        )
        if i % columns == 0:
            axes.set_ylabel("eigenvalue", size=theme.SMALL_SIZE, color=theme.SOFT_INK)
        if i + columns >= len(blocks):
            axes.set_xlabel("index", size=theme.SMALL_SIZE, color=theme.SOFT_INK)
    small = {"size": theme.SMALL_SIZE, "family": theme.FONT}
    if legend:
        lines, words = figure.axes[0].get_legend_handles_labels()
        figure.legend(
            lines, words, loc="outside lower right", ncols=across, frameon=False, prop=small,
            handlelength=1.2, columnspacing=1.2,
        )  # fmt: skip
    if title:
        figure.suptitle(
            title, x=0.01, ha="left", size=theme.LABEL_SIZE, weight="bold", color=theme.INK
        )
    if note:
        figure.supxlabel(note, x=0.01, ha="left", color=theme.SOFT_INK, **small)
    canvas.draw()
    image = np.array(canvas.buffer_rgba())[..., :3]
    if path is not None:
        pages.write_png(image, path)
    return image


def effective_rank(eigenvalues: np.ndarray) -> np.ndarray:
    """Exponential of the entropy of each row of `[H, M]` divided by its sum: `[H]`."""
    p = eigenvalues / eigenvalues.sum(axis=1, keepdims=True)
    logarithm = np.log(p, out=np.zeros_like(p), where=p > 0)
    return np.exp(-(p * logarithm).sum(axis=1))


def _span(ranks: np.ndarray) -> str:
    low, high = f"{ranks.min():.3g}", f"{ranks.max():.3g}"
    return low if low == high else f"{low} to {high}"
