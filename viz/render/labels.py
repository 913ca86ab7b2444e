"""What is written beside a picture: numbers, units, ranges and the ticks of colour bars."""

import numpy as np

from flare_geo.viz.render import theme
from flare_geo.viz.render.colors import ColorScale


def ticks(scale: ColorScale) -> list[tuple[float, str]]:
    """Round values on a colour bar and their texts, without the bar's power of ten."""
    power = exponent(scale.size)
    locator = theme.import_matplotlib().ticker.MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10])
    slack = 1e-9 * (scale.high - scale.low)
    return [
        (float(value), f"{value / 10.0**power:.6g}".replace("-", "\N{MINUS SIGN}"))
        for value in locator.tick_values(scale.low, scale.high)
        if scale.low - slack <= value <= scale.high + slack
    ]


def exponent(size: float) -> int:
    """Power of ten, a multiple of three, that is taken out of numbers up to `size`; 0 if none."""
    if not 0 < size < np.inf or 1e-2 <= size < 1e4:
        return 0
    return 3 * int(np.floor(np.log10(size) / 3))


def split_label(label: str) -> tuple[str, str]:
    """Split a label into name and unit, "" if it has none: "stress [Pa]" into "stress", "Pa"."""
    if label.endswith("]") and "[" in label:
        name, unit = label[:-1].rsplit("[", 1)
        return name.rstrip(), unit
    return label, ""


def scaled_label(label: str, power: int) -> str:
    """Name the power of ten in front of the unit: "p [Pa]" with 6 is "p [10⁶ Pa]"."""
    if power == 0:
        return label
    name, unit = split_label(label)
    digits = str.maketrans("-0123456789", "\N{SUPERSCRIPT MINUS}⁰¹²³⁴⁵⁶⁷⁸⁹")
    ten = "10" + str(power).translate(digits)
    return f"{name} [{ten}{f' {unit}' if unit not in ('', '-', '1') else ''}]".lstrip()


def extremes(values: np.ndarray, scale: ColorScale, label: str = "") -> str:
    """The true range of a field in the unit of its bar, and how many values are not finite."""
    finite = values[np.isfinite(values)]
    missing = values.size - finite.size
    words = [f"{missing} of {values.size} values are not finite"] if missing else []
    if finite.size:
        power = exponent(scale.size)
        low, high = float(finite.min()) / 10.0**power, float(finite.max()) / 10.0**power
        unit = split_label(scaled_label(label, power))[1]
        spread = f"min {number(low, high)}    max {number(high, low)}"
        words = [f"{spread} [{unit}]" if unit else spread, *words]
    return "    ".join(words)


def with_component(label: str, component: str) -> str:
    """Add a component to a label, in front of the unit: "u [mm]" with "x" is "u, x [mm]"."""
    name, unit = split_label(label)
    name = f"{name}, {component}" if name else component
    return f"{name} [{unit}]" if unit else name


def error_label(label: str) -> str:
    """The label of an error of a field: its unit, and that it is an error."""
    unit = split_label(label)[1]
    return f"error [{unit}]" if unit else "error"


def percent(relative: float) -> str:
    """A relative error as a percentage with three significant digits."""
    return f"{100 * relative:.3g} %" if np.isfinite(relative) else "not finite"


def number(value: float, beside: float = 0.0) -> str:
    """Four significant digits; a value lost in rounding beside another one is 0."""
    value = 0.0 if abs(value) < 1e-6 * abs(beside) else value
    return f"{value:.4g}".replace("-", "\N{MINUS SIGN}")
