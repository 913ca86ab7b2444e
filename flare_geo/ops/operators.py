"""FLARE attention as operators of torch, from any set of kernels: shapes and gradients.

Each set of kernels has these operators; a backward one takes the gradients of what is
differentiable, then the tensors that its forward one took and gave, then the scale:

    encode(q, k, v, ptr, scale) -> z, lse
    decode(q, k, z, ptr, scale) -> y, r
    attention(q, k, v, ptr, scale) -> y, z, lse, r

`lse` is differentiable, `r` is not; one of dz and dlse may be None. Every operator takes `ptr` as a
tensor and reads shapes only, so that one compiled graph serves all sizes. Kept for backward are
inputs, outputs and normalisers, never scores. Gradients have no gradients of their own.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.library import CustomOpDef, custom_op

from flare_geo.ops.layout import Layout


class Encoded(NamedTuple):
    """What the gradients through the encode are computed from; e is `z . dz - dlse`."""

    v: Tensor
    dz: Tensor
    lse: Tensor
    e: Tensor


class Decoded(NamedTuple):
    """What the gradients through the decode are computed from."""

    z: Tensor
    y: Tensor
    dy: Tensor
    r: Tensor


class Kernels(NamedTuple):
    """A set of kernels: functions without gradients. k and v come from `rows`, others contiguous.

    Shapes: q `[H, M, D]` or `[B, H, M, D]`; k, v, y `[N, H, D]`; z, dz `[B, H, M, D]`; lse, e
    `[B, H, M]`; ptr `[B+1]`; r as the kernels like it.
    """

    encode: Callable[..., tuple[Tensor, Tensor]]  # q, k, v, ptr, scale -> z, lse
    decode: Callable[..., tuple[Tensor, Tensor]]  # q, k, z, ptr, scale -> y, r
    latents_backward: Callable[..., tuple[Tensor, Tensor]]
    """q, k, z, dy, r, ptr, scale -> dz in float32, and `z . dz`."""
    points_backward: Callable[..., tuple[Tensor, Tensor, Tensor | None]]
    """q, k, ptr, scale, encoded=, decoded= -> dq, dk, dv; dv only through the encode."""
    rows: Callable[[Tensor], Tensor]  # points `[N, H, D]` as the kernels read them
    empty_r: Callable[[Tensor], Tensor]  # room for r, from k


Pair = Callable[[Tensor, Tensor, Tensor, Layout, float], tuple[Tensor, Tensor]]
Single = Callable[[Tensor, Tensor, Tensor, Layout, float], Tensor]


class Operators(NamedTuple):
    """The three functions of a backend, and the operators that they call."""

    encode: Pair
    decode: Single
    attention: Single
    encode_op: CustomOpDef
    decode_op: CustomOpDef
    attention_op: CustomOpDef


def attention_operators(prefix: str, kernels: Kernels) -> Operators:
    """Register the operators of a set of kernels as `prefix` + encode, decode, attention.

    Args:
        prefix: namespace and begin of the names, such as ``"flare_geo::cpp_"``.
        kernels: what computes.
    """
    encode_op = _encode_operator(prefix, kernels)
    decode_op = _decode_operator(prefix, kernels)
    attention_op = _attention_operator(prefix, kernels)

    def encode(
        q: Tensor, k: Tensor, v: Tensor, layout: Layout, scale: float
    ) -> tuple[Tensor, Tensor]:
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

    return Operators(encode, decode, attention, encode_op, decode_op, attention_op)


def _encode_operator(prefix: str, kernels: Kernels) -> CustomOpDef:
    rows = kernels.rows

    @custom_op(f"{prefix}encode", mutates_args=())
    def encode(q: Tensor, k: Tensor, v: Tensor, ptr: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        return kernels.encode(q.contiguous(), rows(k), rows(v), ptr, scale)

    @custom_op(f"{prefix}encode_backward", mutates_args=())
    def backward(
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
        wide = torch.zeros_like(z, dtype=torch.float32) if dz is None else dz.float().contiguous()
        inner = (wide * z).sum(-1)
        encoded = Encoded(rows(v), wide, lse, inner if dlse is None else inner - dlse)
        dq, dk, dv = kernels.points_backward(q.contiguous(), rows(k), ptr, scale, encoded=encoded)
        assert dv is not None
        return dq, dk, dv

    def gradient(ctx: Any, dz: Tensor | None, dlse: Tensor | None) -> tuple[Any, ...]:
        if dz is None and dlse is None:
            return None, None, None, None, None
        return *backward(dz, dlse, *ctx.saved_tensors, ctx.scale), None, None

    encode.register_fake(lambda q, k, v, ptr, scale: _latent_shapes(q, v, ptr))
    backward.register_fake(lambda dz, dlse, q, k, v, *_: _like(q, k, v))
    encode.register_autograd(gradient, setup_context=_keep)
    return encode


def _decode_operator(prefix: str, kernels: Kernels) -> CustomOpDef:
    rows = kernels.rows

    @custom_op(f"{prefix}decode", mutates_args=())
    def decode(q: Tensor, k: Tensor, z: Tensor, ptr: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        return kernels.decode(q.contiguous(), rows(k), z.contiguous(), ptr, scale)

    @custom_op(f"{prefix}decode_backward", mutates_args=())
    def backward(
        dy: Tensor,
        q: Tensor,
        k: Tensor,
        z: Tensor,
        ptr: Tensor,
        y: Tensor,
        r: Tensor,
        scale: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        q, k, z, dy = q.contiguous(), rows(k), z.contiguous(), dy.contiguous()
        dz, _ = kernels.latents_backward(q, k, z, dy, r, ptr, scale)
        dq, dk, _ = kernels.points_backward(q, k, ptr, scale, decoded=Decoded(z, y, dy, r))
        return dq, dk, dz.to(z.dtype)

    decode.register_fake(lambda q, k, z, ptr, scale: (k.new_empty(k.shape), kernels.empty_r(k)))
    backward.register_fake(lambda dy, q, k, z, *_: _like(q, k, z))
    decode.register_autograd(_gradient_of_first(backward), setup_context=_keep_first)
    return decode


def _attention_operator(prefix: str, kernels: Kernels) -> CustomOpDef:
    rows = kernels.rows

    @custom_op(f"{prefix}attention", mutates_args=())
    def attention(
        q: Tensor, k: Tensor, v: Tensor, ptr: Tensor, scale: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        q, k = q.contiguous(), rows(k)
        z, lse = kernels.encode(q, k, rows(v), ptr, scale)
        y, r = kernels.decode(q, k, z, ptr, scale)
        return y, z, lse, r

    @custom_op(f"{prefix}attention_backward", mutates_args=())
    def backward(
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
        q, k, dy = q.contiguous(), rows(k), dy.contiguous()
        dz, e = kernels.latents_backward(q, k, z, dy, r, ptr, scale)
        encoded, decoded = Encoded(rows(v), dz, lse, e), Decoded(z, y, dy, r)
        dq, dk, dv = kernels.points_backward(q, k, ptr, scale, encoded=encoded, decoded=decoded)
        assert dv is not None
        return dq, dk, dv

    attention.register_fake(
        lambda q, k, v, ptr, scale: (
            k.new_empty(k.shape),
            *_latent_shapes(q, v, ptr),
            kernels.empty_r(k),
        )
    )
    backward.register_fake(lambda dy, q, k, v, *_: _like(q, k, v))
    attention.register_autograd(_gradient_of_first(backward), setup_context=_keep_first)
    return attention


def _gradient_of_first(backward: CustomOpDef) -> Callable[..., tuple[Any, ...]]:
    def gradient(ctx: Any, dy: Tensor | None, *_: None) -> tuple[Any, ...]:
        if dy is None:
            return None, None, None, None, None
        return *backward(dy, *ctx.saved_tensors, ctx.scale), None, None

    return gradient


def _latent_shapes(q: Tensor, v: Tensor, ptr: Tensor) -> tuple[Tensor, Tensor]:
    shape = (ptr.shape[0] - 1, *q.shape[-3:])
    return v.new_empty(shape), v.new_empty(shape[:-1], dtype=torch.float32)


def _like(*inputs: Tensor) -> tuple[Tensor, ...]:
    return tuple(x.new_empty(x.shape) for x in inputs)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.set_materialize_grads(False)
    *tensors, ctx.scale = inputs
    ctx.save_for_backward(*tensors, *output)


def _keep_first(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _keep(ctx, inputs, output)
    ctx.mark_non_differentiable(*output[1:])
