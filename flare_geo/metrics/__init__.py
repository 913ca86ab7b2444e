"""Errors of predicted fields, cloud by cloud, and the forces that follow from them."""

from flare_geo.metrics.forces import force_coefficients, surface_force
from flare_geo.metrics.relative import max_error, r2_score, relative_l1, relative_l2
from flare_geo.metrics.running import RunningErrors

__all__ = [
    "RunningErrors",
    "force_coefficients",
    "max_error",
    "r2_score",
    "relative_l1",
    "relative_l2",
    "surface_force",
]
