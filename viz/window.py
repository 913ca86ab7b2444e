"""A mesh that turns, in a window."""

import ctypes
import ctypes.util
import os
import sys
from typing import Any

from flare_geo.viz.field import plot_field
from flare_geo.viz.render import graphics, theme
from flare_geo.viz.render.camera import View


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
    plotter = theme.import_pyvista().Plotter(title=title or "flare_geo")
    plotter.set_background(theme.BACKGROUND)
    try:
        plot_field(mesh_or_data, values, label=label, view=view, plotter=plotter)
        plotter.camera.parallel_scale *= 1.1  # room around it
        plotter.show()
    finally:
        plotter.close()


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
