"""The precision of products, the base of exponentials, and what the interpreter cannot do."""

import math

import torch
import triton
import triton.language as tl
from triton import knobs

_INTERPRETED = tl.constexpr(bool(knobs.runtime.interpret))


@triton.jit
def dot(b_x, b_y, PRECISION: tl.constexpr):  # type: ignore[no-untyped-def]
    """`x y` accumulated in float32."""
    # The interpreter keeps bfloat16 as bare 16-bit integers and would multiply those.
    if _INTERPRETED:
        b_x = b_x.to(tl.float32)
        b_y = b_y.to(tl.float32)
    return tl.dot(b_x, b_y, input_precision=PRECISION)


@triton.jit
def negative(b_x):  # type: ignore[no-untyped-def]
    """`-x` without rounding; by way of float32, as the interpreter cannot negate bfloat16."""
    return (-b_x.to(tl.float32)).to(b_x.dtype)


def input_precision(dtype: torch.dtype) -> str:
    """How float32 operands are multiplied when the inputs of an op are `dtype`.

    float32 follows `torch.backends.cuda.matmul.fp32_precision`, which also knows what was set by
    its older name `allow_tf32` (to read that one warns in torch 2.9, and raises once both were
    set). float16 needs float32 operands only where its range is too small (gradients of softmax
    weights of about 1/N): tf32 has more digits than float16 there.
    """
    if dtype == torch.float32 and torch.backends.cuda.matmul.fp32_precision != "tf32":
        return "ieee"
    return "tf32"


def exp2_factor(scale: float) -> tuple[float, bool]:
    """`(|scale| log2 e, scale < 0)`: exponentials are taken to the base 2, which the GPU has.

    A scale of zero becomes one that changes nothing, as a masked score of -inf times 0 is NaN.
    """
    return max(abs(scale) * math.log2(math.e), 1e-30), scale < 0
