"""FLARE attention as Triton kernels: fused, split over the points, deterministic.

Reads `layout.ptr` and shapes only and never waits for the device. Runs on CUDA, and on a CPU under
`TRITON_INTERPRET=1` for tests. Nothing imports this package before a kernel is wanted.
"""

from torch import Tensor

from flare_geo.ops.layout import Layout
from flare_geo.ops.triton.autograd import attention_op, decode_op, encode_op


def encode(q: Tensor, k: Tensor, v: Tensor, layout: Layout, scale: float) -> tuple[Tensor, Tensor]:
    """Latents `z [B, H, M, D]` and their log-normalisers `lse [B, H, M]`."""
    z, lse = encode_op(q, k, v, layout.ptr, scale)
    return z, lse


def decode(q: Tensor, k: Tensor, z: Tensor, layout: Layout, scale: float) -> Tensor:
    """Point features `y [N, H, D]`."""
    y: Tensor
    y, _ = decode_op(q, k, z, layout.ptr, scale)
    return y


def attention(q: Tensor, k: Tensor, v: Tensor, layout: Layout, scale: float) -> Tensor:
    """Encode, then decode: `y [N, H, D]`."""
    y: Tensor
    y, *_ = attention_op(q, k, v, layout.ptr, scale)
    return y
