"""The C++ attention as operators of torch."""

from torch import Tensor

from flare_geo.ops.cpp import kernels
from flare_geo.ops.operators import Kernels, attention_operators

encode, decode, attention, encode_op, decode_op, attention_op = attention_operators(
    "flare_geo::cpp_",
    Kernels(
        encode=kernels.encode,
        decode=kernels.decode,
        latents_backward=kernels.latents_backward,
        points_backward=kernels.points_backward,
        rows=Tensor.contiguous,
        empty_r=kernels.empty_r,
    ),
)
