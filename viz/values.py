"""What is painted: one number per point or cell, and the colour scale that belongs to it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from flare_geo.mesh.fields import to_numpy
from flare_geo.viz import theme

if TYPE_CHECKING:
    import pyvista as pv
    from matplotlib.colors import Colormap

Association = Literal["point", "cell"]


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

    def rgb(self, value: float) -> np.ndarray:
        """Colour of one value, uint8 `[3]`."""
        share = min(max((value - self.low) / (self.high - self.low), 0.0), 1.0)
        return np.round(255 * np.asarray(self.cmap(share))[:3]).astype(np.uint8)


def find_values(data: Any, mesh: "pv.DataSet", values: Any) -> Any:
    """Resolve `values`: None is `data.y` or the mesh's active array, a string is a name.

    Raises:
        ValueError: a name that neither the `Data` nor the mesh has.
    """
    if values is None:
        return getattr(data, "y", None) if data is not mesh else mesh.active_scalars
    if not isinstance(values, str):
        return values
    if data is mesh:
        if values in mesh.array_names:
            return mesh[values]
        names = mesh.array_names
    else:
        if getattr(data, values, None) is not None:
            return getattr(data, values)
        names = list(data.keys())
    raise ValueError(f"values: there is no field '{values}', only {sorted(names)}")


def per_row(mesh: "pv.DataSet", values: Any, name: str) -> tuple[np.ndarray, Association]:
    """Check one field against the mesh it is painted on.

    Returns:
        float64 `[n]` or `[n, 2|3]` with every non-finite value turned to NaN, and whether its
        rows are points or cells. Points win where the mesh has as many of both.

    Raises:
        ValueError: another number of rows, or columns that are neither a scalar nor a vector.
    """
    array = to_numpy(values, name).astype(np.float64)
    if len(array) not in (mesh.n_points, mesh.n_cells):
        raise ValueError(
            f"{name} must have one row per point ({mesh.n_points}) or per cell ({mesh.n_cells}), "
            f"got {len(array)}: are mesh and values of the same case?"
        )
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim > 2 or (array.ndim == 2 and array.shape[1] not in (2, 3)):
        raise ValueError(
            f"{name} must be a scalar [n] or a vector [n, 2|3], got {list(array.shape)}: "
            f"pass one column, such as {name}[:, 0]"
        )
    array = np.where(np.isfinite(array), array, np.nan)
    return array, "point" if len(array) == mesh.n_points else "cell"


def magnitude(array: np.ndarray) -> np.ndarray:
    """Length of each row of `[n, d]`; a scalar field `[n]` is returned as it is, sign and all."""
    return np.linalg.norm(array, axis=1) if array.ndim == 2 else array


def relative_l2(truth: np.ndarray, prediction: np.ndarray) -> float:
    """||prediction - truth|| / ||truth|| over all rows and columns; NaN if any value is NaN."""
    size = float(np.linalg.norm(truth))
    error = float(np.linalg.norm(prediction - truth))
    return error / size if size > 0 else (0.0 if error == 0 else float("inf"))


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
    slack = 0.01 * (high - low)  # a prediction that grazes an end is no news
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
