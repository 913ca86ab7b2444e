"""The mixers that models can be built with, by name: one protocol, one file each.

Each is called `mixer(x, ptr=None, pos=None)`, x `[N, channels]` to `[N, channels]`, and made by
`Mixer(channels, heads=8, ...)` with options of its own. See README.md beside this file.
"""

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from flare_geo.nn.attention import SoftmaxAttention
from flare_geo.nn.flare.causal import CausalFlareConv
from flare_geo.nn.flare.conv import FlareConv
from flare_geo.nn.flare.heads import FlareHeads
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
from flare_geo.nn.mixers.strassen import StrassenAttention
from flare_geo.nn.mixers.third_order import ThirdOrderAttention
from flare_geo.nn.mixers.transolver import PhysicsAttention
from flare_geo.nn.mixers.transolver_conv2d import PhysicsAttentionConv2d
from flare_geo.nn.mixers.transolver_plus import PhysicsAttentionPlus
from flare_geo.nn.mixers.triple import TripleAttention

MIXERS: dict[str, type[nn.Module]] = {
    "flare": FlareConv,
    "flare_causal": CausalFlareConv,
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

FLARE: dict[str, type[FlareHeads]] = {"flare": FlareConv, "flare_causal": CausalFlareConv}
"""The mixers that are made of built parts, from the options of a model."""


def make_mixer(
    name: str, channels: int, heads: int, arguments: Mapping[str, Any] | None = None
) -> nn.Module:
    """The mixer of a name, with arguments of its own that JSON can hold.

    Raises:
        ValueError: there is no such mixer, or it has no such argument; says which there are.
    """
    given = dict(arguments or {})
    if name == "flare" and given.pop("causal", False):  # as older checkpoints have it
        name = "flare_causal"
    _check(name)
    takes = FLARE[name].options if name in FLARE else _options_of(MIXERS[name])
    for argument in given:
        if argument not in takes:
            raise ValueError(f"mixer '{name}' takes {', '.join(takes)}, got '{argument}'")
    if name in FLARE:
        return FLARE[name].from_options(channels, heads, given)
    return MIXERS[name](channels, heads=heads, **given)


def refuse_unused(mixer: str, options: Mapping[str, Any], usual: Mapping[str, Any]) -> None:
    """Refuse options of FLARE that a model was given beside another mixer.

    Raises:
        ValueError: if there is no such mixer, or an option has another value than the usual one.
    """
    _check(mixer)
    given = [f"{name}={options[name]}" for name, value in usual.items() if options[name] != value]
    if given:
        raise ValueError(
            f"{', '.join(given)}: without effect beside mixer '{mixer}', for {' and '.join(FLARE)} "
            "only; leave them out, or put what the mixer takes into mixer_args"
        )


def _check(name: str) -> None:
    if name not in MIXERS:
        raise ValueError(f"mixer must be one of {', '.join(MIXERS)}, got '{name}'")


def _options_of(cls: type[nn.Module]) -> list[str]:
    names = inspect.signature(cls).parameters
    return [name for name in names if name not in ("channels", "heads")]
