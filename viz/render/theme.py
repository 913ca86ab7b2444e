"""Colours, lights, type sizes and panel sizes shared by all figures.

Nothing here runs at import. pyvista and matplotlib are imported by the function that needs them,
so `import flare_geo.viz` works without them and says what to install when a picture is asked for.
"""

from typing import Any

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
# How much of its colour a lit surface shows anyway, and how much by the lights: one without a
# field, and one with, whose colours must be found again on the bar.
PLAIN_LIGHT = {"ambient": 0.45, "diffuse": 0.55}
PAINTED_LIGHT = {"ambient": 0.62, "diffuse": 0.4}
EDGE_OPACITY = 0.35  # of the borders of faces
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


# Movies: smaller than pictures, as every frame costs.
MOVIE_PANEL = (720, 560)  # largest width, height, pixels

# Latents and modes of a model: many small panels.
WEIGHT = "BuPu"  # from nearly white, where a latent does not look
LATENT_PANEL = (460, 400)  # largest width, height, pixels


# Cuts, level surfaces, arrows and streamlines.
OUTLINE_WIDTH = 1.5  # of outlines, pixels
CURVE_WIDTH = 4.0  # of a surface's cuts and level lines, pixels
STREAM_WIDTH = 2.0
SEE_THROUGH = 0.12  # opacity of a body around what is inside it
LEVEL_OPACITY = 0.55  # of level surfaces, which lie inside each other
PEELS = 6  # layers of see-through faces that are sorted by depth
GALLERY_PANEL = (420, 380)  # of each mesh of a gallery
GALLERY_GAP = 28  # pixels between them
