"""All taste in one place: colours, type sizes, panel sizes, and how an off-screen plotter is made.

Nothing here runs at import. pyvista and matplotlib are imported by the function that needs them,
so `import flare_geo.viz` works without them and says what to install when a picture is asked for.
"""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyvista as pv

# Colour maps by quantity. All are perceptually ordered and safe for colour-blind readers.
SEQUENTIAL = "viridis"  # fields of one sign: stress, speed, magnitudes
DIVERGING = "RdBu_r"  # fields of both signs: pressure, a displacement component; centred at zero
ERROR = "PuOr_r"  # prediction - truth: centred at zero, never mistaken for a field
ERROR_MAGNITUDE = "magma_r"  # |prediction - truth| of vectors: white where it is right

BACKGROUND = "#ffffff"
NAN = "#ff00c8"  # in none of the maps: a value that is not a number must be seen
SOLID = "#d5dae1"  # geometry without a field
INK = "#1b1f24"
SOFT_INK = "#69707a"
OUTLINE = "#1b1f24"
UNDEFORMED = "#69707a"

FONT = "DejaVu Sans"  # comes with matplotlib, so a page looks the same on every machine
DPI = 200
TITLE_SIZE, LABEL_SIZE, SMALL_SIZE = 11.0, 9.0, 7.5  # points

FIELD_PANEL = (1400, 1000)  # largest width, height of the one panel of `plot_field`, pixels
COMPARE_PANEL = (760, 700)  # of each panel of `plot_comparison`
SMALLEST_PANEL = 320  # no side of a panel is shorter
PADDING = 4  # pixels around the mesh in its panel

ISOMETRIC = (1.0, -1.25, 0.8)  # towards the eye: x to the right, z up, y away
FEATURE_ANGLE = 30.0  # degrees between faces at which an edge is drawn and not smoothed over
MOST_OUTLINE = 60.0  # draw feature edges up to this total length, in bounding-box diagonals
SAMPLES = 2  # a picture is drawn this many times larger and averaged, for smooth edges
# White lights that go with the camera (it is at (0, 0, 1) and sees the origin): position, strength.
LIGHTS = (((0.8, 1.0, 0.7), 0.8), ((-0.4, -0.1, 1.0), 0.4))
# Lines and points of plots, in this order (Okabe and Ito, safe for colour-blind readers).
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#69707a")
INSTALL = 'this picture needs pyvista and matplotlib: pip install "flare-geo[viz]"'


def import_pyvista() -> Any:
    """Return the pyvista module, or say in one line what to install.

    Raises:
        ImportError: pyvista is not installed.
    """
    try:
        import pyvista
    except ModuleNotFoundError as error:
        raise ImportError(INSTALL) from error
    return pyvista


def import_matplotlib() -> Any:
    """Return the matplotlib module with its Agg canvas, figure and colour modules loaded.

    pyplot stays out: it keeps figures in global state and may choose a windowing backend.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        import matplotlib
        import matplotlib.backends.backend_agg
        import matplotlib.colors
        import matplotlib.figure
        import matplotlib.image
        import matplotlib.ticker
    except ModuleNotFoundError as error:
        raise ImportError(INSTALL) from error
    return matplotlib


@contextmanager
def offscreen_plotter(size: tuple[int, int]) -> "Iterator[pv.Plotter]":
    """Give an off-screen pyvista plotter of `size` (width, height) pixels and close it afterwards.

    It never opens a window and needs no display. On Linux VTK is told which of its render windows
    to use (see `render_window_name`) instead of trying X first, which warns on the terminal.

    Raises:
        ImportError: pyvista is not installed.
        RuntimeError: there is no OpenGL to draw with.

    Example::

        with offscreen_plotter((800, 600)) as plotter:
            plotter.add_mesh(mesh)
            image = plotter.screenshot(None, return_img=True)  # uint8 [600, 800, 3]
    """
    pv = import_pyvista()
    name = render_window_name()
    before = os.environ.get("VTK_DEFAULT_OPENGL_WINDOW")
    if name is not None:
        os.environ["VTK_DEFAULT_OPENGL_WINDOW"] = name
    try:
        plotter = pv.Plotter(
            off_screen=True,
            notebook=False,
            window_size=list(size),
            theme=_plain_theme(),
            lighting="none",
        )
    finally:
        if name is not None and before is None:
            del os.environ["VTK_DEFAULT_OPENGL_WINDOW"]
    try:
        plotter.disable_anti_aliasing()
        plotter.enable_parallel_projection()
        for position, intensity in LIGHTS:
            plotter.add_light(
                pv.Light(light_type="camera light", position=position, intensity=intensity)
            )
        yield plotter
    finally:
        plotter.close()


def _plain_theme() -> Any:
    """A pyvista theme of our own, so that the user's global theme neither matters nor changes."""
    theme = import_pyvista().themes.Theme()
    theme.background = BACKGROUND
    theme.nan_color = NAN
    theme.lighting = True
    theme.show_scalar_bar = False
    return theme


@cache
def render_window_name() -> str | None:
    """Choose VTK's render window class for off-screen pictures, once per process.

    On Linux: what the user set in `VTK_DEFAULT_OPENGL_WINDOW`, else EGL (GPU or Mesa's software
    renderer), else OSMesa, else X where a display answers. Elsewhere VTK's own choice is right.

    Returns:
        The name of a VTK class, or None to leave the choice to VTK.

    Raises:
        RuntimeError: none of them works; VTK itself would end the process with a fault.
    """
    if not sys.platform.startswith("linux") or "VTK_DEFAULT_OPENGL_WINDOW" in os.environ:
        return None
    import_pyvista()
    from vtkmodules import vtkRenderingOpenGL2

    def works(name: str) -> bool:
        window = getattr(vtkRenderingOpenGL2, name, lambda: None)()
        if window is None:
            return False
        window.SetOffScreenRendering(1)
        return bool(window.SupportsOpenGL())

    with _quiet_vtk():
        if works("vtkEGLRenderWindow"):
            return "vtkEGLRenderWindow"
        if _has_library("libOSMesa.so.8", "libOSMesa.so.6", "libOSMesa.so"):
            return "vtkOSOpenGLRenderWindow"
        if os.environ.get("DISPLAY") and works("vtkXOpenGLRenderWindow"):
            return "vtkXOpenGLRenderWindow"
    raise RuntimeError(
        "no OpenGL to draw with: install EGL or OSMesa "
        "(Debian, Ubuntu: apt-get install libegl1 libgl1-mesa-dri)"
    )


@contextmanager
def _quiet_vtk() -> Iterator[None]:
    """Keep VTK's messages off the terminal while render windows are tried out."""
    from vtkmodules.vtkCommonCore import vtkLogger

    before = vtkLogger.GetCurrentVerbosityCutoff()
    vtkLogger.SetStderrVerbosity(vtkLogger.VERBOSITY_OFF)
    try:
        yield
    finally:
        vtkLogger.SetStderrVerbosity(before)


def _has_library(*names: str) -> bool:
    for name in names:
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        return True
    return False


# Movies: smaller than pictures, as every frame costs.
MOVIE_PANEL = (720, 560)  # largest width, height, pixels

# Latents and modes of a model: many small panels.
WEIGHT = "BuPu"  # from nearly white, where a latent does not look
LATENT_PANEL = (460, 400)  # largest width, height, pixels


# Cuts, level surfaces, arrows and streamlines.
CURVE_WIDTH = 4.0  # of a surface's cuts and level lines, pixels
STREAM_WIDTH = 2.0
SEE_THROUGH = 0.12  # opacity of a body around what is inside it
LEVEL_OPACITY = 0.55  # of level surfaces, which lie inside each other
PEELS = 6  # layers of see-through faces that are sorted by depth
GALLERY_PANEL = (420, 380)  # of each part of a gallery
GALLERY_GAP = 28  # pixels between the parts
