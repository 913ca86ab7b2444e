"""Errors of predicted fields and classes, cloud by cloud, and forces that follow from fields."""

from flare_geo.metrics.classification import accuracy, cross_entropy
from flare_geo.metrics.forces import force_coefficients, surface_force
from flare_geo.metrics.relative import max_error, r2_score, relative_l1, relative_l2
from flare_geo.metrics.running import RunningErrors

__all__ = [
    "RunningErrors",
    "accuracy",
    "cross_entropy",
    "force_coefficients",
    "max_error",
    "r2_score",
    "relative_l1",
    "relative_l2",
    "surface_force",
]
