"""The mixers that models can be built with, by name: one protocol, one file each.

Each is called `mixer(x, ptr=None, pos=None)`, x `[N, channels]` to `[N, channels]`, and made by
`Mixer(channels, heads=8, ...)` with options of its own. See README.md beside this file.
"""

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from flare_geo.nn.flare_conv import FlareConv

MIXERS: dict[str, type[nn.Module]] = {
    "flare": FlareConv,
}


def make_mixer(
    name: str, channels: int, heads: int, arguments: Mapping[str, Any] | None = None
) -> nn.Module:
    """The mixer of a name, with arguments of its own.

    Raises:
        ValueError: there is no such mixer, or it has no such argument; says which there are.
    """
    if name not in MIXERS:
        raise ValueError(f"mixer must be one of {', '.join(MIXERS)}, got '{name}'")
    cls, given = MIXERS[name], dict(arguments or {})
    own = [p for p in inspect.signature(cls).parameters if p not in ("in_channels", "heads")]
    own = [p for p in own if p not in ("channels", "out_channels")]
    for argument in given:
        if argument not in own:
            raise ValueError(f"mixer '{name}' takes {', '.join(own)}, got '{argument}'")
    return cls(channels, heads=heads, **given)
