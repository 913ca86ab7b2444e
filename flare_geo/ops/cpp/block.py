r"""A whole FLARE block as one operator: nothing but kernels between its input and its output.

.. math::
    (k, v) = \mathrm{MLPs}(\mathrm{norm}_1(x)), \qquad
    h = x + W\,\mathrm{attention}(q, k, v) + b, \qquad
    y = h + \mathrm{MLP}(\mathrm{norm}_2(h))
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.library import custom_op

from flare_geo.ops.cpp import kernels
from flare_geo.ops.cpp.residual_mlp import backward, forward
from flare_geo.ops.layout import Layout
from flare_geo.ops.operators import Decoded, Encoded


class Weights(NamedTuple):
    """The parameters of a block.

    Shapes:
        - **q:** `[H, M, D]`; **norm1, norm2:** `[2, C]`, factors and shifts
        - **kv:** `[2, L, C, C]`, the MLPs of keys and values; **kv_bias:** `[2, L, C]`
        - **out:** `[C, C]`; **out_bias:** `[C]`
        - **mlp:** `[1, L', C, C]`, the feed-forward MLP; **mlp_bias:** `[1, L', C]`
    """

    q: Tensor
    norm1: Tensor
    kv: Tensor
    kv_bias: Tensor
    out: Tensor
    out_bias: Tensor
    norm2: Tensor
    mlp: Tensor
    mlp_bias: Tensor


def flare_block(
    x: Tensor, layout: Layout, weights: Weights, *, scale: float, act: str, eps: tuple[float, float]
) -> Tensor:
    """One FLARE block.

    Args:
        x: features of the points.
        layout: the clouds.
        weights: the parameters.
        scale: factor of the scores.
        act: ``"gelu_tanh"`` or ``"silu"``.
        eps: of the two LayerNorms.

    Shapes:
        - **x:** `[N, C]`; **returns** `[N, C]`
    """
    arguments = (x, layout.ptr, list(weights), scale, act, list(eps))
    # Without gradients straight on: an operator takes longer to call.
    direct = not (torch.is_grad_enabled() or torch.compiler.is_compiling())
    y: Tensor = (_forward if direct else block_op)(*arguments)[0]
    return y


@custom_op("flare_geo::cpp_block", mutates_args=())
def block_op(
    x: Tensor, ptr: Tensor, weights: list[Tensor], scale: float, act: str, eps: list[float]
) -> list[Tensor]:
    """y, and what backward needs: k and v `[2, N, C]`, a, z, lse, r of the attention, h."""
    return _forward(x, ptr, weights, scale, act, eps)


def _forward(
    x: Tensor, ptr: Tensor, weights: list[Tensor], scale: float, act: str, eps: list[float]
) -> list[Tensor]:
    x, w = x.contiguous(), Weights(*(t.contiguous() for t in weights))
    heads = (x.shape[0], w.q.shape[0], w.q.shape[2])  # [N, H, D]
    kv = forward(x, w.kv, w.kv_bias, act, w.norm1, eps[0])
    k, v = kv.view(2, *heads)
    z, lse = kernels.encode(w.q, k, v, ptr, scale)
    a, r = kernels.decode(w.q, k, z, ptr, scale)
    h = (x + w.out_bias).addmm_(a.view(x.shape), w.out.mT)
    y = forward(h, w.mlp, w.mlp_bias, act, w.norm2, eps[1], skip=True)[0]
    return [y, kv, a, z, lse, r, h]


@custom_op("flare_geo::cpp_block_backward", mutates_args=())
def block_backward_op(
    dy: Tensor,
    x: Tensor,
    ptr: Tensor,
    weights: list[Tensor],
    kept: list[Tensor],
    scale: float,
    act: str,
    eps: list[float],
) -> list[Tensor]:
    """Gradients of x and of the weights, in their order."""
    x, w = x.contiguous(), Weights(*(t.contiguous() for t in weights))
    kv, a, z, lse, r, h = kept
    dh, dmlp, dmlp_bias, dnorm2 = backward(
        dy.contiguous(), h, w.mlp, w.mlp_bias, act, w.norm2, eps[1], skip=True
    )
    da = (dh @ w.out).view(a.shape)
    dout, dout_bias = dh.mT @ a.view(x.shape), dh.sum(0)
    dkv = torch.empty_like(kv)
    k, v, dk, dv = (t for both in (kv, dkv) for t in both.view(2, *a.shape))
    dz, e = kernels.latents_backward(w.q, k, z, da, r, ptr, scale)
    encoded, decoded = Encoded(v, dz, lse, e), Decoded(z, a, da, r)
    dq, *_ = kernels.points_backward(w.q, k, ptr, scale, encoded, decoded, dk, dv)
    dx, dw, dw_bias, dnorm1 = backward(dkv, x, w.kv, w.kv_bias, act, w.norm1, eps[0])
    assert dnorm1 is not None
    assert dnorm2 is not None
    grads = Weights(dq, dnorm1, dw, dw_bias, dout, dout_bias, dnorm2, dmlp, dmlp_bias)
    return [dx.add_(dh), *grads]


@block_op.register_fake
def _(
    x: Tensor, ptr: Tensor, weights: list[Tensor], scale: float, act: str, eps: list[float]
) -> list[Tensor]:
    (heads, latents, width), clouds = weights[0].shape, ptr.shape[0] - 1
    lse = x.new_empty(clouds, heads, latents)
    a, r = x.new_empty(x.shape[0], heads, width), x.new_empty(heads, x.shape[0])
    kv, z = x.new_empty(2, *x.shape), x.new_empty(*lse.shape, width)
    return [x.new_empty(x.shape), kv, a, z, lse, r, x.new_empty(x.shape)]


@block_backward_op.register_fake
def _(
    dy: Tensor,
    x: Tensor,
    ptr: Tensor,
    weights: list[Tensor],
    kept: list[Tensor],
    scale: float,
    act: str,
    eps: list[float],
) -> list[Tensor]:
    return [t.new_empty(t.shape) for t in (x, *weights)]


def _keep(ctx, inputs, output):  # type: ignore[no-untyped-def]
    x, ptr, weights, ctx.scale, ctx.act, ctx.eps = inputs
    ctx.count = len(weights)
    ctx.save_for_backward(x, ptr, *weights, *output[1:])


def _gradient(ctx, grads):  # type: ignore[no-untyped-def]
    x, ptr, *rest = ctx.saved_tensors
    weights, kept = rest[: ctx.count], rest[ctx.count :]
    dx, *dw = block_backward_op(grads[0], x, ptr, weights, kept, ctx.scale, ctx.act, ctx.eps)
    return dx, None, dw, None, None, None


block_op.register_autograd(_gradient, setup_context=_keep)
