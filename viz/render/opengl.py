"""Draw by VTK, which needs OpenGL: see `graphics.py` for whether there is any."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from flare_geo.mesh.quiet import vtk_messages
from flare_geo.viz.render import graphics, theme
from flare_geo.viz.render.items import FIELD, Eye, Item

if TYPE_CHECKING:
    import pyvista as pv


def paint_by_vtk(items: Sequence[Item], eye: Eye, samples: int) -> np.ndarray:
    """Draw the items; arguments and result are those of `painting.paint`."""
    width, height = (samples * side for side in eye.frame.size)
    with offscreen_plotter((width, height)) as plotter:
        middle = replace(eye.frame, centre=eye.centre)  # OpenGL has seven digits: stay near zero
        add_items(plotter, items, replace(eye, frame=middle, origin=np.zeros(3)), samples)
        return np.asarray(plotter.screenshot(None, return_img=True))[..., :3]


def add_items(
    plotter: "pv.Plotter",
    items: Sequence[Item],
    eye: Eye,
    samples: int = 1,
    *,
    label: str | None = None,
) -> None:
    """Add the items to the active renderer of a plotter and set its camera; nothing is rendered.

    Args:
        plotter: any pyvista plotter.
        items: the meshes of a picture.
        eye: the camera; the items are moved by its origin.
        samples: pixels of the plotter for each pixel of the finished picture, each way.
        label: title of a colour bar; None adds none.
    """
    barred = label is None
    bar: Any = {"title": label, "vertical": True, "color": theme.INK}
    for item in items:
        show_bar = not barred and not isinstance(item.paint, str)
        barred = barred or show_bar
        actor = plotter.add_mesh(
            item.mesh,
            show_scalar_bar=show_bar,
            scalar_bar_args=bar,
            copy_mesh=False,
            specular=0.0,
            lighting=item.lit,
            opacity=item.opacity,
            render=False,
            **_look(item, samples),
        )
        actor.position = eye.origin
    if any(item.opacity < 1 and item.mesh.GetNumberOfPolys() for item in items):
        plotter.renderer.enable_depth_peeling(theme.PEELS)
    centre = eye.frame.centre
    plotter.renderer.enable_parallel_projection()
    plotter.camera.focal_point = centre
    distance = 2 * eye.reach
    plotter.camera.position = centre + distance * eye.frame.towards
    plotter.camera.up = eye.frame.up
    plotter.camera.parallel_scale = 0.5 * eye.frame.size[1] * eye.frame.pixel
    plotter.renderer.reset_camera_clipping_range()
    if label is not None:  # room for what the caller adds
        plotter.camera.clipping_range = (0.01 * distance, 2 * distance)


@contextmanager
def offscreen_plotter(size: tuple[int, int]) -> "Iterator[pv.Plotter]":
    """Give an off-screen pyvista plotter of `size` (width, height) pixels and close it afterwards.

    It never opens a window and needs no display. VTK is told which of its render windows to use
    (see `graphics.window`) instead of trying X first, which warns on the terminal.

    Raises:
        ImportError: pyvista is not installed.
        RuntimeError: there is no OpenGL to draw with.

    Example::

        with offscreen_plotter((800, 600)) as plotter:
            plotter.add_mesh(mesh)
            image = plotter.screenshot(None, return_img=True)  # uint8 [600, 800, 3]
    """
    pv = theme.import_pyvista()
    name = graphics.window()
    if name is None:
        raise RuntimeError(graphics.NOTICE)
    chosen = {graphics.CHOICE: name} if name else {}
    with vtk_messages(), _environment({**graphics.QUIET, **chosen}):
        plotter = pv.Plotter(
            off_screen=True,
            notebook=False,
            window_size=list(size),
            theme=_plain_theme(),
            lighting="none",
        )
        try:
            plotter.disable_anti_aliasing()
            plotter.enable_parallel_projection()
            for position, intensity in theme.LIGHTS:
                plotter.add_light(
                    pv.Light(light_type="camera light", position=position, intensity=intensity)
                )
            yield plotter
        finally:
            plotter.close()


def _look(item: Item, samples: int) -> dict[str, Any]:
    """How pyvista is to draw an item, by the names of its options."""
    look: dict[str, Any]
    if isinstance(item.paint, str):
        look = {"color": item.paint, **theme.PLAIN_LIGHT}
    else:
        look = {"scalars": FIELD, "preference": item.association, "nan_color": theme.NAN}
        look |= {"cmap": item.paint.cmap, "clim": [item.paint.low, item.paint.high]}
        # Unlit colours are exactly those of the bar.
        look |= theme.PAINTED_LIGHT if item.lit else {"ambient": 1.0, "diffuse": 0.0}
    if item.ball:
        look |= {"style": "points", "render_points_as_spheres": True}
        look |= {"point_size": samples * item.ball}
    elif item.edges:
        look |= {"show_edges": True, "edge_color": theme.INK, "line_width": samples}
        look |= {"edge_opacity": theme.EDGE_OPACITY}
    else:
        look |= {"line_width": samples * item.width}
    return look | ({"interpolation": "gouraud"} if item.smooth else {})


def _plain_theme() -> Any:
    """A pyvista theme of our own, so that the user's global theme neither matters nor changes."""
    plain = theme.import_pyvista().themes.Theme()
    plain.background = theme.BACKGROUND
    plain.nan_color = theme.NAN
    plain.lighting = True
    plain.show_scalar_bar = False
    return plain


@contextmanager
def _environment(wanted: dict[str, str]) -> Iterator[None]:
    """Set environment variables that the user has not set, and take them away afterwards."""
    added = [name for name in wanted if name not in os.environ]
    os.environ.update({name: wanted[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
