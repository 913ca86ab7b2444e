"""Many parts on one page, with one colour bar."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from flare_geo.mesh import as_mesh
from flare_geo.viz import page as pages
from flare_geo.viz import theme
from flare_geo.viz.displacement import in_space, magnification, warp
from flare_geo.viz.page import LINE, MARGIN
from flare_geo.viz.scene import View, draw, scene
from flare_geo.viz.values import (
    Association,
    ColorScale,
    field_scale,
    find_values,
    magnitude,
    per_row,
)

if TYPE_CHECKING:
    import pyvista as pv
    from matplotlib.colors import Colormap

Component = Literal["x", "y", "z", "length"]


def plot_gallery(
    parts: Sequence[Any],
    values: str | Sequence[Any] | None = None,
    *,
    names: Sequence[str] | None = None,
    component: Component = "z",
    scale: float | Literal["auto"] | None = None,
    columns: int | None = None,
    label: str = "",
    clim: Sequence[float] | None = None,
    cmap: "str | Colormap | None" = None,
    path: str | os.PathLike[str] | None = None,
    show_edges: bool = False,
    title: str | None = None,
    note: str | None = None,
    view: View = None,
) -> np.ndarray:
    """Draw many parts with their names and one colour bar.

    Vectors `[n, 3]` are taken for displacements and coloured by the vertical one, as in the
    gallery of the LPBF set; `component` chooses another. Every part fills its panel: sizes of two
    parts cannot be compared, colours can.

    Args:
        parts: pyvista meshes or PyG `Data`, one per panel.
        values: one field per part, as for `plot_field`; a string names a field of each, None
            takes each `data.y` or active array.
        names: one per part; None takes `data.name` where there is one.
        component: what is coloured of a vector: "x", "y", "z" or its "length".
        scale: draw the parts deformed, x + scale u(x); then all values must be displacements per
            point. "auto" chooses one magnification for all, which suits the part that needs the
            least. It is written into the picture. None draws them undeformed.
        columns: panels in a row; None chooses by the number of parts.
        label: quantity and unit; the component is added to it.
        clim: (low, high) of the colour bar; None takes the values of all parts together.
        cmap: matplotlib colour map; None chooses by quantity, as in `plot_field`.
        path: a `.png` file to write.
        show_edges: draw the mesh lines.
        title: one line above the picture.
        note: one small line below it, such as "generated data".
        view: as for `plot_field`, the same for all.

    Returns:
        The picture, uint8 `[height, width, 3]`.

    Raises:
        ValueError: no part, another number of values or names; a part (it is named) whose values
            do not fit.

    Example::

        plot_gallery(dataset[:12], label="displacement [mm]", path="gallery.png")
    """
    if path is not None:
        pages.checked_path(path, (".png",))
    if component not in ("x", "y", "z", "length"):
        raise ValueError(f"component must be 'x', 'y', 'z' or 'length', got {component!r}")
    count = len(parts)
    if count == 0:
        raise ValueError("parts is empty: pass at least one mesh or Data")
    each = [values] * count if values is None or isinstance(values, str) else values
    titles = [_name(part) for part in parts] if names is None else names
    for what, given in (("values", each), ("names", titles)):
        if len(given) != count:
            raise ValueError(f"{what} must be one per part ({count}), got {len(given)}")
    items = [_item(part, rows, i) for i, (part, rows) in enumerate(zip(parts, each))]
    vectors = [rows.ndim == 2 for _, rows, _ in items]
    colored = [_colored(rows, component) for _, rows, _ in items]
    if all(vectors):
        said = "length" if component == "length" else component
        name, unit = pages.split_label(label)
        name = f"{name}, {said}" if name else said
        label = f"{name} [{unit}]" if unit else name
    together = np.concatenate(colored)
    colors = field_scale(together, clim=clim, cmap=cmap)
    meshes = [mesh for mesh, _, _ in items]
    words = []
    if scale is not None:
        meshes, factor = _deformed(items, scale)
        words.append(f"deformation × {factor:g}")
    words.append(pages.extremes(together, colors, label))

    across = columns or min(count, max(3, round(1.3 * count**0.5)))
    if across < 1:
        raise ValueError(f"columns must be at least 1, got {columns}")
    panels = [
        draw(
            scene(mesh, view, theme.GALLERY_PANEL),
            rows,
            association,
            colors,
            show_edges=show_edges,
        )
        for mesh, rows, (_, _, association) in zip(meshes, colored, items)
    ]
    return _page(
        panels,
        list(titles),
        across,
        colors,
        label,
        "    ".join(words),
        title=title,
        note=note,
        path=path,
    )


def _name(part: Any) -> str:
    name = getattr(part, "name", None)
    return name if isinstance(name, str) else ""


def _item(part: Any, values: Any, index: int) -> "tuple[pv.DataSet, np.ndarray, Association]":
    try:
        mesh = as_mesh(part)
        found = find_values(part, mesh, values)
        if found is None:
            raise ValueError("there is no field to draw: pass values")
        rows, association = per_row(mesh, found, "values")
    except (ValueError, TypeError) as error:
        raise type(error)(f"part {index} {_name(part)}".rstrip() + f": {error}") from None
    return mesh, in_space(rows) if rows.ndim == 2 else rows, association


def _colored(rows: np.ndarray, component: Component) -> np.ndarray:
    if rows.ndim == 1 or component == "length":
        return magnitude(rows)
    return rows[:, "xyz".index(component)]


def _deformed(
    items: "Sequence[tuple[pv.DataSet, np.ndarray, Association]]", scale: float | str
) -> "tuple[list[pv.DataSet], float]":
    """The parts moved by one factor times their values, and the factor."""
    steps = []
    for index, (_, rows, association) in enumerate(items):
        if rows.ndim != 2 or association != "point":
            raise ValueError(
                f"with a scale all values must be displacements per point [n, 2|3]; those of part "
                f"{index} are {list(rows.shape)} per {association}"
            )
        steps.append(np.where(np.isfinite(rows).all(axis=1, keepdims=True), rows, 0.0))
    if scale == "auto":
        largest = [float(np.linalg.norm(step, axis=1).max()) for step in steps]
        moving = [(most, mesh.length) for most, (mesh, _, _) in zip(largest, items) if most > 0]
        factor = min((magnification(*each) for each in moving), default=1.0)
    else:
        factor = float(scale)
        if not np.isfinite(factor):
            raise ValueError(f"scale must be 'auto', None or a finite number, got {scale}")
    return [warp(mesh, step, factor) for (mesh, _, _), step in zip(items, steps)], factor


def _page(
    panels: list[np.ndarray],
    names: list[str],
    across: int,
    colors: ColorScale,
    label: str,
    subtitle: str,
    *,
    title: str | None,
    note: str | None,
    path: str | os.PathLike[str] | None,
) -> np.ndarray:
    """Lay the panels in rows, each in the middle of its place and its name below it."""
    gap = theme.GALLERY_GAP
    rows = [panels[i : i + across] for i in range(0, len(panels), across)]
    heights = [max(panel.shape[0] for panel in row) + LINE * any(names) + gap for row in rows]
    width = max(panel.shape[1] for panel in panels)
    inside = min(across, len(panels)) * (width + gap) - gap
    top = MARGIN + LINE * (1 + bool(title))
    page = pages.Page(
        max(inside + 2 * MARGIN + pages.BAR_ROOM, 900),
        top + sum(heights) + LINE * bool(note) + MARGIN // 2,
    )
    if title:
        page.text(title, MARGIN, MARGIN + 20, size=theme.TITLE_SIZE, bold=True)
    page.text(subtitle, MARGIN, top - 26, size=theme.SMALL_SIZE, color=theme.SOFT_INK)
    y = top
    for start, row, height in zip(range(0, len(panels), across), rows, heights):
        for i, panel in enumerate(row):
            x = MARGIN + i * (width + gap)
            tall = height - gap - LINE * any(names)
            page.panel(panel, x + (width - panel.shape[1]) // 2, y + (tall - panel.shape[0]) // 2)
            size = min(theme.SMALL_SIZE, width / (8 + len(names[start + i])))
            page.text(names[start + i], x, y + tall + 28, size=size, color=theme.INK)
        y += height
    bar = min(y - top - gap, 700)
    page.color_bar(colors, MARGIN + inside + 40, top + (y - top - gap - bar) // 2, bar, label)
    return page.finished(note, path)
