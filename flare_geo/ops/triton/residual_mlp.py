"""Residual MLPs in one kernel per direction: registered with torch, differentiable, compilable."""

from collections.abc import Sequence

import torch
from torch import Tensor

from flare_geo.ops.gradients import register_gradient
from flare_geo.ops.residual_mlp_torch import stack_layers
from flare_geo.ops.triton.residual_mlp_backward import launch_backward
from flare_geo.ops.triton.residual_mlp_forward import launch_forward

CHANNELS = (16, 32, 64, 128)
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
ACTIVATIONS = ("gelu_tanh", "gelu", "silu")


def residual_mlps(
    x: Tensor, weights: Sequence[Sequence[Tensor]], biases: Sequence[Sequence[Tensor]], act: str
) -> tuple[Tensor, ...]:
    """As :func:`flare_geo.ops.residual_mlps`."""
    return stacked_mlps(x, stack_layers(weights), stack_layers(biases), act).unbind()


def stacked_mlps(x: Tensor, weight: Tensor, bias: Tensor, act: str = "gelu_tanh") -> Tensor:
    r"""G residual MLPs of L linears of one width on the same points, in one kernel.

    .. math::
        h_0 = x, \qquad h_{j+1} = h_j + \mathrm{act}(W_j h_j + b_j), \qquad
        y = h_{L-1} + W_{L-1} h_{L-1} + b_{L-1}

    Here h is kept in float32; it is rounded to the dtype of x only where it enters a matrix product
    (eager rounds it after each layer). Only x, weight and bias are kept for the backward, which is
    deterministic and exact.

    Args:
        x: features of the points; its dtype is that of the products and of y.
        weight: `(out, in)` matrices, in the dtype of x or a wider one; so are their gradients.
        bias: one vector per matrix, in any floating dtype.
        act: ``"gelu_tanh"``, ``"gelu"`` (erf) or ``"silu"``.

    Shapes:
        - **x:** `[N, C]`; **weight:** `[G, L, C, C]`; **bias:** `[G, L, C]`
        - **returns** y: `[G, N, C]` in the dtype of x

    Raises:
        ValueError: if shapes, widths, dtypes, devices or the activation do not fit.
    """
    _check(x, weight, bias, act)
    y: Tensor = _mlps_op(x, weight, bias, act)
    return y


@torch.library.custom_op("flare_geo::residual_chain", mutates_args=())
def _mlps_op(x: Tensor, weight: Tensor, bias: Tensor, act: str) -> Tensor:
    weight = weight.to(x.dtype).contiguous()
    return launch_forward(x.contiguous(), weight, bias.contiguous(), act)


@torch.library.custom_op("flare_geo::residual_chain_backward", mutates_args=())
def _mlps_backward_op(
    dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor, act: str
) -> tuple[Tensor, Tensor, Tensor]:
    dx, dweight, dbias = launch_backward(
        dy.contiguous(),
        x.contiguous(),
        weight.to(x.dtype).contiguous(),
        bias.contiguous(),
        act,
    )
    return dx, dweight.to(weight.dtype), dbias.to(bias.dtype)


_mlps_op.register_fake(lambda x, weight, bias, act: x.new_empty(weight.shape[0], *x.shape))
register_gradient(_mlps_op, _mlps_backward_op, count=3)


def _check(x: Tensor, weight: Tensor, bias: Tensor, act: str) -> None:
    if x.ndim != 2 or x.shape[1] not in CHANNELS or x.dtype not in DTYPES:
        raise ValueError(
            f"x must be [N, C] with C in {CHANNELS}, in float32, float16 or bfloat16, "
            f"got {x.dtype} {list(x.shape)}; use the plain path for others"
        )
    channels = x.shape[1]
    if weight.ndim != 4 or weight.shape[1] == 0 or tuple(weight.shape[2:]) != (channels, channels):
        raise ValueError(
            f"weight must be [G, L >= 1, C={channels}, C={channels}], got {list(weight.shape)}"
        )
    if bias.shape != weight.shape[:3]:
        raise ValueError(
            f"bias must be {list(weight.shape[:3])} to fit weight, got {list(bias.shape)}"
        )
    if torch.promote_types(weight.dtype, x.dtype) != weight.dtype:
        raise ValueError(f"weight must be {x.dtype} as x or wider, got {weight.dtype}")
    if not x.device == weight.device == bias.device:
        raise ValueError(
            f"x, weight, bias must be on one device, got {x.device}, {weight.device}, {bias.device}"
        )
    if act not in ACTIVATIONS:
        raise ValueError(f"act must be one of {', '.join(ACTIVATIONS)}, got '{act}'")
