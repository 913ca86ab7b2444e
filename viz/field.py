"""One field on one mesh."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from flare_geo.mesh import as_mesh
from flare_geo.viz import page as pages
from flare_geo.viz import theme
from flare_geo.viz.page import LINE, MARGIN
from flare_geo.viz.scene import View, draw, scene
from flare_geo.viz.values import ColorScale, field_scale, find_values, magnitude, per_row

if TYPE_CHECKING:
    from matplotlib.colors import Colormap


def plot_field(
    mesh_or_data: Any,
    values: Any = None,
    *,
    label: str = "",
    clim: Sequence[float] | None = None,
    cmap: "str | Colormap | None" = None,
    path: str | os.PathLike[str] | None = None,
    show_edges: bool = False,
    title: str | None = None,
    note: str | None = None,
    view: View = None,
) -> np.ndarray:
    """Draw a field on a mesh, a surface or a point cloud.

    Meshes in a plane are seen straight on and unshaded, so their colours are exactly those of the
    bar; surfaces and solids are lit; points without connectivity become balls as large as their
    spacing. Off-screen, on any machine.

    Args:
        mesh_or_data: a pyvista mesh, or a PyG `Data` with `pos` and optionally `face` or `cells`.
        values: `[n]` or `[n, 1]`, or vectors `[n, 2|3]` of which the length is drawn; one row per
            point or per face or cell. A string names a field of the mesh or `Data`. None takes
            `data.y`, or the mesh's active array; without one the plain shape is drawn.
            Values that are not finite get a colour of their own.
        label: quantity and unit, as in "von Mises stress [MPa]".
        clim: (low, high) of the colour bar, in the unit of `values`; see `field_scale`.
        cmap: matplotlib colour map; None chooses by quantity: sequential for one sign, diverging
            and centred at zero for both.
        path: a `.png` file to write.
        show_edges: draw the mesh lines.
        title: one line above the picture.
        note: one small line below it.
        view: "iso", "x", "-x", "y", "-y", "z", "-z" or a vector towards the eye.

    Returns:
        The picture, uint8 `[height, width, 3]`.

    Raises:
        ValueError: empty mesh, values of another length, unknown view, bad `clim` or `path`.
        ImportError: pyvista or matplotlib is missing.

    Example::

        plot_field(data, data.y[:, 0], label="pressure [Pa]", path="pressure.png")
    """
    if path is not None:
        pages.checked_path(path, (".png",))
    mesh = as_mesh(mesh_or_data)
    values = find_values(mesh_or_data, mesh, values)
    ready = scene(mesh, view, theme.FIELD_PANEL)
    if values is None:
        panel = draw(ready, show_edges=show_edges)
        return framed(panel, title=title, note=note, path=path)
    rows, association = per_row(mesh, values, "values")
    rows = magnitude(rows)
    scale = field_scale(rows, clim=clim, cmap=cmap)
    panel = draw(ready, rows, association, scale, show_edges=show_edges)
    return framed(
        panel,
        scale=scale,
        label=label,
        title=title,
        subtitle=pages.extremes(rows, scale, label),
        note=note,
        path=path,
    )


def framed(
    panel: np.ndarray,
    *,
    scale: ColorScale | None = None,
    label: str = "",
    title: str | None = None,
    subtitle: str | None = None,
    note: str | None = None,
    path: str | os.PathLike[str] | None = None,
) -> np.ndarray:
    """Set one panel on a page with its texts and colour bar, and write it where wanted.

    Returns:
        The page, uint8 `[height, width, 3]`.
    """
    height, width = panel.shape[:2]
    top = MARGIN + LINE * (bool(title) + bool(subtitle))
    page = pages.Page(
        width + 2 * MARGIN + (pages.BAR_ROOM if scale else 0),
        height + top + MARGIN + LINE * bool(note),
    )
    line = MARGIN + 20
    if title:
        page.text(title, MARGIN, line, size=theme.TITLE_SIZE, bold=True)
        line += LINE
    if subtitle:
        page.text(subtitle, MARGIN, line, size=theme.SMALL_SIZE, color=theme.SOFT_INK)
    page.panel(panel, MARGIN, top)
    if scale is not None:
        bar = min(height, 700)
        page.color_bar(scale, MARGIN + width + 40, top + (height - bar) // 2, bar, label)
    return page.finished(note, path)
