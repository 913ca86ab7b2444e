"""The attention kernels as operators of torch: shapes for the compiler, gradients for autograd.

Every operator takes `ptr` as a tensor and reads shapes only, so that one compiled graph serves all
sizes. Kept for backward are inputs, outputs and normalisers, never scores. Gradients have no
gradients of their own.
"""

import torch
from torch import Tensor
from torch.library import custom_op

from flare_geo.ops.operators import register_gradients
from flare_geo.ops.triton.backward import latents_backward, points_backward
from flare_geo.ops.triton.decode import decode
from flare_geo.ops.triton.encode import encode


@custom_op("flare_geo::encode", mutates_args=())
def encode_op(q: Tensor, k: Tensor, v: Tensor, ptr: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """`z [B, H, M, D]` and `lse [B, H, M]`."""
    with torch.cuda.device_of(k):  # type: ignore[no-untyped-call]
        return encode(q.contiguous(), _rows(k), _rows(v), ptr, scale)


@custom_op("flare_geo::encode_backward", mutates_args=())
def encode_backward_op(
    dz: Tensor | None,
    dlse: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    ptr: Tensor,
    z: Tensor,
    lse: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v."""
    wide = torch.zeros_like(z, dtype=torch.float32) if dz is None else dz.float().contiguous()
    inner = (wide * z).sum(-1)
    e = inner if dlse is None else inner - dlse
    with torch.cuda.device_of(k):  # type: ignore[no-untyped-call]
        dq, dk, dv = points_backward(
            q.contiguous(), _rows(k), ptr, scale, encoded=(_rows(v), wide, lse, e)
        )
    assert dv is not None
    return dq, dk, dv


@custom_op("flare_geo::decode", mutates_args=())
def decode_op(q: Tensor, k: Tensor, z: Tensor, ptr: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """`y [N, H, D]` and the normaliser r `[N, H]`."""
    with torch.cuda.device_of(k):  # type: ignore[no-untyped-call]
        return decode(q.contiguous(), _rows(k), z.contiguous(), ptr, scale)


@custom_op("flare_geo::decode_backward", mutates_args=())
def decode_backward_op(
    dy: Tensor,
    q: Tensor,
    k: Tensor,
    z: Tensor,
    ptr: Tensor,
    y: Tensor,
    r: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and z."""
    q, k, z, dy = q.contiguous(), _rows(k), z.contiguous(), dy.contiguous()
    with torch.cuda.device_of(k):  # type: ignore[no-untyped-call]
        dz, _ = latents_backward(q, k, z, dy, r, ptr, scale)
        dq, dk, _ = points_backward(q, k, ptr, scale, decoded=(z, y, dy, r))
    return dq, dk, dz.to(z.dtype)


@custom_op("flare_geo::attention", mutates_args=())
def attention_op(
    q: Tensor, k: Tensor, v: Tensor, ptr: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`y [N, H, D]`, and for backward z `[B, H, M, D]`, lse `[B, H, M]`, r `[N, H]`."""
    q, k = q.contiguous(), _rows(k)
    with torch.cuda.device_of(k):  # type: ignore[no-untyped-call]
        z, lse = encode(q, k, _rows(v), ptr, scale)
        y, r = decode(q, k, z, ptr, scale)
    return y, z, lse, r


@custom_op("flare_geo::attention_backward", mutates_args=())
def attention_backward_op(
    dy: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    ptr: Tensor,
    y: Tensor,
    z: Tensor,
    lse: Tensor,
    r: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v."""
    q, k, dy = q.contiguous(), _rows(k), dy.contiguous()
    with torch.cuda.device_of(k):  # type: ignore[no-untyped-call]
        dz, e = latents_backward(q, k, z, dy, r, ptr, scale)
        dq, dk, dv = points_backward(
            q, k, ptr, scale, encoded=(_rows(v), dz, lse, e), decoded=(z, y, dy, r)
        )
    assert dv is not None
    return dq, dk, dv


def _rows(x: Tensor) -> Tensor:
    """Views of a wider tensor pass as they are; one with the points innermost is copied.

    Strides are constants of the kernels: those of a view `[H, N, D]` would change with N.
    """
    return x if x.stride(0) >= x.stride(1) >= x.stride(2) == 1 else x.contiguous()


def _latent_shapes(q: Tensor, v: Tensor, ptr: Tensor) -> tuple[Tensor, Tensor]:
    shape = (ptr.shape[0] - 1, *q.shape[-3:])
    return v.new_empty(shape), v.new_empty(shape[:-1], dtype=torch.float32)


def _point_shapes(k: Tensor) -> tuple[Tensor, Tensor]:
    return k.new_empty(k.shape), k.new_empty(k.shape[:-1], dtype=torch.float32)


@encode_op.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, ptr: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    return _latent_shapes(q, v, ptr)


@decode_op.register_fake
def _(q: Tensor, k: Tensor, z: Tensor, ptr: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    return _point_shapes(k)


@attention_op.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, ptr: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    y, r = _point_shapes(k)
    z, lse = _latent_shapes(q, v, ptr)
    return y, z, lse, r


register_gradients(
    encode_op,
    encode_backward_op,
    decode_op,
    decode_backward_op,
    attention_op,
    attention_backward_op,
)
