"""Truth, prediction and error side by side, for one case or for several."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flare_geo.mesh import as_mesh
from flare_geo.viz import page as pages
from flare_geo.viz import theme
from flare_geo.viz.page import LINE, MARGIN
from flare_geo.viz.scene import View, draw, scene
from flare_geo.viz.values import (
    ColorScale,
    error_scale,
    field_scale,
    magnitude,
    per_row,
    relative_l2,
)

GAP = 36  # pixels between panels


@dataclass(frozen=True)
class Comparison:
    """One case: a mesh, the field that is right, the field that was predicted, and a name.

    Shapes: `truth` and `prediction` both `[n]`, `[n, 1]` or `[n, 2|3]`, one row per point or cell.
    """

    data: Any
    truth: Any
    prediction: Any
    name: str = ""


def plot_comparison(
    data: Any,
    truth: Any,
    prediction: Any,
    *,
    label: str = "",
    path: str | os.PathLike[str] | None = None,
    title: str | None = None,
    note: str | None = None,
    clim: Sequence[float] | None = None,
    error_limit: float | None = None,
    view: View = None,
) -> np.ndarray:
    """Draw truth | prediction | error of one case.

    Truth and prediction share one colour bar, whose range is that of the truth; a pointed end
    says that values go beyond. The error has its own bar: prediction - truth around zero for
    scalars, the length of that difference for vectors. Its relative L2, ||p - t|| / ||t|| over
    the rows given, stands above it.

    Args:
        data: a PyG `Data` or a pyvista mesh.
        truth: `[n]`, `[n, 1]` or `[n, 2|3]`, per point or per cell.
        prediction: of the same shape.
        label: quantity and unit, as in "von Mises stress [Pa]".
        path: a `.png` file to write.
        title: one line above the picture, such as the case's name.
        note: one small line below it, such as "generated data".
        clim: (low, high) for truth and prediction, in their unit.
        error_limit: largest error on the bar, in the same unit.
        view: as for `plot_field`; the same for all panels.

    Returns:
        The picture, uint8 `[height, width, 3]`.

    Raises:
        ValueError: empty mesh, or fields whose lengths do not fit the mesh or each other.

    Example::

        plot_comparison(data, data.y, data.pred, label="von Mises stress [Pa]", path="case.png")
    """
    return plot_comparison_grid(
        [Comparison(data, truth, prediction)],
        label=label,
        path=path,
        title=title,
        note=note,
        clim=clim,
        error_limit=error_limit,
        view=view,
    )


def plot_comparison_grid(
    cases: Sequence[Comparison],
    *,
    label: str = "",
    path: str | os.PathLike[str] | None = None,
    title: str | None = None,
    note: str | None = None,
    clim: Sequence[float] | None = None,
    error_limit: float | None = None,
    view: View = None,
) -> np.ndarray:
    """Draw truth | prediction | error of several cases, one row each, such as best, median, worst.

    Each row has its own colour bars unless `clim` and `error_limit` fix them for all; the rest is
    as in `plot_comparison`, row by row.

    Example::

        rows = [Comparison(d, d.y, d.pred, name) for name, d in picked.items()]
        plot_comparison_grid(rows, label="displacement [mm]", path="test.png")
    """
    if path is not None:
        pages.checked_path(path, (".png",))
    if len(cases) == 0:
        raise ValueError("cases is empty: pass at least one Comparison")
    rows = [
        _Row.drawn(
            case, clim=clim, error_limit=error_limit, view=view, label=label, many=len(cases)
        )
        for case in cases
    ]
    width = max(row.panels[0].shape[1] for row in rows)
    columns = [MARGIN, MARGIN + width + GAP, MARGIN + 2 * width + 2 * GAP + pages.BAR_ROOM]
    page = pages.Page(
        columns[2] + width + pages.BAR_ROOM + MARGIN,
        MARGIN + LINE * bool(title) + sum(row.height for row in rows) + LINE * bool(note),
    )
    y = MARGIN
    if title:
        page.text(title, MARGIN, y + 20, size=theme.TITLE_SIZE, bold=True)
        y += LINE + 10
    for row in rows:
        row.put(page, columns, width, y, label)
        y += row.height
    return page.finished(note, path)


@dataclass(frozen=True)
class _Row:
    name: str
    panels: list[np.ndarray]  # three, of one size
    heads: list[tuple[str, str]]  # what it is, and its range
    scales: tuple[ColorScale, ColorScale]

    @property
    def height(self) -> int:
        return self.panels[0].shape[0] + LINE * (2 + bool(self.name)) + MARGIN

    @classmethod
    def drawn(
        cls,
        case: Comparison,
        *,
        clim: Sequence[float] | None,
        error_limit: float | None,
        view: View,
        label: str,
        many: int,
    ) -> "_Row":
        mesh = as_mesh(case.data)
        truth, association = per_row(mesh, case.truth, "truth")
        prediction, _ = per_row(mesh, case.prediction, "prediction")
        if truth.shape != prediction.shape:
            raise ValueError(
                f"truth and prediction must have the same shape, got {list(truth.shape)} and "
                f"{list(prediction.shape)}"
            )
        signed = truth.ndim == 1
        relative = relative_l2(truth, prediction)
        error = magnitude(prediction - truth)
        truth, prediction = magnitude(truth), magnitude(prediction)
        scale = field_scale(truth, clim=clim, also=prediction)
        size_of_truth = max(abs(scale.low), abs(scale.high))
        errors = error_scale(error, signed=signed, limit=error_limit, size=size_of_truth)

        most = theme.COMPARE_PANEL
        ready = scene(mesh, view, most if many == 1 else (most[0], most[1] * 3 // 4))
        panels = [
            draw(ready, truth, association, scale),
            draw(ready, prediction, association, scale),
            draw(ready, error, association, errors),
        ]
        heads = [
            ("truth", pages.extremes(truth, scale, label)),
            ("prediction", pages.extremes(prediction, scale, label)),
            (f"error, relative L2 {percent(relative)}", pages.extremes(error, errors, label)),
        ]
        return cls(case.name, panels, heads, (scale, errors))

    def put(self, page: pages.Page, columns: list[int], width: int, y: int, label: str) -> None:
        height, own = self.panels[0].shape[:2]
        if self.name:
            page.text(self.name, MARGIN, y + 20, bold=True)
            y += LINE
        for x, panel, (head, span) in zip(columns, self.panels, self.heads):
            page.text(head, x, y + 20)
            page.text(span, x, y + 20 + 36, size=theme.SMALL_SIZE, color=theme.SOFT_INK)
            page.panel(panel, x + (width - own) // 2, y + 2 * LINE)
        bar = min(height, 560)
        top = y + 2 * LINE + (height - bar) // 2
        page.color_bar(self.scales[0], columns[1] + width + 30, top, bar, label)
        page.color_bar(self.scales[1], columns[2] + width + 30, top, bar, error_label(label))


def percent(relative: float) -> str:
    """A relative error as a percentage with three significant digits."""
    return f"{100 * relative:.3g} %" if np.isfinite(relative) else "not finite"


def error_label(label: str) -> str:
    """Label of the error's bar: the field's unit, and that it is an error."""
    unit = pages.split_label(label)[1]
    return f"error [{unit}]" if unit else "error"
