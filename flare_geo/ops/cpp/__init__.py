"""FLARE on a CPU in C++, in float32: attention, residual MLPs, and a whole block."""

from flare_geo.ops.cpp.attention import attention, decode, encode
from flare_geo.ops.cpp.block import Weights, flare_block
from flare_geo.ops.cpp.build import library
from flare_geo.ops.cpp.kernels import WIDTHS
from flare_geo.ops.cpp.residual_mlp import ACTIVATIONS, residual_mlps

__all__ = [
    "ACTIVATIONS",
    "WIDTHS",
    "Weights",
    "attention",
    "decode",
    "encode",
    "flare_block",
    "library",
    "residual_mlps",
]
