"""What keeps a case from being packed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from flare_geo.datasets.store.reader import CONNECTIVITY, RESERVED
from flare_geo.pyg import Data


class Fault(NamedTuple):
    """A case that cannot be packed, and why."""

    case: str
    reason: str


def find_fault(data: Data, widths: Mapping[str, int]) -> str | None:
    """What keeps a case from being packed, in a few words; None if nothing does.

    Args:
        data: The case: ``pos [n, d]`` and ``name``, then ``x [n, f]``, ``y [n, c]``,
            ``face [3, f]``, ``cells [m, k]``, other arrays ``[n, .]`` per point or ``[1, g]`` per
            case.
        widths: Number of channels of each array that must be there.
    """
    if not isinstance(data.get("name"), str):
        return "'name' is missing or not a str"
    for key in ("pos", *widths):
        if key not in data:
            return f"field '{key}' is missing"
    n = data["pos"].shape[0]
    for key, value in data.to_dict().items():
        if key == "name":
            continue
        if key in (*RESERVED, "order", "ptr", "batch"):
            return f"field '{key}' has a name that is kept for the store"
        if not isinstance(value, Tensor):
            return f"field '{key}' is a {type(value).__name__}, only tensors can be packed"
        shape = f"has shape {list(value.shape)}"
        if value.dim() != 2:
            return f"field '{key}' {shape}, expected two dimensions"
        if key in CONNECTIVITY:
            if value.dtype != torch.int64 or (key == "face" and value.shape[0] != 3):
                wanted = "[3, f]" if key == "face" else "[m, k]"
                return f"field '{key}' {shape} and is {value.dtype}, expected {wanted} torch.int64"
            outside = (value < 0) | (value >= n)
            if outside.any():
                return f"field '{key}' names point {int(value[outside][0])}, there are {n}"
            continue
        if key in ("pos", "x", "y"):
            if value.dtype != torch.float32:
                return f"field '{key}' is {value.dtype}, expected torch.float32"
            if value.shape[0] != n:
                return f"field '{key}' has {value.shape[0]} rows, 'pos' has {n}"
        elif value.shape[0] not in (1, n):
            return f"field '{key}' has {value.shape[0]} rows, expected {n} (per point) or 1"
        if value.shape[1] != widths.get(key, value.shape[1]):
            return f"field '{key}' has {value.shape[1]} channels, expected {widths[key]}"
        if not value.isfinite().all():
            bad = (~value.isfinite()).any(dim=1).nonzero()
            count = int((~value.isfinite()).sum())
            return f"field '{key}' holds {count} non-finite values (first at point {int(bad[0])})"
    return None


def name_faults(faults: Sequence[Fault], most: int = 5) -> str:
    """How many cases are not sound, and which: ``"2 cases are not sound: a: ...; b: ..."``."""
    shown = "; ".join(f"{f.case}: {f.reason}" for f in faults[:most])
    more = f"; and {len(faults) - most} more" if len(faults) > most else ""
    number = "1 case is" if len(faults) == 1 else f"{len(faults)} cases are"
    return f"{number} not sound: {shown}{more}"
