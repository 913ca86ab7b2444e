"""Errors of predicted fields, cloud by cloud."""

from flare_geo.metrics.relative import max_error, r2_score, relative_l1, relative_l2

__all__ = ["max_error", "r2_score", "relative_l1", "relative_l2"]
