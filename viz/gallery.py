"""Many parts on one page, with one colour bar."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from flare_geo.mesh import as_mesh
from flare_geo.viz.displacement import magnification, warp
from flare_geo.viz.render import theme
from flare_geo.viz.render.colors import ColorScale, field_scale
from flare_geo.viz.render.composition import BAR_ROOM, LINE, MARGIN, Composition, check_output
from flare_geo.viz.render.labels import extremes, with_component
from flare_geo.viz.render.painted import (
    Association,
    Painted,
    find_values,
    in_space,
    magnitude,
    per_row,
    steps_of,
)
from flare_geo.viz.render.scene import View, panel, scene

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
    gallery of the LPBF data set; `component` chooses another. Every part fills its panel, so
    colours of two parts can be compared and sizes cannot.

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
        clim: (low, high) of the colour bar, in the unit of the values; None takes the values of
            all parts together.
        view: as for `plot_field`, the same for all.
        cmap, path, show_edges, title, note: as for `plot_field`.

    Returns:
        The picture, uint8 `[height, width, 3]`.

    Raises:
        ValueError: no part, another number of values or names; a part (it is named) whose values
            do not fit.

    Example::

        plot_gallery(dataset[:12], label="displacement [mm]", path="gallery.png")
    """
    check_output(path)
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
    colored = [_colored(rows, component) for _, rows, _ in items]
    if all(rows.ndim == 2 for _, rows, _ in items):
        label = with_component(label, component)
    together = np.concatenate(colored)
    colors = field_scale(together, clim=clim, cmap=cmap)
    meshes = [mesh for mesh, _, _ in items]
    words = []
    if scale is not None:
        meshes, factor = _deformed(items, scale)
        words.append(f"deformation × {factor:g}")
    words.append(extremes(together, colors, label))

    across = columns or min(count, max(3, round(1.3 * count**0.5)))
    if across < 1:
        raise ValueError(f"columns must be at least 1, got {columns}")
    panels = []
    for mesh, rows, (_, _, association) in zip(meshes, colored, items):
        ready = scene(mesh, view, theme.GALLERY_PANEL)
        field = Painted(rows, association, colors)
        panels.append(panel(ready, field, show_edges=show_edges).pixels())
    return _composed(
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
        steps.append(steps_of(rows))
    if scale == "auto":
        largest = [float(np.linalg.norm(step, axis=1).max()) for step in steps]
        moving = [(most, mesh.length) for most, (mesh, _, _) in zip(largest, items) if most > 0]
        factor = min((magnification(*each) for each in moving), default=1.0)
    else:
        factor = float(scale)
        if not np.isfinite(factor):
            raise ValueError(f"scale must be 'auto', None or a finite number, got {scale}")
    return [warp(mesh, step, factor) for (mesh, _, _), step in zip(items, steps)], factor


def _composed(
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
    heights = [max(image.shape[0] for image in row) + LINE * any(names) + gap for row in rows]
    width = max(image.shape[1] for image in panels)
    inside = min(across, len(panels)) * (width + gap) - gap
    top = MARGIN + LINE * (1 + bool(title))
    page = Composition(
        max(inside + 2 * MARGIN + BAR_ROOM, 900),
        top + sum(heights) + LINE * bool(note) + MARGIN // 2,
    )
    page.heading(title)
    page.text(subtitle, MARGIN, top - 26, size=theme.SMALL_SIZE, color=theme.SOFT_INK)
    y = top
    for start, row, height in zip(range(0, len(panels), across), rows, heights):
        for i, image in enumerate(row):
            x = MARGIN + i * (width + gap)
            tall = height - gap - LINE * any(names)
            page.panel(image, x + (width - image.shape[1]) // 2, y + (tall - image.shape[0]) // 2)
            size = min(theme.SMALL_SIZE, width / (8 + len(names[start + i])))
            page.text(names[start + i], x, y + tall + 28, size=size, color=theme.INK)
        y += height
    bar = min(y - top - gap, 700)
    page.color_bar(colors, MARGIN + inside + 40, top + (y - top - gap - bar) // 2, bar, label)
    return page.finished(note, path)
