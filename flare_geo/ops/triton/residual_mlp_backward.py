"""Backward kernels of the residual MLPs. Only x, weight and bias were saved: h is computed again.

With u_j = W_j h_j + b_j, d_L = dy, and act = identity for the last layer:

    e_j = d_{j+1} o act'(u_j),   dW_j = e_j^T h_j,   db_j = sum_n e_j
    d_j = d_{j+1} + e_j W_j,     dx = d_0

A fixed number of programs walks over the tiles of points. Each keeps its own sum of dW and db, so
nothing is added atomically; the sums of the programs are added in one fixed order at the end. A
program takes all tiles of one MLP, then those of the next: it alone writes the dx of its tiles,
so the sum over MLPs needs no further buffer (it is rounded to the dtype of x between MLPs, as
autograd's own sum is).

Two kernels differ in where a program keeps h_j and act' of its tile: `mlp_bwd_kernel` on chip,
`mlp_bwd_wide_kernel` in memory of its own that stays in L2.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from flare_geo.ops.triton.precision import FMA, dot, input_precision
from flare_geo.ops.triton.residual_mlp_forward import activation_and_slope, linear


@triton.jit
def has_sums(start, C: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """`[C, C]`: whether the program that is at tile `start` has sums of dW of earlier tiles.

    Blocks are compared, as the interpreter makes integers of a condition that it broadcasts, and
    from Triton 3.9 on takes no integers for a mask.
    """
    return tl.full([C, C], start, tl.int64) >= tl.num_programs(0) * BLOCK


@triton.jit
def mlp_bwd_tile(  # type: ignore[no-untyped-def]
    p_dy,
    p_x,
    p_w,
    p_b,
    p_dx,
    p_dw,
    p_db,
    start,
    N,
    again,  # whether dx holds the sum of the MLPs before
    L: tl.constexpr,
    C: tl.constexpr,
    BLOCK: tl.constexpr,
    ACT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One tile of one MLP: h_j and act' on chip, the sums of dW in memory of the program.

    Sums in registers would be 20480 floats for five layers of 64 channels, beside all the addresses
    of the unrolled layers, which the compiler computes ahead of the loop over tiles: most of them
    were spilled.
    """
    o_c = tl.arange(0, C)
    o_w = o_c[:, None] * C + o_c[None, :]
    o_tile = tl.arange(0, BLOCK)[:, None] * C + o_c[None, :]
    m_n = (start + tl.arange(0, BLOCK) < N)[:, None]
    m_sum = has_sums(start, C, BLOCK)
    dtype: tl.constexpr = p_w.dtype.element_ty
    b_x = tl.load(p_x + start * C + o_tile, mask=m_n, other=0.0)
    b_dy = tl.load(p_dy + start * C + o_tile, mask=m_n, other=0.0)

    b_h = b_x.to(tl.float32)
    b_hs = ()
    b_slopes = ()
    for j in tl.static_range(L - 1):
        b_hs = b_hs + (b_h.to(dtype),)  # type: ignore[assignment]  # noqa: RUF005
        b_u = linear(b_hs[j], p_w + j * C * C, p_b + j * C, C, PRECISION)
        b_a, b_slope = activation_and_slope(b_u, ACT)
        b_slopes = b_slopes + (b_slope.to(dtype),)  # type: ignore[assignment]  # noqa: RUF005
        b_h += b_a
    b_hs = b_hs + (b_h.to(dtype),)  # type: ignore[assignment]  # noqa: RUF005

    b_d = b_dy.to(tl.float32)
    for i in tl.static_range(L):
        p_sum = p_dw + (L - 1 - i) * C * C + o_w
        b_sum = tl.load(p_sum, mask=m_sum, other=0.0)
        if i == 0:  # noqa: SIM108
            b_e = b_d
        else:
            b_e = b_d * b_slopes[L - 1 - i].to(tl.float32)
        b_o = b_e.to(dtype)
        tl.store(p_sum, b_sum + dot(tl.trans(b_o), b_hs[L - 1 - i], PRECISION))
        tl.store(p_db + (L - 1 - i) * C + o_c, tl.sum(b_e, 0))
        b_w = tl.load(p_w + (L - 1 - i) * C * C + o_w)  # [out, in]
        b_d += dot(b_o, b_w, PRECISION)
    b_d += tl.load(p_dx + start * C + o_tile, mask=m_n & again, other=0.0).to(tl.float32)
    tl.store(p_dx + start * C + o_tile, b_d.to(p_dx.dtype.element_ty), mask=m_n)


@triton.jit(do_not_specialize=["N"])
def mlp_bwd_kernel(  # type: ignore[no-untyped-def]
    p_dy,  # [G, N, C]
    p_x,  # [N, C]
    p_w,  # [G, L, C, C]
    p_b,  # [G, L, C]
    p_dx,  # [N, C]
    p_dw,  # [P, G, L, C, C] float32
    p_db,  # [tiles, G, L, C] float32
    N,
    G: tl.constexpr,
    L: tl.constexpr,
    C: tl.constexpr,
    BLOCK: tl.constexpr,
    ACT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """h_j and act' of a tile on chip."""
    program = tl.program_id(0)
    for g in range(G):
        start = program.to(tl.int64) * BLOCK
        while start < N:
            mlp_bwd_tile(
                p_dy + N.to(tl.int64) * g * C,
                p_x,
                p_w + g * L * C * C,
                p_b + g * L * C,
                p_dx,
                p_dw + (program.to(tl.int64) * G + g) * L * C * C,
                p_db + (start // BLOCK * G + g) * L * C,
                start,
                N,
                g > 0,
                L,
                C,
                BLOCK,
                ACT,
                PRECISION,
            )
            start += tl.num_programs(0).to(tl.int64) * BLOCK
            tl.debug_barrier()  # what this tile left in memory, other threads of the program read


@triton.jit(do_not_specialize=["N"])
def mlp_bwd_wide_kernel(  # type: ignore[no-untyped-def]
    p_dy,  # [G, N, C]
    p_x,  # [N, C]
    p_w,  # [G, L, C, C]
    p_b,  # [G, L, C]
    p_dx,  # [N, C]
    p_dw,  # [P, G, L, C, C] float32
    p_db,  # [tiles, G, L, C] float32
    p_hs,  # [P, L, BLOCK, C] scratch
    p_slopes,  # [P, L, BLOCK, C] scratch
    N,
    G: tl.constexpr,
    L: tl.constexpr,
    C: tl.constexpr,
    BLOCK: tl.constexpr,
    ACT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """h_j, act' and the sums of a program in memory that no other program touches."""
    program = tl.program_id(0)
    o_c = tl.arange(0, C)
    o_w = o_c[:, None] * C + o_c[None, :]
    o_tile = tl.arange(0, BLOCK)[:, None] * C + o_c[None, :]
    dtype: tl.constexpr = p_w.dtype.element_ty
    p_hs += program.to(tl.int64) * L * BLOCK * C + o_tile
    p_slopes += program.to(tl.int64) * L * BLOCK * C + o_tile

    for g in range(G):
        p_wg = p_w + g * L * C * C
        p_bg = p_b + g * L * C
        p_dyg = p_dy + N.to(tl.int64) * g * C
        part = (program.to(tl.int64) * G + g) * L * C
        start = program.to(tl.int64) * BLOCK
        while start < N:
            m_n = (start + tl.arange(0, BLOCK) < N)[:, None]
            b_h = tl.load(p_x + start * C + o_tile, mask=m_n, other=0.0).to(tl.float32)
            for j in range(L - 1):
                b_o = b_h.to(dtype)
                tl.store(p_hs + j * BLOCK * C, b_o)
                b_u = linear(b_o, p_wg + j * C * C, p_bg + j * C, C, PRECISION)
                b_a, b_slope = activation_and_slope(b_u, ACT)
                tl.store(p_slopes + j * BLOCK * C, b_slope.to(dtype))
                b_h += b_a
            tl.store(p_hs + (L - 1) * BLOCK * C, b_h.to(dtype))
            tl.debug_barrier()  # scratch is read by other threads than those that wrote it

            b_d = tl.load(p_dyg + start * C + o_tile, mask=m_n, other=0.0).to(tl.float32)
            p_dbg = p_db + (start // BLOCK * G + g) * L * C
            m_sum = has_sums(start, C, BLOCK)
            for i in range(L):
                j = L - 1 - i
                # The last layer has no activation: its slope was never written, and is one.
                b_slope = tl.load(p_slopes + j * BLOCK * C, mask=(o_tile >= 0) & (i > 0), other=1.0)
                b_e = b_d * b_slope.to(tl.float32)
                b_o = b_e.to(dtype)
                b_in = tl.load(p_hs + j * BLOCK * C)
                p_sum = p_dw + (part + j * C) * C + o_w
                b_sum = tl.load(p_sum, mask=m_sum, other=0.0)
                tl.store(p_sum, b_sum + dot(tl.trans(b_o), b_in, PRECISION))
                tl.store(p_dbg + j * C + o_c, tl.sum(b_e, 0))
                b_w = tl.load(p_wg + j * C * C + o_w)  # [out, in]
                b_d += dot(b_o, b_w, PRECISION)
            b_d += tl.load(p_dx + start * C + o_tile, mask=m_n & (g > 0), other=0.0).to(tl.float32)
            tl.store(p_dx + start * C + o_tile, b_d.to(p_dx.dtype.element_ty), mask=m_n)
            start += tl.num_programs(0).to(tl.int64) * BLOCK
            tl.debug_barrier()  # before the next tile overwrites scratch and adds to the sums


class Plan(NamedTuple):
    """How a backward runs."""

    wide: bool
    block: int
    num_warps: int


def plan(layers: int, channels: int, dtype: torch.dtype, dots: str) -> Plan:
    """What fits on chip, as `tests/ops/kernels/compile.py` tells; a sweep on a GPU replaces it."""
    if dtype != torch.float32 and channels <= 64 and layers <= 6:
        return Plan(False, 128, 8 if channels == 64 else 4)
    if dots == "ieee":  # no tensor cores: small tiles, multiplied in registers
        return Plan(True, 32 if channels <= 64 else 16, 8)
    return Plan(True, 64, 8 if channels == 128 else 4)


def num_programs(device: torch.device, tiles: int) -> int:
    """Programs of the grid: depends on the device and the shapes alone, as do the results."""
    if device.type != "cuda":
        return min(tiles, 2)
    return min(tiles, torch.cuda.get_device_properties(device).multi_processor_count)


def launch_backward(
    dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor, act: str
) -> tuple[Tensor, Tensor, Tensor]:
    """`dx` in the dtype of x; `dweight`, `dbias` in float32. All inputs contiguous."""
    (mlps, layers, channels, _), points = weight.shape, x.shape[0]
    dx = torch.empty_like(x)
    if points == 0 or mlps == 0:
        zero = torch.zeros(weight.shape, device=x.device)
        return dx.zero_(), zero, zero.new_zeros(bias.shape)
    dots = input_precision(x.dtype)
    wide, block, num_warps = plan(layers, channels, x.dtype, dots)
    tiles = triton.cdiv(points, block)
    programs = num_programs(x.device, tiles)
    dw = x.new_empty(programs, *weight.shape, dtype=torch.float32)
    db = x.new_empty(tiles, *bias.shape, dtype=torch.float32)
    scratch = list(x.new_empty(2, programs, layers, block, channels)) if wide else []
    kernel = mlp_bwd_wide_kernel if wide else mlp_bwd_kernel
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
        kernel[(programs,)](
            dy,
            x,
            weight,
            bias,
            dx,
            dw,
            db,
            *scratch,
            points,
            G=mlps,
            L=layers,
            C=channels,
            BLOCK=block,
            ACT=act,
            PRECISION=dots,
            num_warps=num_warps,
            num_stages=1,
            **FMA,
        )
    return dx, dw.sum(0), db.sum(0)
