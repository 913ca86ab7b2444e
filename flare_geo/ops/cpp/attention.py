"""The C++ attention as operators of torch: shapes for the compiler, gradients for autograd."""

import torch
from torch import Tensor
from torch.library import custom_op

from flare_geo.ops.cpp import kernels
from flare_geo.ops.cpp.kernels import Decoded, Encoded
from flare_geo.ops.layout import Layout
from flare_geo.ops.operators import register_gradients


def encode(q: Tensor, k: Tensor, v: Tensor, layout: Layout, scale: float) -> tuple[Tensor, Tensor]:
    """Latents `z [B, H, M, D]` and their log-normalisers `lse [B, H, M]`."""
    z, lse = encode_op(q, k, v, layout.ptr, scale)
    return z, lse


def decode(q: Tensor, k: Tensor, z: Tensor, layout: Layout, scale: float) -> Tensor:
    """Point features `y [N, H, D]`."""
    y: Tensor = decode_op(q, k, z, layout.ptr, scale)[0]
    return y


def attention(q: Tensor, k: Tensor, v: Tensor, layout: Layout, scale: float) -> Tensor:
    """Encode, then decode: `y [N, H, D]`."""
    y: Tensor = attention_op(q, k, v, layout.ptr, scale)[0]
    return y


@custom_op("flare_geo::cpp_encode", mutates_args=())
def encode_op(q: Tensor, k: Tensor, v: Tensor, ptr: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """`z [B, H, M, D]` and `lse [B, H, M]`."""
    return kernels.encode(q.contiguous(), k.contiguous(), v.contiguous(), ptr, scale)


@custom_op("flare_geo::cpp_encode_backward", mutates_args=())
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
    dz = torch.zeros_like(z) if dz is None else dz.contiguous()
    inner = (z * dz).sum(-1)
    e = inner if dlse is None else inner - dlse
    encoded = Encoded(v.contiguous(), dz, lse, e)
    return kernels.points_backward(q.contiguous(), k.contiguous(), ptr, scale, encoded)


@custom_op("flare_geo::cpp_decode", mutates_args=())
def decode_op(q: Tensor, k: Tensor, z: Tensor, ptr: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """`y [N, H, D]` and the normaliser `r [H, N]`."""
    return kernels.decode(q.contiguous(), k.contiguous(), z.contiguous(), ptr, scale)


@custom_op("flare_geo::cpp_decode_backward", mutates_args=())
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
    dy, q, k, z = dy.contiguous(), q.contiguous(), k.contiguous(), z.contiguous()
    dz = kernels.latents_backward(q, k, dy, r, ptr, scale)
    dq, dk, _ = kernels.points_backward(q, k, ptr, scale, decoded=Decoded(z, y, dy, r))
    return dq, dk, dz


@custom_op("flare_geo::cpp_attention", mutates_args=())
def attention_op(
    q: Tensor, k: Tensor, v: Tensor, ptr: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`y [N, H, D]`, and for backward z `[B, H, M, D]`, lse `[B, H, M]`, r `[H, N]`."""
    return attention_forward(q.contiguous(), k.contiguous(), v.contiguous(), ptr, scale)


@custom_op("flare_geo::cpp_attention_backward", mutates_args=())
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
    dy, q, k, v = dy.contiguous(), q.contiguous(), k.contiguous(), v.contiguous()
    return attention_backward(dy, q, k, v, ptr, y, z, lse, r, scale)


def attention_forward(
    q: Tensor, k: Tensor, v: Tensor, ptr: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """y, z, lse and r of contiguous tensors; no gradient."""
    z, lse = kernels.encode(q, k, v, ptr, scale)
    y, r = kernels.decode(q, k, z, ptr, scale)
    return y, z, lse, r


def attention_backward(
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
    dk: Tensor | None = None,
    dv: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v of contiguous tensors; the last two into `dk` and `dv` if given."""
    dz = kernels.latents_backward(q, k, dy, r, ptr, scale)
    encoded = Encoded(v, dz, lse, (z * dz).sum(-1))
    return kernels.points_backward(q, k, ptr, scale, encoded, Decoded(z, y, dy, r), dk, dv)


def _latent_shapes(q: Tensor, ptr: Tensor) -> tuple[Tensor, Tensor]:
    z = q.new_empty(ptr.shape[0] - 1, *q.shape[-3:])
    return z, q.new_empty(z.shape[:3])


def _point_shapes(k: Tensor) -> tuple[Tensor, Tensor]:
    return k.new_empty(k.shape), k.new_empty(k.shape[1], k.shape[0])


encode_op.register_fake(lambda q, k, v, ptr, scale: _latent_shapes(q, ptr))
decode_op.register_fake(lambda q, k, z, ptr, scale: _point_shapes(k))
attention_op.register_fake(
    lambda q, k, v, ptr, scale: (
        _point_shapes(k)[0],
        *_latent_shapes(q, ptr),
        _point_shapes(k)[1],
    )
)
register_gradients(
    encode_op,
    encode_backward_op,
    decode_op,
    decode_backward_op,
    attention_op,
    attention_backward_op,
)
