"""Decode: every point reads the latents of its cloud.

y = softmax_m(s k q^T) z,    r = log2 sum_m 2^(s log2(e) k q^T)
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from flare_geo.ops.triton import launch
from flare_geo.ops.triton.clouds import find_tile, load_rows, num_tiles, store_rows
from flare_geo.ops.triton.precision import FMA, dot, exp2_factor, input_precision, negative


@triton.jit(do_not_specialize=["num_clouds", "size"])
def decode_fwd_kernel(  # type: ignore[no-untyped-def]
    p_q,
    p_k,
    p_z,
    p_ptr,
    p_y,
    p_r,
    num_clouds,
    size,
    factor,
    H: tl.constexpr,
    M: tl.constexpr,
    D: tl.constexpr,
    K_N: tl.constexpr,
    K_H: tl.constexpr,
    Q_PER_CLOUD: tl.constexpr,
    NEGATIVE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One head, one tile of points. Latents that fit one block are loaded once."""
    ONE_BLOCK: tl.constexpr = BLOCK_M >= M
    program = tl.program_id(0)
    h = program % H
    b, begin, count = find_tile(p_ptr, program // H, num_clouds, size)
    if count <= 0:
        return

    o_n = tl.arange(0, BLOCK_N)
    o_m = tl.arange(0, BLOCK_M)
    if Q_PER_CLOUD:
        p_q += b.to(tl.int64) * H * M * D
    p_q += h * M * D
    p_z += (b.to(tl.int64) * H + h) * M * D
    p_k += begin * K_N + h * K_H
    p_y += (begin * H + h) * D
    p_r += begin * H + h
    if ONE_BLOCK:
        b_q = load_rows(p_q, o_m, o_m < M, D, D, BLOCK_D)
        b_z = load_rows(p_z, o_m, o_m < M, D, D, BLOCK_D)
        if NEGATIVE:  # factor is |factor|, so that the largest score stays the largest
            b_q = negative(b_q)

    for i in range(0, count, BLOCK_N):
        m_n = o_n < count - i
        b_k = load_rows(p_k, o_n, m_n, K_N, D, BLOCK_D)
        if ONE_BLOCK:
            b_s = dot(b_k, tl.trans(b_q), PRECISION)  # [BLOCK_N, BLOCK_M]
            if BLOCK_M > M:
                b_s = tl.where((o_m < M)[None, :], b_s, float("-inf"))
            b_max = tl.max(b_s, 1) * factor
            b_a = tl.math.exp2(b_s * factor - b_max[:, None])
            b_sum = tl.sum(b_a, 1)
            b_y = dot(b_a.to(b_z.dtype), b_z, PRECISION)
        else:
            b_max = tl.full([BLOCK_N], float("-inf"), tl.float32)
            b_sum = tl.zeros([BLOCK_N], tl.float32)
            b_y = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
            for m in range(0, M, BLOCK_M):
                m_m = m + o_m < M
                b_q = load_rows(p_q + m * D, o_m, m_m, D, D, BLOCK_D)
                b_z = load_rows(p_z + m * D, o_m, m_m, D, D, BLOCK_D)
                if NEGATIVE:
                    b_q = negative(b_q)
                b_s = dot(b_k, tl.trans(b_q), PRECISION)
                if M % BLOCK_M != 0:
                    b_s = tl.where(m_m[None, :], b_s, float("-inf"))
                b_next = tl.maximum(b_max, tl.max(b_s, 1) * factor)
                b_old = tl.math.exp2(b_max - b_next)
                b_a = tl.math.exp2(b_s * factor - b_next[:, None])
                b_sum = b_sum * b_old + tl.sum(b_a, 1)
                b_y = b_y * b_old[:, None] + dot(b_a.to(b_z.dtype), b_z, PRECISION)
                b_max = b_next
        store_rows(p_y, b_y / b_sum[:, None], o_n, m_n, H * D, D)
        tl.store(p_r + o_n * H, b_max + tl.math.log2(b_sum), mask=m_n)
        p_k += BLOCK_N * K_N
        p_y += BLOCK_N * H * D
        p_r += BLOCK_N * H


def empty_r(k: Tensor) -> Tensor:
    """Room for the normaliser r, `[N, H]`."""
    return torch.empty(k.shape[:-1], dtype=torch.float32, device=k.device)


def decode(q: Tensor, k: Tensor, z: Tensor, ptr: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Features of the points and the log-normalisers of their softmax.

    Shapes:
        - **q:** `[H, M, D]` or `[B, H, M, D]`, contiguous; **k:** `[N, H, D]`, last stride 1;
          **z:** `[B, H, M, D]`, contiguous
        - **returns** y `[N, H, D]` in the dtype of z, r `[N, H]` float32, to the base 2
    """
    heads, latents, width = q.shape[-3:]
    num_points, num_clouds = k.shape[0], ptr.shape[0] - 1
    y = torch.empty(num_points, heads, width, dtype=z.dtype, device=k.device)
    r = empty_r(k)
    block = launch.blocks("decode_fwd", width, latents, q.dtype)
    size = launch.points_of_program(num_points, heads, block.n, k.device)
    programs = num_tiles(num_points, num_clouds, size) * heads
    if programs:
        factor, negative = exp2_factor(scale)
        decode_fwd_kernel[(programs,)](
            q,
            k,
            z,
            ptr,
            y,
            r,
            num_clouds,
            size,
            factor,
            H=heads,
            M=latents,
            D=width,
            K_N=k.stride(0),
            K_H=k.stride(1),
            Q_PER_CLOUD=q.ndim == 4,
            NEGATIVE=negative,
            BLOCK_M=block.m,
            BLOCK_N=block.n,
            BLOCK_D=launch.block_width(width),
            PRECISION=input_precision(q.dtype),
            num_warps=block.num_warps,
            num_stages=block.num_stages,
            **FMA,
        )
    return y, r
