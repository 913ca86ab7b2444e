"""Sums over the points of each cloud, and the state of linear attention."""

from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op

from flare_geo.ops.layout import Layout, make_layout
from flare_geo.ops.numerics import full_precision, wide


def segment_sum(x: Tensor, layout: Layout) -> Tensor:
    r"""The sum over the points of each cloud.

    .. math::
        s_b = \sum_{n \in b} x_n

    Shapes:
        - **x:** `[N, ...]`; **returns** `[B, ...]`, float32 or wider; 0 for a cloud without points

    Example:
        >>> segment_sum(torch.ones(5, 2), make_layout(torch.tensor([0, 2, 5]), 5, "cpu"))
        tensor([[2., 2.],
                [3., 3.]])
    """
    flat = x.reshape(x.shape[0], 1, prod(x.shape[1:]))
    total = sum_outer(x.new_ones(x.shape[0], 1, 1), flat, layout)
    return total.reshape(layout.num_clouds, *x.shape[1:])


def sum_outer(k: Tensor, v: Tensor, layout: Layout) -> Tensor:
    r"""The state of linear attention; the outer product of a point is never stored.

    .. math::
        S_{bh} = \sum_{n \in b} k_{nh}\, v_{nh}^\top

    Shapes:
        - **k:** `[N, H, Dk]`; **v:** `[N, H, Dv]`; **returns** `[B, H, Dk, Dv]`, float32 or wider
    """
    if layout.equal:  # also inside a compiled graph: no size is read
        k, v = (_dense(wide(x), layout) for x in (k, v))  # [B, H, n, D]
        with full_precision(k):
            return k.mT @ v
    if torch.compiler.is_compiling():
        state: Tensor = _sum_outer_op(k, v, layout.ptr)
        return state
    return _sum_outer(k, v, layout)


def apply_state(q: Tensor, state: Tensor, layout: Layout) -> Tensor:
    r"""The product of each point with the state of its cloud: :math:`y_{nh} = S_{bh}^\top q_{nh}`.

    Pointwise: the points may be others than those of the state.

    Shapes:
        - **q:** `[N, H, Dk]`; **state:** `[B, H, Dk, Dv]`; **returns** `[N, H, Dv]`, float32 or
          wider: a sum over many points may be too large for half precision
    """
    if layout.equal:
        with full_precision(q):
            y = _dense(wide(q), layout) @ wide(state)  # [B, H, n, Dv]
        return y.transpose(1, 2).flatten(0, 1)
    if torch.compiler.is_compiling():
        read: Tensor = _apply_state_op(q, state, layout.ptr)
        return read
    return _apply_state(q, state, layout)


def _sum_outer(k: Tensor, v: Tensor, layout: Layout) -> Tensor:
    if layout.num_clouds == 0:
        return wide(k).new_zeros(0, k.shape[1], k.shape[2], v.shape[2])
    pairs = zip(*(torch.split(x, list(layout.sizes)) for x in (k, v)), strict=True)
    with full_precision(k):
        return torch.stack([wide(a).permute(1, 2, 0) @ wide(b).transpose(0, 1) for a, b in pairs])


def _apply_state(q: Tensor, state: Tensor, layout: Layout) -> Tensor:
    if layout.num_clouds == 0:
        return wide(q).new_zeros(0, q.shape[1], state.shape[3])
    pairs = zip(torch.split(q, list(layout.sizes)), wide(state), strict=True)
    with full_precision(q):
        return torch.cat([(wide(a).transpose(0, 1) @ s).transpose(0, 1) for a, s in pairs])


def _dense(x: Tensor, layout: Layout) -> Tensor:
    """`[N, H, D]` of clouds of one size as `[B, H, n, D]`."""
    shape = (layout.num_clouds, x.shape[0] // layout.num_clouds)
    return x.reshape(*shape, *x.shape[1:]).transpose(1, 2)


@custom_op("flare_geo::sum_outer", mutates_args=())
def _sum_outer_op(k: Tensor, v: Tensor, ptr: Tensor) -> Tensor:
    """:func:`sum_outer` under torch.compile, where sizes are unknown."""
    return _sum_outer(k, v, make_layout(ptr, k.shape[0], k.device))


@custom_op("flare_geo::apply_state", mutates_args=())
def _apply_state_op(q: Tensor, state: Tensor, ptr: Tensor) -> Tensor:
    """:func:`apply_state` under torch.compile, where sizes are unknown."""
    return _apply_state(q, state, make_layout(ptr, q.shape[0], q.device)).contiguous()


@_sum_outer_op.register_fake
def _(k: Tensor, v: Tensor, ptr: Tensor) -> Tensor:
    return wide(k.new_empty(ptr.shape[0] - 1, k.shape[1], k.shape[2], v.shape[2]))


@_apply_state_op.register_fake
def _(q: Tensor, state: Tensor, ptr: Tensor) -> Tensor:
    return wide(q.new_empty(q.shape[0], q.shape[1], state.shape[3]))


# Each of the two is the gradient of the other.
def _sum_outer_gradient(ctx: Any, ds: Tensor) -> tuple[Tensor, Tensor, None]:
    k, v, ptr = ctx.saved_tensors
    dk, dv = _apply_state_op(v, ds.mT, ptr), _apply_state_op(k, ds, ptr)
    return dk.to(k.dtype), dv.to(v.dtype), None


def _apply_state_gradient(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, None]:
    q, state, ptr = ctx.saved_tensors
    dq, ds = _apply_state_op(dy, state.mT, ptr), _sum_outer_op(q, dy, ptr)
    return dq.to(q.dtype), ds.to(state.dtype), None


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


_sum_outer_op.register_autograd(_sum_outer_gradient, setup_context=_keep)
_apply_state_op.register_autograd(_apply_state_gradient, setup_context=_keep)
