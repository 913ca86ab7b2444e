"""Generators: the official file names and shapes, with data made here."""

from flare_geo.datasets.generators.elasticity import generate_elasticity

__all__ = ["generate_elasticity"]
