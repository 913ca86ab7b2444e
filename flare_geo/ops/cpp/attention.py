"""The C++ attention: calls of the kernels, and an operator of torch."""

from ctypes import c_float, c_int, c_int64
from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op

from flare_geo.ops.cpp.build import library, pointer
from flare_geo.ops.layout import Layout

WIDTHS = (4, 8, 16, 32)  # head widths D that there are kernels for


def attention_forward(
    q: Tensor, k: Tensor, v: Tensor, ptr: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`y [N, H, D]`, and for backward z `[B, H, M, D]`, lse `[B, H, M]`, r `[H, N]`; no gradient.

    All tensors are contiguous.
    """
    y, z, lse, r = _outputs(q, v, ptr)
    library().flare_attention_forward(
        *map(pointer, (q, k, v, ptr, y, z, lse, r)), *_sizes(q, k, ptr, scale)
    )
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
    dk: Tensor,
    dv: Tensor,
) -> Tensor:
    """The gradient of q; those of k and v are written into `dk` and `dv`."""
    dq = torch.empty_like(q)
    library().flare_attention_backward(
        *map(pointer, (dy, q, k, v, ptr, y, z, lse, r, dq, dk, dv)), *_sizes(q, k, ptr, scale)
    )
    return dq


def _outputs(q: Tensor, v: Tensor, ptr: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    points, heads, width = v.shape
    clouds, latents = ptr.shape[0] - 1, q.shape[-2]
    z = v.new_empty(clouds, heads, latents, width)
    return v.new_empty(v.shape), z, v.new_empty(z.shape[:3]), v.new_empty(heads, points)


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


def attention(q: Tensor, k: Tensor, v: Tensor, layout: Layout, scale: float) -> Tensor:
    """Encode, then decode: `y [N, H, D]`."""
    y: Tensor = attention_op(q, k, v, layout.ptr, scale)[0]
    return y


@custom_op("flare_geo::cpp_attention", mutates_args=())
def attention_op(
    q: Tensor, k: Tensor, v: Tensor, ptr: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """:func:`attention_forward`."""
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
    dk, dv = torch.empty_like(k), torch.empty_like(v)
    return attention_backward(dy, q, k, v, ptr, y, z, lse, r, scale, dk, dv), dk, dv


@attention_op.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, ptr: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _outputs(q, v, ptr)


@attention_backward_op.register_fake
def _(
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
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _keep(ctx, inputs, output):  # type: ignore[no-untyped-def]
    *tensors, ctx.scale = inputs
    ctx.save_for_backward(*tensors, *output)
    ctx.mark_non_differentiable(*output[1:])


def _gradient(ctx, dy, *_):  # type: ignore[no-untyped-def]
    return *attention_backward_op(dy, *ctx.saved_tensors, ctx.scale), None, None


attention_op.register_autograd(_gradient, setup_context=_keep)
