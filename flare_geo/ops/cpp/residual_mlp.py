"""The C++ residual MLPs: calls of the kernels, and an operator of torch."""

from collections.abc import Sequence
from ctypes import c_float, c_int, c_int64
from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op

from flare_geo.ops.cpp.build import library, pointer
from flare_geo.ops.gradients import register_gradient
from flare_geo.ops.residual_mlp_torch import stack_layers

ACTIVATIONS = {"gelu_tanh": 0, "silu": 1}


def forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    act: str,
    norm: Tensor | None = None,
    eps: float = 0.0,
    skip: bool = False,
) -> Tensor:
    """`y [G, N, C]`; no gradient.

    Args:
        x: `[N, C]`, contiguous as all tensors here.
        weight: `[G, L, C, C]`.
        bias: `[G, L, C]`.
        act: ``"gelu_tanh"`` or ``"silu"``.
        norm: `[2, C]`, factors and shifts of a LayerNorm of x before the MLPs.
        eps: of the LayerNorm.
        skip: whether x is added to y.
    """
    y = x.new_empty(len(weight), *x.shape)
    library().flare_mlp_forward(
        *map(pointer, (x, weight, bias, norm, y)), *_sizes(x, weight, act, eps, skip)
    )
    return y


def backward(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    act: str,
    norm: Tensor | None = None,
    eps: float = 0.0,
    skip: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Gradients of x, weight, bias and norm."""
    grads = torch.empty_like(x), torch.empty_like(weight), torch.empty_like(bias)
    dnorm = None if norm is None else torch.empty_like(norm)
    library().flare_mlp_backward(
        *map(pointer, (x, weight, bias, norm, dy, *grads, dnorm)),
        *_sizes(x, weight, act, eps, skip),
    )
    return *grads, dnorm


def _sizes(x: Tensor, weight: Tensor, act: str, eps: float, skip: bool) -> tuple[Any, ...]:
    mlps, layers, width = weight.shape[:3]
    return (
        c_int64(x.shape[0]),
        c_int(width),
        c_int(layers),
        c_int(mlps),
        c_int(ACTIVATIONS[act]),
        c_float(eps),
        c_int(skip),
        c_int(torch.get_num_threads()),
    )


def residual_mlps(
    x: Tensor, weights: Sequence[Sequence[Tensor]], biases: Sequence[Sequence[Tensor]], act: str
) -> tuple[Tensor, ...]:
    """As :func:`flare_geo.ops.residual_mlps`."""
    y: Tensor = mlps_op(x, stack_layers(weights), stack_layers(biases), act)
    return y.unbind()


@custom_op("flare_geo::cpp_chain", mutates_args=())
def mlps_op(x: Tensor, weight: Tensor, bias: Tensor, act: str) -> Tensor:
    """`y [G, N, C]`."""
    return forward(x.contiguous(), weight.contiguous(), bias.contiguous(), act)


@custom_op("flare_geo::cpp_chain_backward", mutates_args=())
def mlps_backward_op(
    dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor, act: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias."""
    dy, x, weight, bias = (t.contiguous() for t in (dy, x, weight, bias))
    return backward(dy, x, weight, bias, act)[:3]


mlps_op.register_fake(lambda x, weight, bias, act: x.new_empty(len(weight), *x.shape))
register_gradient(mlps_op, mlps_backward_op, count=3)
