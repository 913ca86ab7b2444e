"""Errors of a prediction that comes in pieces: sums, nothing is kept."""

import torch
from torch import Tensor


class RunningErrors:
    """The errors of `flare_geo.metrics` of one cloud, from some of its points at a time.

    Sums are in float64; the mean that R2 needs is taken about the first point, so that a field
    far from zero loses nothing.

    Shapes:
        - **pred, target:** `[n, C]`, C the same for every piece
    """

    def __init__(self) -> None:
        self.count = 0
        self.sums: dict[str, Tensor] = {}
        self.first: Tensor | None = None
        self.largest = 0.0

    def add(self, pred: Tensor, target: Tensor) -> None:
        """Take up some points."""
        if not len(target):
            return
        pred, target = pred.double(), target.double()
        self.first = target[0] if self.first is None else self.first
        error, spread = pred - target, target - self.first
        found = {
            "error2": error.square().sum(),
            "size2": target.square().sum(),
            "error1": error.abs().sum(),
            "size1": target.abs().sum(),
            "spread": spread.sum(dim=0),
            "spread2": spread.square().sum(),
        }
        self.sums = {key: value + self.sums.get(key, 0.0) for key, value in found.items()}
        self.largest = max(self.largest, float(error.abs().max()))
        self.count += len(target)

    @property
    def is_finite(self) -> bool:
        """Whether all targets were finite numbers."""
        return self.count == 0 or bool(torch.isfinite(self.sums["size1"]))

    @property
    def truth_is_zero(self) -> bool:
        """Whether all targets were zero: there are no relative errors then."""
        return self.count > 0 and not self.sums["size1"]

    def result(self) -> dict[str, float]:
        """`rel_l2`, `rel_l1`, `max_error` and `r2`, as the functions of these names give them.

        Raises:
            ValueError: there was no point.
        """
        if self.count == 0:
            raise ValueError("no points were added: there are no errors to tell")
        s = self.sums
        tiny = torch.finfo(torch.float64).tiny
        variance = s["spread2"] - s["spread"].square().sum() / self.count
        return {
            "rel_l2": float((s["error2"] / s["size2"].clamp(min=tiny)).sqrt()),
            "rel_l1": float(s["error1"] / s["size1"].clamp(min=tiny)),
            "max_error": self.largest,
            "r2": float(1 - s["error2"] / variance.clamp(min=tiny)),
        }
