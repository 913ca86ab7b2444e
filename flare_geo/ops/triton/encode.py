"""Encode: every program reads some points of one cloud, a second kernel merges their results.

    z = softmax_n(s q k^T) v,    l = log sum_n exp(s q k^T)

The sum over points is split, because M latents alone would leave most of a GPU idle.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from flare_geo.ops.triton import launch
from flare_geo.ops.triton.clouds import find_tile, load_rows, num_tiles, store_rows
from flare_geo.ops.triton.merge import merge_tiles
from flare_geo.ops.triton.precision import FMA, dot, exp2_factor, input_precision, negative


@triton.jit(do_not_specialize=["num_clouds", "size"])
def encode_fwd_kernel(  # type: ignore[no-untyped-def]
    p_q,
    p_k,
    p_v,
    p_ptr,
    p_parts,
    p_part_lse,
    num_clouds,
    size,
    factor,
    H: tl.constexpr,
    M: tl.constexpr,
    D: tl.constexpr,
    K_N: tl.constexpr,
    K_H: tl.constexpr,
    V_N: tl.constexpr,
    V_H: tl.constexpr,
    Q_PER_CLOUD: tl.constexpr,
    NEGATIVE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One head, one block of latents, one tile of points: z and its lse (base 2), both float32."""
    M_BLOCKS: tl.constexpr = (M + BLOCK_M - 1) // BLOCK_M
    # Heads run fastest: programs that start together share the cache lines of k and v.
    program = tl.program_id(0)
    h = program % H
    tile = program // (H * M_BLOCKS)
    b, begin, count = find_tile(p_ptr, tile, num_clouds, size)
    if count <= 0:
        return

    o_m = (program // H) % M_BLOCKS * BLOCK_M + tl.arange(0, BLOCK_M)
    m_m = o_m < M
    o_n = tl.arange(0, BLOCK_N)
    if Q_PER_CLOUD:
        p_q += b.to(tl.int64) * H * M * D
    b_q = load_rows(p_q + h * M * D, o_m, m_m, D, D, BLOCK_D)
    if NEGATIVE:  # factor is |factor|, so that the largest score stays the largest
        b_q = negative(b_q)
    p_k += begin * K_N + h * K_H
    p_v += begin * V_N + h * V_H

    b_max = tl.full([BLOCK_M], float("-inf"), tl.float32)
    b_sum = tl.zeros([BLOCK_M], tl.float32)
    b_z = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    for i in range(0, count, BLOCK_N):
        m_n = o_n < count - i
        b_k = load_rows(p_k, o_n, m_n, K_N, D, BLOCK_D)
        b_v = load_rows(p_v, o_n, m_n, V_N, D, BLOCK_D)
        b_s = dot(b_q, tl.trans(b_k), PRECISION)  # [BLOCK_M, BLOCK_N]
        if i + BLOCK_N > count:
            b_s = tl.where(m_n[None, :], b_s, float("-inf"))
        # Weights relative to the largest of this block, not of all so far: those of a block of
        # small scores would vanish in float16 although a million of them weigh something.
        b_top = tl.max(b_s, 1) * factor
        b_p = tl.math.exp2(b_s * factor - b_top[:, None])
        b_next = tl.maximum(b_max, b_top)
        b_old = tl.math.exp2(b_max - b_next)
        b_new = tl.math.exp2(b_top - b_next)
        b_sum = b_sum * b_old + tl.sum(b_p, 1) * b_new
        b_pv = dot(b_p.to(b_v.dtype), b_v, PRECISION)
        b_z = b_z * b_old[:, None] + b_pv * b_new[:, None]
        b_max = b_next
        p_k += BLOCK_N * K_N
        p_v += BLOCK_N * V_N

    part = tile.to(tl.int64) * H + h
    store_rows(p_parts + part * M * D, b_z / b_sum[:, None], o_m, m_m, D, D)
    tl.store(p_part_lse + part * M + o_m, b_max + tl.math.log2(b_sum), mask=m_m)


def encode(q: Tensor, k: Tensor, v: Tensor, ptr: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Latents and their log-normalisers.

    Shapes:
        - **q:** `[H, M, D]` or `[B, H, M, D]`, contiguous; **k, v:** `[N, H, D]`, last stride 1
        - **returns** z `[B, H, M, D]` in the dtype of v, lse `[B, H, M]` float32 (natural)
    """
    heads, latents, width = q.shape[-3:]
    num_clouds = ptr.shape[0] - 1
    block = launch.blocks("encode_fwd", width, latents, q.dtype)
    m_blocks = triton.cdiv(latents, block.m)
    size = launch.points_of_program(k.shape[0], heads * m_blocks, block.n, k.device)
    tiles = num_tiles(k.shape[0], num_clouds, size)
    parts = torch.empty(tiles, heads, latents, width, dtype=torch.float32, device=k.device)
    part_lse = torch.empty(tiles, heads, latents, dtype=torch.float32, device=k.device)
    if tiles:
        factor, negative = exp2_factor(scale)
        encode_fwd_kernel[(tiles * m_blocks * heads,)](
            q,
            k,
            v,
            ptr,
            parts,
            part_lse,
            num_clouds,
            size,
            factor,
            H=heads,
            M=latents,
            D=width,
            K_N=k.stride(0),
            K_H=k.stride(1),
            V_N=v.stride(0),
            V_H=v.stride(1),
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
    return merge_tiles(parts, part_lse, ptr, size, v.dtype)
