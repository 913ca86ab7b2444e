"""Residual MLPs of one width, several at once: the keys, values and feed-forward of FLARE."""

from collections.abc import Sequence

import torch
from torch import Tensor

from flare_geo.ops.dispatch import choose
from flare_geo.ops.residual_mlp_torch import ACTIVATIONS, Activation, stack_layers

__all__ = ["ACTIVATIONS", "Activation", "residual_mlps", "stack_layers"]


def residual_mlps(
    x: Tensor,
    weights: Sequence[Sequence[Tensor]],
    biases: Sequence[Sequence[Tensor]],
    *,
    act: Activation = "gelu_tanh",
    backend: str = "auto",
) -> tuple[Tensor, ...]:
    r"""Residual MLPs of L linears on the same points: those of `"FLARE"
    <https://arxiv.org/abs/2508.12594>`_ with both outer residuals and a single width C.

    .. math::
        h_0 = x, \qquad h_{j+1} = h_j + \sigma(W_j h_j + b_j), \qquad
        y = h_{L-1} + W_{L-1} h_{L-1} + b_{L-1}

    The Triton kernel takes a tile of points through all layers of all MLPs on chip and keeps
    nothing but x for the backward pass.

    Args:
        x: features of the points.
        weights: L matrices per MLP.
        biases: L vectors per MLP.
        act: ``"gelu_tanh"``, ``"gelu"`` or ``"silu"``.
        backend: ``"torch"``, ``"triton"`` (CUDA, C = 16, 32, 64, 128, half and single precision),
            ``"cpp"`` (CPU, float32 without autocast, C a multiple of 16, not the exact GELU), or
            ``"auto"``: Triton where it runs in half precision, torch elsewhere.

    Shapes:
        - **x:** `[N, C]`; **weights:** `[C, C]` (out, in) each; **biases:** `[C]` each
        - **returns** one y `[N, C]` per MLP

    Raises:
        ValueError: if there is no such backend, or it does not take such a call.
        TypeError: if the backend does not compute the dtype.

    Example:
        >>> weights, biases = 5 * [torch.randn(64, 64) / 8], 5 * [torch.zeros(64)]
        >>> k, v = residual_mlps(torch.randn(500, 64), [weights] * 2, [biases] * 2)
        >>> k.shape
        torch.Size([500, 64])
    """
    x = _autocast(x)
    module = choose("residual_mlps", backend, x, act)
    ys: tuple[Tensor, ...] = module.residual_mlps(x, weights, biases, act)
    return ys


def _autocast(x: Tensor) -> Tensor:
    """X as autocast would give it to a linear: the kernels do not ask for it."""
    if x.is_cuda and torch.is_autocast_enabled("cuda"):
        return x.to(torch.get_autocast_dtype("cuda"))
    return x
