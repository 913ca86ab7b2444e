"""Kernels of triple attention; `triple.py` says what they compute and launches them."""

import triton
import triton.language as tl

from flare_geo.ops.triton.clouds import find_tile, load_block
from flare_geo.ops.triton.precision import dot


@triton.jit
def triple_state_fwd_kernel(  # type: ignore[no-untyped-def]
    p_a,
    p_b,
    p_c,
    p_part,
    p_ptr,
    num_clouds,
    span,
    heads,
    s_an,
    s_ah,
    s_bn,
    s_bh,
    s_cn,
    s_ch,
    D: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_I: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PRECISION: tl.constexpr,
    OPERAND: tl.constexpr,
):
    """BLOCK_I slices `S_i` of the sum over one tile; rows (i, j), columns k."""
    head = (tl.program_id(0) % heads).to(tl.int64)
    tile = tl.program_id(0) // heads
    _, start, count = find_tile(p_ptr, tile, num_clouds, span)
    if count > 0:
        o_d = tl.arange(0, BLOCK_D)
        o_a = tl.program_id(1) * BLOCK_I + tl.arange(0, BLOCK_I)
        b_sum = tl.zeros([BLOCK_I * BLOCK_D, BLOCK_D], dtype=tl.float32)
        for o in range(0, count, BLOCK_N):
            o_i = o + tl.arange(0, BLOCK_N)
            o_n, m_n = start + o_i, o_i < count
            b_a = load_block(p_a + head * s_ah, o_n, m_n, o_a, D, s_an).to(tl.float32)
            b_b = load_block(p_b + head * s_bh, o_n, m_n, o_d, D, s_bn).to(tl.float32)
            b_c = load_block(p_c + head * s_ch, o_n, m_n, o_d, D, s_cn)
            b_ab = tl.trans(b_a)[:, None, :] * tl.trans(b_b)[None, :, :]
            b_ab = tl.reshape(b_ab, [BLOCK_I * BLOCK_D, BLOCK_N]).to(OPERAND)
            b_sum += dot(b_ab, b_c.to(OPERAND), PRECISION)
        o_row = tl.arange(0, BLOCK_I * BLOCK_D)
        o_i = tl.program_id(1) * BLOCK_I + o_row // BLOCK_D
        o_j = o_row % BLOCK_D
        m_ijk = ((o_i < D) & (o_j < D))[:, None] & (o_d < D)[None, :]
        p_out = p_part + (tile.to(tl.int64) * heads + head) * D * D * D
        tl.store(p_out + ((o_i * D + o_j) * D)[:, None] + o_d[None, :], b_sum, mask=m_ijk)


@triton.jit
def triple_merge_fwd_kernel(  # type: ignore[no-untyped-def]
    p_part,
    p_state,
    p_ptr,
    span,
    size,
    BLOCK: tl.constexpr,
    MEAN: tl.constexpr,
):
    """Sum, or mean over the points, of the tiles of one cloud, in order; `size` numbers a tile."""
    blocks = tl.cdiv(size, BLOCK)
    cloud = (tl.program_id(0) // blocks).to(tl.int64)
    o_x = (tl.program_id(0) % blocks) * BLOCK + tl.arange(0, BLOCK)
    m_x = o_x < size
    start = tl.load(p_ptr + cloud)
    count = tl.load(p_ptr + cloud + 1) - start
    first = start // span + cloud
    b_sum = tl.zeros([BLOCK], dtype=tl.float32)
    for i in tl.range(0, tl.cdiv(count, span), num_stages=4):
        b_sum += tl.load(p_part + (first + i) * size + o_x, mask=m_x, other=0.0)
    if MEAN:
        b_sum = b_sum / tl.maximum(count, 1).to(tl.float32)
    tl.store(p_state + cloud * size + o_x, b_sum, mask=m_x)


@triton.jit
def triple_contract_kernel(  # type: ignore[no-untyped-def]
    p_a,
    p_b,
    p_c,
    p_g,
    p_da,
    p_db,
    p_dc,
    p_ptr,
    num_clouds,
    heads,
    s_an,
    s_ah,
    s_bn,
    s_bh,
    s_cn,
    s_ch,
    D: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_I: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
    OPERAND: tl.constexpr,
    MEAN: tl.constexpr,
    OUTER: tl.constexpr,
    MIDDLE: tl.constexpr,
):
    """Contractions of one tile of BLOCK_N points: MIDDLE writes db, OUTER da and dc."""
    head = (tl.program_id(0) % heads).to(tl.int64)
    tile = tl.program_id(0) // heads
    cloud, start, count = find_tile(p_ptr, tile, num_clouds, BLOCK_N)
    if count > 0:
        o_t = tl.arange(0, BLOCK_N)
        o_n, m_n = start + o_t, o_t < count
        o_d = tl.arange(0, BLOCK_D)
        o_k = tl.arange(0, BLOCK_K)  # summed by the matrix product, which needs at least 16
        o_col = tl.arange(0, BLOCK_I * BLOCK_D)
        o_j = o_col % BLOCK_D
        weight = 1.0
        if MEAN:
            points = tl.load(p_ptr + cloud + 1) - tl.load(p_ptr + cloud)
            weight = 1.0 / points.to(tl.float32)
        p_a += head * s_ah
        p_g += (cloud.to(tl.int64) * heads + head) * D * D * D
        m_out = m_n[:, None] & (o_d < D)[None, :]
        o_out = (o_n[:, None] * heads + head) * D
        b_c = load_block(p_c + head * s_ch, o_n, m_n, o_k, D, s_cn).to(OPERAND)
        b_db = tl.zeros([BLOCK_N, BLOCK_D], dtype=tl.float32)
        b_dc = tl.zeros([BLOCK_N, BLOCK_D], dtype=tl.float32)
        if OUTER:
            p_b += head * s_bh
            b_left = load_block(p_b, o_n, m_n, o_k, D, s_bn).to(OPERAND)
            b_b = load_block(p_b, o_n, m_n, o_d, D, s_bn).to(tl.float32)
        for i in range(0, D, BLOCK_I):
            o_a = i + tl.arange(0, BLOCK_I)
            o_i = i + o_col // BLOCK_D
            b_a = load_block(p_a, o_n, m_n, o_a, D, s_an).to(tl.float32)
            m_g = (o_k < D)[:, None] & ((o_i < D) & (o_j < D))[None, :]
            o_g = (o_i * D * D + o_j * D)[None, :] + o_k[:, None]
            b_g = tl.load(p_g + o_g, mask=m_g, other=0.0).to(OPERAND)  # [k, (i, j)]
            b_t = tl.reshape(dot(b_c, b_g, PRECISION), [BLOCK_N, BLOCK_I, BLOCK_D])
            if MIDDLE:
                b_db += tl.sum(b_t * b_a[:, :, None], axis=1)
            if OUTER:
                b_da = weight * tl.sum(b_t * b_b[:, None, :], axis=2)
                m_da = m_n[:, None] & (o_a < D)[None, :]
                tl.store(p_da + o_out + o_a[None, :], b_da.to(p_da.dtype.element_ty), mask=m_da)
                o_g = (o_i * D * D + o_j)[None, :] + (o_k * D)[:, None]
                b_g = tl.load(p_g + o_g, mask=m_g, other=0.0).to(OPERAND)  # [j, (i, k)]
                b_t = tl.reshape(dot(b_left, b_g, PRECISION), [BLOCK_N, BLOCK_I, BLOCK_D])
                b_dc += tl.sum(b_t * b_a[:, :, None], axis=1)
        if MIDDLE:
            b_db = (weight * b_db).to(p_db.dtype.element_ty)
            tl.store(p_db + o_out + o_d[None, :], b_db, mask=m_out)
        if OUTER:
            b_dc = (weight * b_dc).to(p_dc.dtype.element_ty)
            tl.store(p_dc + o_out + o_d[None, :], b_dc, mask=m_out)
