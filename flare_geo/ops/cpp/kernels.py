"""Calls of the C++ attention on contiguous float32 tensors; no gradients here.

Shapes: q `[H, M, D]` or `[B, H, M, D]`; k, v, y `[N, H, D]`; z `[B, H, M, D]`; lse `[B, H, M]`;
r `[H, N]`; ptr `[B+1]` int64.
"""

from ctypes import c_float, c_int, c_int64
from typing import Any

import torch
from torch import Tensor

from flare_geo.ops.cpp.build import library, pointer
from flare_geo.ops.operators import Decoded, Encoded

WIDTHS = (4, 8, 16, 32)  # head widths D that there are kernels for


def encode(q: Tensor, k: Tensor, v: Tensor, ptr: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Latents z and their log-normalisers lse."""
    z = v.new_empty(ptr.shape[0] - 1, *q.shape[-3:])
    lse = z.new_empty(z.shape[:3])
    library().flare_encode(*map(pointer, (q, k, v, ptr, z, lse)), *_sizes(q, k, ptr, scale))
    return z, lse


def decode(q: Tensor, k: Tensor, z: Tensor, ptr: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Point features y and their log-normalisers r."""
    y, r = torch.empty_like(k), empty_r(k)
    library().flare_decode(*map(pointer, (q, k, z, ptr, y, r)), *_sizes(q, k, ptr, scale))
    return y, r


def empty_r(k: Tensor) -> Tensor:
    """Room for the normaliser r of the decode."""
    return k.new_empty(k.shape[1], k.shape[0])


def latents_backward(
    q: Tensor, k: Tensor, z: Tensor, dy: Tensor, r: Tensor, ptr: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """The gradient of z, and its inner products with z."""
    dz = torch.empty_like(z)
    library().flare_latents_backward(
        *map(pointer, (q, k, dy, r, ptr, dz)), *_sizes(q, k, ptr, scale)
    )
    return dz, (z * dz).sum(-1)


def points_backward(
    q: Tensor,
    k: Tensor,
    ptr: Tensor,
    scale: float,
    encoded: Encoded | None = None,
    decoded: Decoded | None = None,
    dk: Tensor | None = None,
    dv: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v through either half or both; `dk` and `dv` may be given to write to.

    That of v is not written without `encoded`.
    """
    dq = torch.empty_like(q)
    dk = torch.empty_like(k) if dk is None else dk
    dv = torch.empty_like(k) if dv is None else dv
    through = (*(encoded or (None,) * 4), *(decoded or (None,) * 4))
    library().flare_points_backward(
        *map(pointer, (q, k, ptr, *through, dq, dk, dv)), *_sizes(q, k, ptr, scale)
    )
    return dq, dk, dv


def _sizes(q: Tensor, k: Tensor, ptr: Tensor, scale: float) -> tuple[Any, ...]:
    points, heads, width = k.shape
    return (
        c_int64(points),
        c_int64(ptr.shape[0] - 1),
        c_int(heads),
        c_int(q.shape[-2]),
        c_int(width),
        c_int(q.ndim == 4),
        c_float(scale),
        c_int(torch.get_num_threads()),
    )
