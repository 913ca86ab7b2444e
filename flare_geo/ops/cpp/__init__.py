"""FLARE on a CPU in C++: `flare_attention(backend="cpp")` and the residual chains.

Float32 only. The halves of the attention, which nothing on a CPU is in a hurry for, are those of
SDPA.
"""

from flare_geo.ops.cpp.attention import WIDTHS, attention
from flare_geo.ops.cpp.block import Weights, flare_block
from flare_geo.ops.cpp.build import library
from flare_geo.ops.cpp.chain import residual_chain
from flare_geo.ops.cpp.chain import supports as supports_chain
from flare_geo.ops.sdpa import decode, encode

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
