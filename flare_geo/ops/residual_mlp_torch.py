"""The definition of residual MLPs of one width, in PyTorch; their activations."""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Activation = Literal["gelu_tanh", "gelu", "silu"]


def gelu_tanh(u: Tensor) -> Tensor:
    r"""The tanh form of GELU.

    With :math:`w = \sqrt{8/\pi}\,(u + 0.044715 u^3)` it is :math:`u\,\sigma(w)`, because
    :math:`(1 + \tanh(w/2))/2 = \sigma(w)`. A compiler makes faster code of that one exponential.
    """
    if torch.compiler.is_compiling():
        return u * torch.sigmoid(2 * math.sqrt(2 / math.pi) * u * (1 + 0.044715 * u * u))
    return F.gelu(u, approximate="tanh")


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu_tanh": gelu_tanh,
    "gelu": F.gelu,
    "silu": F.silu,
}


def residual_mlps(
    x: Tensor,
    weights: Sequence[Sequence[Tensor]],
    biases: Sequence[Sequence[Tensor]],
    act: Activation,
) -> tuple[Tensor, ...]:
    """G residual MLPs one after the other: `[N, C]` to G times `[N, C]`."""
    return tuple(residual_mlp(x, w, b, act) for w, b in zip(weights, biases))


def residual_mlp(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], act: Activation
) -> Tensor:
    """One residual MLP: `[N, C]` to `[N, C]`."""
    for weight, bias in zip(weights[:-1], biases[:-1]):
        x = x + ACTIVATIONS[act](F.linear(x, weight, bias))
    return x + F.linear(x, weights[-1], biases[-1])


def stack_layers(mlps: Sequence[Sequence[Tensor]]) -> Tensor:
    """The L weights or biases of each of G MLPs as one `[G, L, ...]`, by one copy."""
    flat = torch.stack([tensor for mlp in mlps for tensor in mlp])
    return flat.view(len(mlps), -1, *flat.shape[1:])
