"""The kernel of the gradients through both softmaxes; formulas in `backward.py`."""

import triton
import triton.language as tl

from flare_geo.ops.triton.clouds import find_tile, load_rows, store_rows
from flare_geo.ops.triton.precision import dot

_LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def weights_again(b_s, b_l, b_r, m_n, full, HAS_ENCODE: tl.constexpr, HAS_DECODE: tl.constexpr):  # type: ignore[no-untyped-def]
    """P = exp2(S - l) and A = exp2(S - r), by one exponential per entry where that is exact enough.

    P = A 2^(r - R) 2^(R - l) with R = max r. While R - min l < 80, a weight P that is lost to an
    underflow of A or of 2^(r - R) is below 2^-46, and 2^(R - l) cannot overflow. Otherwise, and in
    the last block of a tile, P takes its own exponential.
    """
    b_a = b_s
    b_p = b_s
    if HAS_DECODE:
        b_a = tl.math.exp2(b_s - b_r[None, :])
    if HAS_ENCODE:
        if HAS_DECODE:
            top = tl.max(b_r, 0)
            if full & (top - tl.min(b_l, 0) < 80.0):
                b_p = b_a * tl.math.exp2(b_r - top)[None, :] * tl.math.exp2(top - b_l)[:, None]
            else:
                b_p = tl.math.exp2(tl.where(m_n[None, :], b_s - b_l[:, None], float("-inf")))
        else:
            b_p = tl.math.exp2(tl.where(m_n[None, :], b_s - b_l[:, None], float("-inf")))
    return b_p, b_a


@triton.jit
def score_gradient(  # type: ignore[no-untyped-def]
    b_q,
    b_k,
    b_v,
    b_dz,
    b_l,
    b_e,
    b_z,
    b_dy,
    b_r,
    b_c,
    m_n,
    m_m,
    full,
    factor,
    EVEN: tl.constexpr,
    HAS_ENCODE: tl.constexpr,
    HAS_DECODE: tl.constexpr,
    WIDE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """P and dS, both `[latents, points]`, for one block of latents and one of points."""
    b_s = dot(b_q, tl.trans(b_k), PRECISION) * factor
    if not EVEN:
        b_s = tl.where(m_m[:, None], b_s, float("-inf"))
    b_p, b_a = weights_again(b_s, b_l, b_r, m_n, full, HAS_ENCODE, HAS_DECODE)
    if HAS_DECODE:
        b_ds = b_a * (dot(b_z, tl.trans(b_dy), PRECISION) - b_c[None, :])
    else:
        b_ds = tl.zeros_like(b_s)
    if HAS_ENCODE:
        b_dp = dot(b_dz.to(WIDE), tl.trans(b_v.to(WIDE)), PRECISION)
        b_ds += b_p * (b_dp - b_e[:, None])
    return b_p.to(WIDE), b_ds.to(WIDE)


@triton.jit(do_not_specialize=["num_clouds", "size"])
def points_bwd_kernel(  # type: ignore[no-untyped-def]
    p_q,
    p_k,
    p_v,
    p_dz,
    p_l,
    p_e,
    p_z,
    p_y,
    p_dy,
    p_r,
    p_ptr,
    p_parts,
    p_dk,
    p_dv,
    num_clouds,
    size,
    scale,
    H: tl.constexpr,
    M: tl.constexpr,
    D: tl.constexpr,
    K_N: tl.constexpr,
    K_H: tl.constexpr,
    V_N: tl.constexpr,
    V_H: tl.constexpr,
    Q_PER_CLOUD: tl.constexpr,
    HAS_ENCODE: tl.constexpr,
    HAS_DECODE: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One head, one tile of points: dk, dv of its points, and its share of dq without `scale`.

    Points outside, latents inside. The share of dq stays in registers if the latents fit one block,
    else in the program's own part of a buffer, read and written again for every block of points.
    WIDE is the type in which P, dz and dS are multiplied: P is about 1/N and dz about N, which
    float16 does not hold.
    """
    ONE_BLOCK: tl.constexpr = BLOCK_M >= M
    EVEN: tl.constexpr = M % BLOCK_M == 0
    program = tl.program_id(0)
    h = program % H
    tile = program // H
    b, begin, count = find_tile(p_ptr, tile, num_clouds, size)
    if count <= 0:
        return

    o_n = tl.arange(0, BLOCK_N)
    o_m = tl.arange(0, BLOCK_M)
    if Q_PER_CLOUD:
        p_q += b.to(tl.int64) * H * M * D
    p_q += h * M * D
    latent = (b.to(tl.int64) * H + h) * M
    p_z += latent * D
    p_dz += latent * D
    p_l += latent
    p_e += latent
    p_parts += (tile.to(tl.int64) * H + h) * M * D
    p_k += begin * K_N + h * K_H
    p_v += begin * V_N + h * V_H
    point = begin * H + h
    p_y += point * D
    p_dy += point * D
    p_dk += point * D
    p_dv += point * D
    p_r += point

    # What a missing half would load is replaced by something of the right kind that is at hand.
    b_q = load_rows(p_q, o_m, o_m < M, D, D, BLOCK_D)
    b_z = b_q
    b_dz = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    b_l = tl.zeros([BLOCK_M], tl.float32)
    b_e = b_l
    b_r = tl.zeros([BLOCK_N], tl.float32)
    b_c = b_r
    if ONE_BLOCK:
        b_dq = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
        if HAS_ENCODE:
            b_dz = load_rows(p_dz, o_m, o_m < M, D, D, BLOCK_D)
            b_l = tl.load(p_l + o_m, mask=o_m < M, other=float("inf")) * _LOG2E
            b_e = tl.load(p_e + o_m, mask=o_m < M, other=0.0)
        if HAS_DECODE:
            b_z = load_rows(p_z, o_m, o_m < M, D, D, BLOCK_D)

    for i in range(0, count, BLOCK_N):
        m_n = o_n < count - i
        full = i + BLOCK_N <= count
        b_k = load_rows(p_k, o_n, m_n, K_N, D, BLOCK_D)
        b_v = b_k
        b_dy = b_k
        if HAS_ENCODE:
            b_v = load_rows(p_v, o_n, m_n, V_N, D, BLOCK_D)
        if HAS_DECODE:
            b_dy = load_rows(p_dy, o_n, m_n, H * D, D, BLOCK_D)
            b_y = load_rows(p_y, o_n, m_n, H * D, D, BLOCK_D)
            b_c = tl.sum(b_y.to(tl.float32) * b_dy.to(tl.float32), 1)
            b_r = tl.load(p_r + o_n * H, mask=m_n, other=float("inf"))  # A = 0 off the tile
        if ONE_BLOCK:
            b_p, b_ds = score_gradient(
                b_q, b_k, b_v, b_dz, b_l, b_e, b_z, b_dy, b_r, b_c, m_n, o_m < M, full,
                scale * _LOG2E, EVEN, HAS_ENCODE, HAS_DECODE, WIDE, PRECISION,
            )  # fmt: skip
            b_dk = dot(tl.trans(b_ds), b_q.to(WIDE), PRECISION)
            if HAS_ENCODE:
                b_dv = dot(tl.trans(b_p), b_dz.to(WIDE), PRECISION)
            b_dq += dot(b_ds, b_k.to(WIDE), PRECISION)
        else:
            b_dk = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
            b_dv = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
            for m in range(0, M, BLOCK_M):
                m_m = m + o_m < M
                b_q = load_rows(p_q + m * D, o_m, m_m, D, D, BLOCK_D)
                if HAS_ENCODE:
                    b_dz = load_rows(p_dz + m * D, o_m, m_m, D, D, BLOCK_D)
                    b_l = tl.load(p_l + m + o_m, mask=m_m, other=float("inf")) * _LOG2E
                    b_e = tl.load(p_e + m + o_m, mask=m_m, other=0.0)
                if HAS_DECODE:
                    b_z = load_rows(p_z + m * D, o_m, m_m, D, D, BLOCK_D)
                b_p, b_ds = score_gradient(
                    b_q, b_k, b_v, b_dz, b_l, b_e, b_z, b_dy, b_r, b_c, m_n, m_m, full,
                    scale * _LOG2E, EVEN, HAS_ENCODE, HAS_DECODE, WIDE, PRECISION,
                )  # fmt: skip
                b_dk += dot(tl.trans(b_ds), b_q.to(WIDE), PRECISION)
                if HAS_ENCODE:
                    b_dv += dot(tl.trans(b_p), b_dz.to(WIDE), PRECISION)
                b_dq = load_rows(p_parts + m * D, o_m, m_m & (i > 0), D, D, BLOCK_D)
                b_dq += dot(b_ds, b_k.to(WIDE), PRECISION)
                store_rows(p_parts + m * D, b_dq, o_m, m_m, D, D)
            tl.debug_barrier()  # the next block of points reads what other threads wrote
        store_rows(p_dk, b_dk * scale, o_n, m_n, H * D, D)
        if HAS_ENCODE:
            store_rows(p_dv, b_dv, o_n, m_n, H * D, D)
            p_v += BLOCK_N * V_N
            p_dv += BLOCK_N * H * D
        p_k += BLOCK_N * K_N
        p_dk += BLOCK_N * H * D
        p_y += BLOCK_N * H * D
        p_dy += BLOCK_N * H * D
        p_r += BLOCK_N * H

    if ONE_BLOCK:
        store_rows(p_parts, b_dq, o_m, o_m < M, D, D)
