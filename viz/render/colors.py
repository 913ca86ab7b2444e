"""Colour scales: how the numbers of a field, or of an error, become colours."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from flare_geo.viz.render import theme

if TYPE_CHECKING:
    from matplotlib.colors import Colormap


@dataclass(frozen=True)
class ColorScale:
    """Numbers to colours: `low` and `high` are the ends of the colour bar, in the field's unit.

    `below` and `above` say whether values lie beyond an end: the bar is then pointed there.
    """

    low: float
    high: float
    cmap: "Colormap"
    below: bool = False
    above: bool = False

    @property
    def size(self) -> float:
        """The larger size of the two ends."""
        return max(abs(self.low), abs(self.high))

    def rgb(self, value: float) -> np.ndarray:
        """Colour of one value, uint8 `[3]`."""
        share = min(max((value - self.low) / (self.high - self.low), 0.0), 1.0)
        return np.round(255 * np.asarray(self.cmap(share))[:3]).astype(np.uint8)


def field_scale(
    values: np.ndarray,
    *,
    clim: Sequence[float] | None = None,
    cmap: "str | Colormap | None" = None,
    also: np.ndarray | None = None,
) -> ColorScale:
    """Colour scale of a field `[n]`.

    A field of one sign is sequential from its smallest to its largest value. A field of both
    signs is diverging: zero has the middle colour and both sides the same colour per unit, so the
    bar of a lopsided field shows the part of the map that its values reach. A few extreme values
    (beyond the 0.5 to 99.5 percentiles and 1.5 times that range) are clipped: pointed bar ends.

    Args:
        values: the field that sets the range, NaN ignored.
        clim: explicit (low, high) instead.
        cmap: explicit colour map instead; laid from end to end, zero has no special place.
        also: another field drawn with this scale, for the pointed ends only.

    Raises:
        ValueError: `clim` is not two increasing finite numbers, or `cmap` is unknown.
    """
    low, high = _range(values) if clim is None else _checked(clim)
    slack = 0.01 * (high - low)  # a prediction that grazes an end does not go beyond it
    seen = values if also is None else np.concatenate([values, also])
    seen = seen[np.isfinite(seen)]
    below = bool(np.any(seen < low - slack))
    above = bool(np.any(seen > high + slack))
    if cmap is not None:
        return ColorScale(low, high, _colormap(cmap), below, above)
    if low >= -0.02 * high or high <= -0.02 * low:  # one sign, up to noise around zero
        return ColorScale(low, high, _colormap(theme.SEQUENTIAL), below, above)
    reach = max(-low, high)
    part = np.linspace(0.5 + 0.5 * low / reach, 0.5 + 0.5 * high / reach, 256)
    colors = _colormap(theme.DIVERGING)(part)
    cut = theme.import_matplotlib().colors.ListedColormap(colors, name=theme.DIVERGING)
    return ColorScale(low, high, cut, below, above)


def error_scale(
    error: np.ndarray, *, signed: bool, limit: float | None = None, size: float = 1.0
) -> ColorScale:
    """Colour scale of an error `[n]`: symmetric around zero if `signed`, else from zero up.

    Args:
        error: prediction - truth, or its magnitude for vectors; NaN ignored.
        signed: whether `error` has a sign.
        limit: explicit end of the bar, in the field's unit.
        size: size of the truth; an error of exactly zero is shown on a bar of 1 % of it.
    """
    high = limit
    if high is None:
        _, high = _range(np.abs(error), widen=False)
        high = high if high > 0 else 0.01 * (size or 1.0)
    finite = error[np.isfinite(error)]
    above = bool(np.any(finite > 1.01 * high))
    if not signed:
        return ColorScale(0.0, high, _colormap(theme.ERROR_MAGNITUDE), False, above)
    below = bool(np.any(finite < -1.01 * high))
    return ColorScale(-high, high, _colormap(theme.ERROR), below, above)


def _range(values: np.ndarray, widen: bool = True) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return 0.0, 1.0
    low, high = float(finite.min()), float(finite.max())
    inner_low, inner_high = np.quantile(finite, [0.005, 0.995]).tolist()
    inner = inner_high - inner_low
    if inner > 0:
        low = inner_low if inner_low - low > 0.5 * inner else low
        high = inner_high if high - inner_high > 0.5 * inner else high
    if widen and high - low <= 1e-9 * max(abs(low), abs(high)):  # constant up to rounding
        middle = 0.5 * (low + high)
        if middle == 0:
            return 0.0, 1.0
        return middle - 0.05 * abs(middle), middle + 0.05 * abs(middle)
    return low, high


def _checked(clim: Sequence[float]) -> tuple[float, float]:
    try:
        low, high = (float(end) for end in clim)
    except (TypeError, ValueError):
        low, high = np.nan, np.nan
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise ValueError(f"clim must be two finite numbers (low, high), low < high, got {clim}")
    return low, high


def _colormap(cmap: "str | Colormap") -> "Colormap":
    matplotlib = theme.import_matplotlib()
    if not isinstance(cmap, str):
        return cmap
    if cmap not in matplotlib.colormaps:
        raise ValueError(f"cmap must name a matplotlib colour map such as 'viridis', got '{cmap}'")
    return matplotlib.colormaps[cmap]
