"""Pictures of fields on meshes: paint a prediction back onto the geometry it belongs to.

Every function takes a PyG `Data` (or a pyvista mesh) and arrays, never a model, draws off-screen
on any machine, returns the picture as uint8 `[height, width, 3]` and writes it where `path` says.

Needs pyvista and matplotlib, which are imported when a picture is made:
`pip install "flare-geo[viz]"`.
"""

from flare_geo.mesh import from_pyvista, to_pyvista
from flare_geo.viz.charts.curves import plot_learning_curves
from flare_geo.viz.charts.histograms import plot_error_histogram, plot_histograms
from flare_geo.viz.charts.points import (
    plot_error_against_size,
    plot_parity,
    plot_scaling,
)
from flare_geo.viz.charts.spectra import plot_spectra
from flare_geo.viz.compare import Comparison, plot_comparison, plot_comparison_grid
from flare_geo.viz.displacement import plot_displacement
from flare_geo.viz.field import plot_field
from flare_geo.viz.gallery import plot_gallery
from flare_geo.viz.html.viewer import write_comparison_html, write_html
from flare_geo.viz.isosurface import plot_isosurfaces
from flare_geo.viz.latents import plot_eigenmodes, plot_latents
from flare_geo.viz.movie.movie import animate, orbit
from flare_geo.viz.slices import plot_clip, plot_slice
from flare_geo.viz.vectors import plot_streamlines, plot_vectors
from flare_geo.viz.window import show

__all__ = [
    "Comparison",
    "animate",
    "from_pyvista",
    "orbit",
    "plot_clip",
    "plot_comparison",
    "plot_comparison_grid",
    "plot_displacement",
    "plot_eigenmodes",
    "plot_error_against_size",
    "plot_error_histogram",
    "plot_field",
    "plot_gallery",
    "plot_histograms",
    "plot_isosurfaces",
    "plot_latents",
    "plot_learning_curves",
    "plot_parity",
    "plot_scaling",
    "plot_slice",
    "plot_spectra",
    "plot_streamlines",
    "plot_vectors",
    "show",
    "to_pyvista",
    "write_comparison_html",
    "write_html",
]
