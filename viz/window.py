"""A mesh that turns, in a window."""

import ctypes
import ctypes.util
import os
import sys
from typing import Any

from flare_geo.mesh import as_mesh
from flare_geo.viz import graphics, theme
from flare_geo.viz.camera import View
from flare_geo.viz.scene import scene
from flare_geo.viz.values import field_scale, find_values, magnitude, per_row


def show(
    mesh_or_data: Any,
    values: Any = None,
    *,
    label: str = "",
    title: str | None = None,
    view: View = None,
) -> None:
    """Open a window in which a mesh with a field turns; returns when it is closed.

    Args:
        mesh_or_data: a pyvista mesh or a PyG `Data`.
        values: as for `plot_field`.
        label: quantity and unit, as in "pressure [Pa]".
        title: of the window.
        view: where the eye is at the start, as for `plot_field`.

    Raises:
        RuntimeError: there is no display, or no OpenGL.
        ValueError: what `plot_field` raises.

    Example::

        show(data, data.pred, label="pressure [Pa]")
    """
    if not _has_display():
        raise RuntimeError(
            "there is no display to open a window on: write a page that turns with write_html, or "
            "a picture with plot_field"
        )
    if not graphics.has_window():
        raise RuntimeError(
            "VTK cannot open a window here, it needs OpenGL (Debian, Ubuntu: apt install libgl1): "
            "write a page that turns with write_html, or a picture with plot_field"
        )
    mesh = as_mesh(mesh_or_data)
    found = find_values(mesh_or_data, mesh, values)
    ready = scene(mesh, view, theme.FIELD_PANEL)
    look: dict[str, Any] = {"color": theme.SOLID}
    surface = ready.surface.copy(deep=False)
    if found is not None:
        rows, association = per_row(mesh, found, "values")
        rows = magnitude(rows)
        scale = field_scale(rows)
        data = surface.point_data if association == "point" else surface.cell_data
        data["field"] = rows[ready.sources(association)]
        look = {"scalars": "field", "preference": association, "nan_color": theme.NAN}
        look |= {"cmap": scale.cmap, "clim": [scale.low, scale.high]}
        look |= {"scalar_bar_args": {"title": label or " ", "vertical": True, "color": theme.INK}}
    if ready.ball:
        look |= {"render_points_as_spheres": True, "style": "points"}
        look |= {"point_size": ready.ball / ready.frame.pixel}
    plotter = theme.import_pyvista().Plotter(title=title or "flare_geo")
    plotter.set_background(theme.BACKGROUND)
    plotter.enable_parallel_projection()
    plotter.add_mesh(surface, **look)
    if ready.outline.n_cells:
        plotter.add_mesh(ready.outline, color=theme.OUTLINE, line_width=1.5)
    frame = ready.frame
    plotter.camera.focal_point = frame.centre - ready.origin
    plotter.camera.position = frame.centre - ready.origin + 2 * surface.length * frame.towards
    plotter.camera.up = frame.up
    plotter.camera.parallel_scale = 0.55 * frame.size[1] * frame.pixel
    plotter.renderer.reset_camera_clipping_range()
    plotter.show()


def _has_display() -> bool:
    if not sys.platform.startswith("linux"):
        return True
    if os.environ.get("WAYLAND_DISPLAY") and not os.environ.get("DISPLAY"):
        return False  # VTK draws by X, which Wayland offers too where a DISPLAY is set
    if not os.environ.get("DISPLAY"):
        return False
    name = ctypes.util.find_library("X11")
    if name is None:
        return False
    try:
        x11 = ctypes.CDLL(name)  # VTK ends the process where the display does not answer
    except OSError:  # the cache of the loader knows it still
        return False
    x11.XOpenDisplay.restype = ctypes.c_void_p
    display = x11.XOpenDisplay(None)
    if display:
        x11.XCloseDisplay(ctypes.c_void_p(display))
    return bool(display)
