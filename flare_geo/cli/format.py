"""Numbers as a person reads them."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np


def percent(share: float) -> str:
    """A share in percent with three digits, so that a column of them is even."""
    if not np.isfinite(share):
        return "not finite"
    digits = f"{100 * share:,.0f}" if share >= 10 else f"{100 * share:#.3g}".rstrip(".")
    return f"{digits} %"


def figures(value: float) -> str:
    """Four significant digits, with a true minus sign."""
    return f"{value:#.4g}".rstrip(".").replace("-", "\N{MINUS SIGN}")


def count(n: int, thing: str) -> str:
    """A number and what it counts: "1 case", "2 cases"."""
    return f"{n:,} {thing}{'' if n == 1 else 's'}"


def rounded(value: float) -> str:
    """A large number with three significant digits: "165,000", "1.2 million"."""
    if not np.isfinite(value):
        return "-"
    value = float(f"{value:.3g}")
    return f"{value / 1e6:,.3g} million" if value >= 1e6 else f"{value:,.0f}"


def duration(seconds: float) -> str:
    """A time in the unit that suits it."""
    if seconds < 1:
        return f"{1000 * seconds:.3g} ms"
    if seconds < 120:
        return f"{seconds:.3g} s"
    hours, rest = divmod(round(seconds / 60), 60)
    return f"{hours} h {rest} min" if hours else f"{rest} min"


def as_text(value: Any) -> str:
    """A value of a configuration: text as it is, everything else as JSON."""
    if value is None:
        return "-"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def numeric_columns(rows: Sequence[Sequence[Any]]) -> list[bool]:
    """Whether each column of a table holds numbers only; the first one holds names."""
    return [i > 0 and all(map(_is_number, column)) for i, column in enumerate(zip(*rows))]


def _is_number(thing: Any) -> bool:
    words = str(thing).replace("\N{MINUS SIGN}", "-").replace(",", "").strip()
    if words in ("", "-"):
        return True
    try:
        float(words.split()[0].rstrip("%"))
    except (ValueError, IndexError):
        return False
    return True
