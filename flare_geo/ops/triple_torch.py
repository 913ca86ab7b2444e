"""Sums of triple products of the points of a cloud: triple attention in PyTorch."""

from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op

from flare_geo.ops.layout import Layout, make_layout
from flare_geo.ops.numerics import wide_dtype

CHUNK = 4096  # points whose products are held at once


def mean_of_products(a: Tensor, b: Tensor, c: Tensor, layout: Layout) -> Tensor:
    """`S_ijk = mean_n a_ni b_nj c_nk` of each cloud, `[B, H, I, J, K]`: float32 or wider."""
    if torch.compiler.is_compiling():
        compiled: Tensor = _state_op(a, b, c, layout.ptr)
        return compiled
    state: Tensor = _State.apply(a, b, c, layout)  # type: ignore[no-untyped-call]
    return state


def read_state(a: Tensor, state: Tensor, c: Tensor, layout: Layout) -> Tensor:
    """`y_nj = sum_ik a_ni S_ijk c_nk`, `[N, H, J]`, in the dtype of a."""
    if torch.compiler.is_compiling():
        compiled: Tensor = _output_op(a, state, c, layout.ptr)
        return compiled
    y: Tensor = _Output.apply(a, state, c, layout)  # type: ignore[no-untyped-call]
    return y


class _State(torch.autograd.Function):
    """Keeps the inputs, not their products; its gradients read dS as outputs read S."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, c: Tensor, layout: Layout) -> Tensor:
        ctx.save_for_backward(a, b, c)
        ctx.layout = layout
        wide = wide_dtype(a.dtype)
        shape = (layout.num_clouds, a.shape[1], a.shape[2], b.shape[2], c.shape[2])
        state = torch.zeros(shape, dtype=wide, device=a.device)
        for cloud, chunk in _chunks(layout):
            a_p, b_p, c_p = (x[chunk].to(wide) for x in (a, b, c))
            products = torch.einsum("nhi,nhj->hijn", a_p, b_p).flatten(1, 2)  # [H, I J, n]
            state[cloud] += (products @ c_p.transpose(0, 1)).view(shape[1:])
        return state / _sizes(layout, state)

    @staticmethod
    def backward(ctx: Any, ds: Tensor) -> tuple[Tensor | None, ...]:
        a, b, c = ctx.saved_tensors
        ds = ds / _sizes(ctx.layout, ds)
        return (
            read_state(b, ds.transpose(2, 3), c, ctx.layout),
            read_state(a, ds, c, ctx.layout),
            read_state(a, ds.transpose(3, 4), b, ctx.layout),
            None,
        )


class _Output(torch.autograd.Function):
    """Its gradients are a mean of products and two readings of S."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, state: Tensor, c: Tensor, layout: Layout) -> Tensor:
        ctx.save_for_backward(a, state, c)
        ctx.layout = layout
        _, heads, _, width, _ = state.shape
        y = torch.empty(a.shape[0], heads, width, dtype=a.dtype, device=a.device)
        rows = state.movedim(3, -1).flatten(2, 3)  # [B, H, I K, J]
        for cloud, chunk in _chunks(layout):
            a_p, c_p = (x[chunk].to(state.dtype) for x in (a, c))
            products = torch.einsum("nhi,nhk->hnik", a_p, c_p).flatten(2)  # [H, n, I K]
            y[chunk] = (products @ rows[cloud]).transpose(0, 1).to(a.dtype)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        a, state, c = ctx.saved_tensors
        ds = mean_of_products(a, dy, c, ctx.layout)
        return (
            read_state(dy, state.transpose(2, 3), c, ctx.layout),
            ds * _sizes(ctx.layout, ds),
            read_state(a, state.transpose(3, 4), dy, ctx.layout),
            None,
        )


def _chunks(layout: Layout) -> list[tuple[int, slice]]:
    """Chunks of at most CHUNK points, each with the number of its cloud."""
    bounds = pairwise(accumulate(layout.sizes, initial=0))
    return [
        (cloud, slice(start, min(start + CHUNK, end)))
        for cloud, (first, end) in enumerate(bounds)
        for start in range(first, end, CHUNK)
    ]


def _sizes(layout: Layout, like: Tensor) -> Tensor:
    """`[B, 1, 1, 1, 1]` points of the clouds, at least 1."""
    return layout.ptr.diff().clamp(min=1).to(like.dtype).view(-1, 1, 1, 1, 1)


@custom_op("flare_geo::mean_of_products", mutates_args=())
def _state_op(a: Tensor, b: Tensor, c: Tensor, ptr: Tensor) -> Tensor:
    """:func:`mean_of_products` under torch.compile, where sizes are unknown."""
    return mean_of_products(a, b, c, make_layout(ptr, a.shape[0], a.device))


@custom_op("flare_geo::read_state", mutates_args=())
def _output_op(a: Tensor, state: Tensor, c: Tensor, ptr: Tensor) -> Tensor:
    """:func:`read_state` under torch.compile, where sizes are unknown."""
    return read_state(a, state, c, make_layout(ptr, a.shape[0], a.device))


@_state_op.register_fake
def _(a: Tensor, b: Tensor, c: Tensor, ptr: Tensor) -> Tensor:
    shape = (ptr.shape[0] - 1, a.shape[1], a.shape[2], b.shape[2], c.shape[2])
    return a.new_empty(shape, dtype=wide_dtype(a.dtype))


@_output_op.register_fake
def _(a: Tensor, state: Tensor, c: Tensor, ptr: Tensor) -> Tensor:
    return a.new_empty(a.shape[0], a.shape[1], state.shape[3])


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    *tensors, ptr = inputs
    ctx.save_for_backward(*tensors)
    ctx.layout = Layout(ptr, inputs[0].shape[0])


_state_op.register_autograd(_State.backward, setup_context=_keep)
_output_op.register_autograd(_Output.backward, setup_context=_keep)
