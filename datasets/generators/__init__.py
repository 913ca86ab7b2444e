"""Generators: the official file names and shapes, with data made here."""

from flare_geo.datasets.generators.darcy import generate_darcy
from flare_geo.datasets.generators.drivaerml import generate_drivaerml
from flare_geo.datasets.generators.elasticity import generate_elasticity
from flare_geo.datasets.generators.listops import generate_listops
from flare_geo.datasets.generators.lpbf import generate_lpbf

__all__ = [
    "generate_darcy",
    "generate_drivaerml",
    "generate_elasticity",
    "generate_listops",
    "generate_lpbf",
]
