"""Backward of encode and decode: softmax weights come back from the scores and their normalisers.

    A = exp2(S - r), P = exp2(S - l)            S = log2(e) s q k^T
    latents   dz = A dy                         needed first: the encode's gradient starts from it
    points    dS = A o (z dy^T - c) + P o (dz v^T - e),  c = y . dy,  e = z . dz - dl
              dv = P^T dz,  dk = s dS^T q,  dq = s dS k

`latents` is split over the points like the encode. `points` forms S once for both sides; a program
owns the rows dk, dv of its points and leaves a partial dq, so nothing is added atomically.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from flare_geo.ops.operators import Decoded, Encoded
from flare_geo.ops.triton import launch
from flare_geo.ops.triton.clouds import find_tile, load_rows, num_tiles, store_rows
from flare_geo.ops.triton.merge import sum_tiles
from flare_geo.ops.triton.points_backward import points_bwd_kernel
from flare_geo.ops.triton.precision import FMA, dot, input_precision


@triton.jit(do_not_specialize=["num_clouds", "size"])
def latents_bwd_kernel(  # type: ignore[no-untyped-def]
    p_q,
    p_k,
    p_dy,
    p_r,
    p_ptr,
    p_parts,
    num_clouds,
    size,
    factor,
    H: tl.constexpr,
    M: tl.constexpr,
    D: tl.constexpr,
    K_N: tl.constexpr,
    K_H: tl.constexpr,
    Q_PER_CLOUD: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One head, one block of latents, one tile of points: its share of dz, float32."""
    M_BLOCKS: tl.constexpr = (M + BLOCK_M - 1) // BLOCK_M
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
    p_k += begin * K_N + h * K_H
    p_dy += (begin * H + h) * D
    p_r += begin * H + h

    b_dz = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    for i in range(0, count, BLOCK_N):
        m_n = o_n < count - i
        b_k = load_rows(p_k, o_n, m_n, K_N, D, BLOCK_D)
        b_dy = load_rows(p_dy, o_n, m_n, H * D, D, BLOCK_D)
        b_r = tl.load(p_r + o_n * H, mask=m_n, other=float("inf"))  # A = 0 where there is no point
        b_s = dot(b_q, tl.trans(b_k), PRECISION) * factor  # [BLOCK_M, BLOCK_N]
        if M % BLOCK_M != 0:
            b_s = tl.where(m_m[:, None], b_s, float("-inf"))
        b_a = tl.math.exp2(b_s - b_r[None, :])
        b_dz += dot(b_a.to(b_dy.dtype), b_dy, PRECISION)
        p_k += BLOCK_N * K_N
        p_dy += BLOCK_N * H * D
        p_r += BLOCK_N * H

    part = tile.to(tl.int64) * H + h
    store_rows(p_parts + part * M * D, b_dz, o_m, m_m, D, D)


def latents_backward(
    q: Tensor, k: Tensor, z: Tensor, dy: Tensor, r: Tensor, ptr: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """Gradient of the latents and its products with them.

    Shapes:
        - **dy:** `[N, H, D]`, contiguous; **r:** `[N, H]`, base 2; the others as in `decode`
        - **returns** dz `[B, H, M, D]` and `sum_d z dz` `[B, H, M]`, float32
    """
    heads, latents, width = q.shape[-3:]
    num_clouds = ptr.shape[0] - 1
    block = launch.blocks("latents_bwd", width, latents, q.dtype)
    m_blocks = triton.cdiv(latents, block.m)
    size = launch.points_of_program(k.shape[0], heads * m_blocks, block.n, k.device)
    tiles = num_tiles(k.shape[0], num_clouds, size)
    parts = torch.empty(tiles, heads, latents, width, dtype=torch.float32, device=k.device)
    if tiles:
        latents_bwd_kernel[(tiles * m_blocks * heads,)](
            q,
            k,
            dy,
            r,
            ptr,
            parts,
            num_clouds,
            size,
            scale * math.log2(math.e),
            H=heads,
            M=latents,
            D=width,
            K_N=k.stride(0),
            K_H=k.stride(1),
            Q_PER_CLOUD=q.ndim == 4,
            BLOCK_M=block.m,
            BLOCK_N=block.n,
            BLOCK_D=launch.block_width(width),
            PRECISION=input_precision(q.dtype),
            num_warps=block.num_warps,
            num_stages=block.num_stages,
            **FMA,
        )
    return sum_tiles(parts, ptr, size, z=z)


def points_backward(
    q: Tensor,
    k: Tensor,
    ptr: Tensor,
    scale: float,
    *,
    encoded: Encoded | None = None,
    decoded: Decoded | None = None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Gradients of q, k and v through the encode, the decode or both.

    Args:
        q: queries `[H, M, D]` or `[B, H, M, D]`, contiguous.
        k: keys `[N, H, D]`, last stride 1.
        ptr: `[B+1]`.
        scale: factor of the scores.
        encoded: `v [N, H, D]`, `dz [B, H, M, D]` float32, `lse`, `e` `[B, H, M]`.
        decoded: `z [B, H, M, D]`, `y, dy [N, H, D]`, `r [N, H]`, base 2.

    Returns:
        dq, dk, dv in the shapes and dtype of q and k; dv is None without `encoded`.
    """
    heads, latents, width = q.shape[-3:]
    num_points, num_clouds = k.shape[0], ptr.shape[0] - 1
    block = launch.blocks("points_bwd", width, latents, q.dtype)
    size = launch.points_of_program(num_points, heads, block.n, k.device)
    tiles = num_tiles(num_points, num_clouds, size)
    dk = torch.empty(num_points, heads, width, dtype=k.dtype, device=k.device)
    dv = torch.empty_like(dk) if encoded else None
    parts = torch.empty(tiles, heads, latents, width, dtype=torch.float32, device=k.device)
    # Arguments of the half that is not there are never read.
    v, dz, lse, e = encoded or (k, parts, parts, parts)
    z, y, dy, r = decoded or (k, k, k, parts)
    if tiles:
        points_bwd_kernel[(tiles * heads,)](
            q,
            k,
            v,
            dz,
            lse,
            e,
            z,
            y,
            dy,
            r,
            ptr,
            parts,
            dk,
            dk if dv is None else dv,
            num_clouds,
            size,
            scale,
            H=heads,
            M=latents,
            D=width,
            K_N=k.stride(0),
            K_H=k.stride(1),
            V_N=v.stride(0),
            V_H=v.stride(1),
            Q_PER_CLOUD=q.ndim == 4,
            HAS_ENCODE=encoded is not None,
            HAS_DECODE=decoded is not None,
            WIDE=tl.bfloat16 if q.dtype == torch.bfloat16 else tl.float32,
            BLOCK_M=block.m,
            BLOCK_N=block.n,
            BLOCK_D=launch.block_width(width),
            PRECISION=input_precision(q.dtype),
            num_warps=block.num_warps,
            num_stages=block.num_stages,
            **FMA,
        )
    dq, _ = sum_tiles(parts, ptr, size, factor=scale)  # [B, H, M, D]
    if q.ndim == 3:
        dq = dq.sum(0)
    return dq.to(q.dtype), dk, dv
