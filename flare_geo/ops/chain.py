"""Residual chains: the keys, values and feed-forward networks of FLARE, several at once."""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from flare_geo.ops.fused import DTYPES, HAS_TRITON

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


def residual_chains(
    x: Tensor,
    weights: Sequence[Sequence[Tensor]],
    biases: Sequence[Sequence[Tensor]],
    *,
    act: Activation = "gelu_tanh",
    backend: str = "auto",
) -> tuple[Tensor, ...]:
    r"""Residual chains of L linears on the same points; one is the residual MLP of `"FLARE"
    <https://arxiv.org/abs/2508.12594>`_ with both outer residuals and a single width C.

    .. math::
        h_0 = x, \qquad h_{j+1} = h_j + \sigma(W_j h_j + b_j), \qquad
        y = h_{L-1} + W_{L-1} h_{L-1} + b_{L-1}

    On CUDA in float16 and bfloat16, and for C = 16, 32, 64, 128, one Triton kernel takes a tile of
    points through all of them on chip and keeps nothing but x for the backward pass; elsewhere it
    is plain PyTorch.

    Args:
        x: features of the points.
        weights: L matrices a chain.
        biases: L vectors a chain.
        act: ``"gelu_tanh"``, ``"gelu"`` or ``"silu"``.
        backend: ``"cpp"`` for the C++ kernels where they take x (CPU, float32, C a multiple of 16,
            not the exact GELU); else ``"auto"``.

    Shapes:
        - **x:** `[N, C]`; **weights:** `[C, C]` (out, in) each; **biases:** `[C]` each
        - **returns** one y `[N, C]` a chain

    Example:
        >>> weights, biases = 5 * [torch.randn(64, 64) / 8], 5 * [torch.zeros(64)]
        >>> k, v = residual_chains(torch.randn(500, 64), [weights] * 2, [biases] * 2)
        >>> k.shape
        torch.Size([500, 64])
    """
    x = _autocast(x)
    kernel = _kernel(x, act, backend)
    if kernel is None:
        return tuple(plain_chain(x, w, b, act) for w, b in zip(weights, biases))
    return kernel(x, stack_chains(weights), stack_chains(biases), act).unbind()


def stack_chains(chains: Sequence[Sequence[Tensor]]) -> Tensor:
    """L weights or biases of each of G chains as one `[G, L, ...]`, by one copy."""
    flat = torch.stack([tensor for chain in chains for tensor in chain])
    return flat.view(len(chains), -1, *flat.shape[1:])


def plain_chain(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], act: Activation
) -> Tensor:
    """The definition, one chain: `[N, C]` to `[N, C]`."""
    for weight, bias in zip(weights[:-1], biases[:-1]):
        x = x + ACTIVATIONS[act](F.linear(x, weight, bias))
    return x + F.linear(x, weights[-1], biases[-1])


def _kernel(x: Tensor, act: Activation, backend: str) -> Callable[..., Tensor] | None:
    """The fused kernel for such features, if there is one.

    On CUDA not in float32: its products leave the tensor cores, and registers spill.
    """
    if backend == "cpp":
        from flare_geo.ops import cpp

        return cpp.residual_chain if cpp.supports_chain(x, act) else None
    if not (HAS_TRITON and x.is_cuda and x.dtype in DTYPES and x.dtype != torch.float32):
        return None
    from flare_geo.ops.triton.chain import residual_chain, supports

    return residual_chain if supports(x.shape[1], x.dtype) else None


def _autocast(x: Tensor) -> Tensor:
    """Linears would cast x; the kernel has to be told."""
    if x.is_cuda and torch.is_autocast_enabled("cuda"):
        return x.to(torch.get_autocast_dtype("cuda"))
    return x
