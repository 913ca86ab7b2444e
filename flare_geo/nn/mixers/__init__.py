"""The mixers that models can be built with, by name: one protocol, one file each.

Each is called `mixer(x, ptr=None, pos=None)`, x `[N, channels]` to `[N, channels]`, and made by
`Mixer(channels, heads=8, ...)` with options of its own. See README.md beside this file.
"""

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from flare_geo.nn.flare_conv import FlareConv
from flare_geo.nn.mixers.ema import EMAGatedAttention
from flare_geo.nn.mixers.flare_plus_plus import FlarePlusPlus, FlarePlusPlusPure
from flare_geo.nn.mixers.gnot import GNOTAttention
from flare_geo.nn.mixers.lamo import LatentMamba
from flare_geo.nn.mixers.linear import LinearAttention
from flare_geo.nn.mixers.linformer import Linformer
from flare_geo.nn.mixers.multilinear import MultilinearAttention
from flare_geo.nn.mixers.performer import Performer
from flare_geo.nn.mixers.physicsnemo_flare import PhysicsNeMoFlare
from flare_geo.nn.mixers.quad import QuadAttention
from flare_geo.nn.mixers.softmax import SoftmaxAttention
from flare_geo.nn.mixers.strassen import StrassenAttention
from flare_geo.nn.mixers.third_order import ThirdOrderAttention
from flare_geo.nn.mixers.transolver import PhysicsAttention
from flare_geo.nn.mixers.transolver_conv2d import PhysicsAttentionConv2d
from flare_geo.nn.mixers.transolver_plus import PhysicsAttentionPlus
from flare_geo.nn.mixers.triple import TripleAttention

MIXERS: dict[str, type[nn.Module]] = {
    "flare": FlareConv,
    "flare_plus_plus": FlarePlusPlus,
    "flare_plus_plus_pure": FlarePlusPlusPure,
    "softmax": SoftmaxAttention,
    "linformer": Linformer,
    "third_order": ThirdOrderAttention,
    "ema": EMAGatedAttention,
    "gnot": GNOTAttention,
    "linear": LinearAttention,
    "performer": Performer,
    "multilinear": MultilinearAttention,
    "triple": TripleAttention,
    "quad": QuadAttention,
    "strassen": StrassenAttention,
    "transolver": PhysicsAttention,
    "transolver_conv2d": PhysicsAttentionConv2d,
    "lamo": LatentMamba,
    "transolver_plus": PhysicsAttentionPlus,
    "physicsnemo_flare": PhysicsNeMoFlare,
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
