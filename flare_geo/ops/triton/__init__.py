"""FLARE attention as Triton kernels: fused, split over the points, deterministic.

Reads `layout.ptr` and shapes only and never waits for the device. Runs on CUDA, and on a CPU under
`TRITON_INTERPRET=1` for tests. Nothing imports this package before a kernel is wanted.
"""

from flare_geo.ops.triton.attention import attention, decode, encode

__all__ = ["attention", "decode", "encode"]
