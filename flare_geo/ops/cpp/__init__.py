"""FLARE on a CPU in C++, in float32: attention, residual chains, and a whole block."""

from flare_geo.ops.cpp.attention import attention, decode, encode
from flare_geo.ops.cpp.block import Weights, flare_block
from flare_geo.ops.cpp.build import library
from flare_geo.ops.cpp.chain import residual_chain
from flare_geo.ops.cpp.chain import supports as supports_chain
from flare_geo.ops.cpp.kernels import WIDTHS

__all__ = [
    "WIDTHS",
    "Weights",
    "attention",
    "decode",
    "encode",
    "flare_block",
    "library",
    "residual_chain",
    "supports_chain",
]
