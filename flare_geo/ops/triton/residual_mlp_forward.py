"""Forward kernel of the residual MLPs, and the activations that forward and backward share.

A program takes a tile of points of one MLP through all layers: h stays in registers in float32,
the weights come from L2. Only x is read from memory and only y is written.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from flare_geo.ops.triton.precision import FMA, dot, input_precision

# gelu_tanh(u) = u sigmoid(t) with t = u (A + B u^2)
_A = tl.constexpr(2 * math.sqrt(2 / math.pi))
_B = tl.constexpr(2 * math.sqrt(2 / math.pi) * 0.044715)
_RSQRT2 = tl.constexpr(math.sqrt(0.5))
_RSQRT2PI = tl.constexpr(1 / math.sqrt(2 * math.pi))


@triton.jit
def activation(b_u, ACT: tl.constexpr):  # type: ignore[no-untyped-def]
    """act(u) in float32: one exponential and one division."""
    if ACT == "gelu_tanh":
        b_a = b_u / (1.0 + tl.exp(-b_u * (_A + _B * b_u * b_u)))
    elif ACT == "silu":
        b_a = b_u / (1.0 + tl.exp(-b_u))
    else:
        b_a = 0.5 * b_u * (1.0 + tl.erf(b_u * _RSQRT2))
    return b_a


@triton.jit
def activation_and_slope(b_u, ACT: tl.constexpr):  # type: ignore[no-untyped-def]
    """act(u) and act'(u) in float32 from the same exponential.

    With s the sigmoid of t(u): act = u s, act' = s + act (1 - s) t'.
    """
    if ACT == "gelu_tanh":
        b_square = b_u * b_u
        b_s = 1.0 / (1.0 + tl.exp(-b_u * (_A + _B * b_square)))
        b_a = b_u * b_s
        b_slope = b_s + b_a * (1.0 - b_s) * (_A + 3.0 * _B * b_square)
    elif ACT == "silu":
        b_s = 1.0 / (1.0 + tl.exp(-b_u))
        b_a = b_u * b_s
        b_slope = b_s + b_a * (1.0 - b_s)
    else:
        b_s = 0.5 + 0.5 * tl.erf(b_u * _RSQRT2)
        b_a = b_u * b_s
        b_slope = b_s + b_u * _RSQRT2PI * tl.exp(-0.5 * b_u * b_u)
    return b_a, b_slope


@triton.jit
def linear(b_h, p_w, p_b, C: tl.constexpr, PRECISION: tl.constexpr):  # type: ignore[no-untyped-def]
    """`h W^T + b` in float32 for `W [C, C]` (out, in); h is in the dtype of W."""
    o_c = tl.arange(0, C)
    b_w = tl.load(p_w + o_c[:, None] * C + o_c[None, :])  # [out, in]
    b_b = tl.load(p_b + o_c).to(tl.float32)
    return dot(b_h, tl.trans(b_w), PRECISION) + b_b[None, :]


@triton.jit(do_not_specialize=["N"])
def mlp_fwd_kernel(  # type: ignore[no-untyped-def]
    p_x,  # [N, C]
    p_w,  # [G, L, C, C]
    p_b,  # [G, L, C]
    p_y,  # [G, N, C]
    N,
    G: tl.constexpr,
    L: tl.constexpr,
    C: tl.constexpr,
    BLOCK: tl.constexpr,
    ACT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One tile of points of one MLP; neighbours in the grid share x, so that L2 serves it."""
    g = tl.program_id(0) % G
    o_n = (tl.program_id(0) // G).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    o_c = tl.arange(0, C)
    m_n = (o_n < N)[:, None]
    o_x = o_n[:, None] * C + o_c[None, :]
    p_w += g * L * C * C
    p_b += g * L * C
    dtype: tl.constexpr = p_w.dtype.element_ty

    b_h = tl.load(p_x + o_x, mask=m_n, other=0.0).to(tl.float32)  # [BLOCK, C]
    for j in range(L - 1):
        b_u = linear(b_h.to(dtype), p_w + j * C * C, p_b + j * C, C, PRECISION)
        b_h += activation(b_u, ACT)
    b_h += linear(b_h.to(dtype), p_w + (L - 1) * C * C, p_b + (L - 1) * C, C, PRECISION)
    p_y += N.to(tl.int64) * g * C
    tl.store(p_y + o_x, b_h.to(p_y.dtype.element_ty), mask=m_n)


def plan(channels: int, dtype: torch.dtype, dots: str) -> tuple[int, int]:
    """Points of a tile and warps of a program: few enough registers for two programs at a time."""
    if dots == "ieee":  # no tensor cores: small tiles, multiplied in registers
        return (32 if channels <= 64 else 16), 8
    if channels == 128 or dtype == torch.float32:
        return 64, 4
    return 128, 8 if channels == 64 else 4


def launch_forward(x: Tensor, weight: Tensor, bias: Tensor, act: str) -> Tensor:
    """`y [G, N, C]` from contiguous `x [N, C]`, `weight [G, L, C, C]` of its dtype, `bias`."""
    (mlps, layers, channels, _), points = weight.shape, x.shape[0]
    y = x.new_empty(mlps, points, channels)
    if y.numel() == 0:
        return y
    dots = input_precision(x.dtype)
    block, num_warps = plan(channels, x.dtype, dots)
    grid = (triton.cdiv(points, block) * mlps,)
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
        mlp_fwd_kernel[grid](
            x,
            weight,
            bias,
            y,
            points,
            G=mlps,
            L=layers,
            C=channels,
            BLOCK=block,
            ACT=act,
            PRECISION=dots,
            num_warps=num_warps,
            num_stages=2,
            **FMA,
        )
    return y
