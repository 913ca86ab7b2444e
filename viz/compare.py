"""Truth, prediction and error side by side, for one case or for several."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from flare_geo.mesh import as_mesh
from flare_geo.viz.render import theme
from flare_geo.viz.render.colors import error_scale, field_scale
from flare_geo.viz.render.composition import BAR_ROOM, LINE, MARGIN, Composition, check_output
from flare_geo.viz.render.labels import error_label, extremes, percent
from flare_geo.viz.render.painted import Painted, find_values, magnitude, per_row
from flare_geo.viz.render.scene import View, panel, scene

if TYPE_CHECKING:
    import pyvista as pv

GAP = 36  # pixels between panels


@dataclass(frozen=True)
class Comparison:
    """One case: a mesh, the true field, the predicted field, and a name.

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
        truth: `[n]`, `[n, 1]` or `[n, 2|3]`, per point or per cell, or the name of a field.
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

    Args:
        cases: one or more, drawn from top to bottom.
        label, path, title, note, view: as for `plot_comparison`.
        clim: (low, high) for truth and prediction of all cases, in their unit; None gives each row
            its own colour bar.
        error_limit: largest error on all bars, in the same unit; None as for `clim`.

    Returns:
        The picture, uint8 `[height, width, 3]`.

    Raises:
        ValueError: no case, or one that `plot_comparison` would not draw.

    Example::

        rows = [Comparison(d, d.y, d.pred, name) for name, d in picked.items()]
        plot_comparison_grid(rows, label="displacement [mm]", path="test.png")
    """
    check_output(path)
    if len(cases) == 0:
        raise ValueError("cases is empty: pass at least one Comparison")
    rows = [
        _Row.drawn(
            case, clim=clim, error_limit=error_limit, view=view, label=label, many=len(cases)
        )
        for case in cases
    ]
    width = max(row.panels[0].shape[1] for row in rows)
    columns = [MARGIN, MARGIN + width + GAP, MARGIN + 2 * width + 2 * GAP + BAR_ROOM]
    page = Composition(
        columns[2] + width + BAR_ROOM + MARGIN,
        MARGIN + LINE * bool(title) + sum(row.height for row in rows) + LINE * bool(note),
    )
    page.heading(title)
    y = MARGIN + (LINE + 10) * bool(title)
    for row in rows:
        row.put(page, columns, width, y, label)
        y += row.height
    return page.finished(note, path)


@dataclass(frozen=True)
class Compared:
    """Truth, prediction and error of one case as they are painted."""

    truth: Painted
    prediction: Painted  # on the scale of the truth
    error: Painted
    relative_l2: float


def compared(
    mesh_or_data: Any,
    mesh: "pv.DataSet",
    truth: Any,
    prediction: Any,
    *,
    clim: Sequence[float] | None = None,
    error_limit: float | None = None,
) -> Compared:
    """Compare two fields of a mesh: `[n]`, `[n, 1]` or `[n, 2|3]`, per point or per cell.

    Raises:
        ValueError: fields whose lengths do not fit the mesh or each other.
    """
    if truth is None or prediction is None:
        raise ValueError("truth and prediction must be fields of the mesh, got None")
    right, association = per_row(mesh, find_values(mesh_or_data, mesh, truth), "truth")
    found, _ = per_row(mesh, find_values(mesh_or_data, mesh, prediction), "prediction")
    if right.shape != found.shape:
        raise ValueError(
            f"truth and prediction must have the same shape, got {list(right.shape)} and "
            f"{list(found.shape)}"
        )
    signed, relative = right.ndim == 1, relative_l2(right, found)
    error, right, found = magnitude(found - right), magnitude(right), magnitude(found)
    scale = field_scale(right, clim=clim, also=found)
    errors = error_scale(error, signed=signed, limit=error_limit, size=scale.size)
    return Compared(
        Painted(right, association, scale),
        Painted(found, association, scale),
        Painted(error, association, errors),
        relative,
    )


def relative_l2(truth: np.ndarray, prediction: np.ndarray) -> float:
    """||prediction - truth|| / ||truth|| over all rows and columns; NaN if any value is NaN."""
    size = float(np.linalg.norm(truth))
    error = float(np.linalg.norm(prediction - truth))
    return error / size if size > 0 else (0.0 if error == 0 else float("inf"))


@dataclass(frozen=True)
class _Row:
    name: str
    panels: list[np.ndarray]  # three, of one size
    heads: list[tuple[str, str]]  # what it is, and its range
    fields: Compared

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
        fields = compared(
            case.data, mesh, case.truth, case.prediction, clim=clim, error_limit=error_limit
        )
        most = theme.COMPARE_PANEL
        ready = scene(mesh, view, most if many == 1 else (most[0], most[1] * 3 // 4))
        words = ("truth", "prediction", f"error, relative L2 {percent(fields.relative_l2)}")
        each = (fields.truth, fields.prediction, fields.error)
        panels = [panel(ready, field).pixels() for field in each]
        heads = [
            (word, extremes(field.rows, field.scale, label)) for word, field in zip(words, each)
        ]
        return cls(case.name, panels, heads, fields)

    def put(self, page: Composition, columns: list[int], width: int, y: int, label: str) -> None:
        height, own = self.panels[0].shape[:2]
        if self.name:
            page.text(self.name, MARGIN, y + 20, bold=True)
            y += LINE
        for x, image, (head, span) in zip(columns, self.panels, self.heads):
            page.text(head, x, y + 20)
            page.text(span, x, y + 20 + 36, size=theme.SMALL_SIZE, color=theme.SOFT_INK)
            page.panel(image, x + (width - own) // 2, y + 2 * LINE)
        bar = min(height, 560)
        top = y + 2 * LINE + (height - bar) // 2
        page.color_bar(self.fields.truth.scale, columns[1] + width + 30, top, bar, label)
        page.color_bar(
            self.fields.error.scale, columns[2] + width + 30, top, bar, error_label(label)
        )
