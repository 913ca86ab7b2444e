"""Merge the results of the tiles of a cloud, always in the same order.

weighted   l = log2 sum_t 2^l_t,  z = sum_t 2^(l_t - l) z_t       encodings of the tiles
plain      x = factor sum_t x_t                                   gradients
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from flare_geo.ops.triton import launch
from flare_geo.ops.triton.precision import FMA

_LN2 = tl.constexpr(0.6931471805599453)


@triton.jit(do_not_specialize=["size"])
def merge_kernel(  # type: ignore[no-untyped-def]
    p_parts,
    p_part_lse,
    p_ptr,
    p_z,
    p_out,
    p_lse,
    p_inner,
    size,
    factor,
    H: tl.constexpr,
    M: tl.constexpr,
    D: tl.constexpr,
    WEIGHTED: tl.constexpr,
    HAS_Z: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One cloud, one head, one block of latents; with HAS_Z also the inner products `z . out`."""
    M_BLOCKS: tl.constexpr = (M + BLOCK_M - 1) // BLOCK_M
    program = tl.program_id(0)
    o_m = program % M_BLOCKS * BLOCK_M + tl.arange(0, BLOCK_M)
    h = program // M_BLOCKS % H
    b = program // (M_BLOCKS * H)
    o_t = tl.arange(0, BLOCK_T)
    o_d = tl.arange(0, BLOCK_D)
    m_m = o_m < M
    m_x = m_m[:, None] & (o_d < D)[None, :]
    o_x = o_m[:, None] * D + o_d[None, :]

    start = tl.load(p_ptr + b)
    end = tl.load(p_ptr + b + 1)
    tiles = ((end - start + size - 1) // size).to(tl.int32)
    part = (start // size + b) * H + h
    p_parts += part * M * D
    p_part_lse += part * M

    b_max = tl.full([BLOCK_M], float("-inf"), tl.float32)
    b_sum = tl.zeros([BLOCK_M], tl.float32)
    b_x = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    for t in range(0, tiles, BLOCK_T):
        m_t = o_t < tiles - t
        b_part = tl.load(
            p_parts + o_t[:, None, None] * (H * M * D) + o_x[None, :, :],
            mask=m_t[:, None, None] & m_x[None, :, :],
            other=0.0,
        )  # [BLOCK_T, BLOCK_M, BLOCK_D]
        if WEIGHTED:
            b_l = tl.load(
                p_part_lse + o_t[:, None] * (H * M) + o_m[None, :],
                mask=m_t[:, None] & m_m[None, :],
                other=float("-inf"),
            )
            b_l = tl.where(m_m[None, :], b_l, 0.0)  # -inf - -inf below would be NaN
            b_next = tl.maximum(b_max, tl.max(b_l, 0))
            b_old = tl.math.exp2(b_max - b_next)
            b_w = tl.math.exp2(b_l - b_next[None, :])
            b_sum = b_sum * b_old + tl.sum(b_w, 0)
            b_x = b_x * b_old[:, None] + tl.sum(b_part * b_w[:, :, None], 0)
            b_max = b_next
        else:
            b_x += tl.sum(b_part, 0)
        p_parts += BLOCK_T * H * M * D
        p_part_lse += BLOCK_T * H * M

    o_out = (b.to(tl.int64) * H + h) * M
    if WEIGHTED:
        b_sum = tl.where(b_sum == 0, 1.0, b_sum)  # no point: z = 0, lse = -inf
        b_x = b_x / b_sum[:, None]
        tl.store(p_lse + o_out + o_m, (b_max + tl.math.log2(b_sum)) * _LN2, mask=m_m)
    else:
        b_x *= factor
    tl.store(p_out + o_out * D + o_x, b_x.to(p_out.dtype.element_ty), mask=m_x)
    if HAS_Z:
        b_z = tl.load(p_z + o_out * D + o_x, mask=m_x, other=0.0).to(tl.float32)
        tl.store(p_inner + o_out + o_m, tl.sum(b_x * b_z, 1), mask=m_m)


def merge_tiles(
    parts: Tensor, part_lse: Tensor, ptr: Tensor, size: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Encodings of tiles of `size` points to those of clouds.

    Shapes:
        - **parts:** `[T, H, M, D]` float32; **part_lse:** `[T, H, M]` float32, base 2
        - **returns** z `[B, H, M, D]` in `dtype`, lse `[B, H, M]` float32, natural
    """
    shape = (ptr.shape[0] - 1, *parts.shape[1:])
    z = torch.empty(shape, dtype=dtype, device=parts.device)
    lse = torch.empty(shape[:-1], dtype=torch.float32, device=parts.device)
    _launch(parts, part_lse, ptr, parts, z, lse, lse, size, 1.0, True, False)
    return z, lse


def sum_tiles(
    parts: Tensor, ptr: Tensor, size: int, factor: float = 1.0, z: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`factor` times the sum over the tiles of each cloud and, if z is there, its product with z.

    Shapes:
        - **parts:** `[T, H, M, D]` float32; **z:** `[B, H, M, D]`
        - **returns** x `[B, H, M, D]` and `sum_d x z` `[B, H, M]` (unset without z), float32
    """
    shape = (ptr.shape[0] - 1, *parts.shape[1:])
    out = torch.empty(shape, dtype=torch.float32, device=parts.device)
    inner = torch.empty(shape[:-1], dtype=torch.float32, device=parts.device)
    other = parts if z is None else z
    _launch(parts, parts, ptr, other, out, inner, inner, size, factor, False, z is not None)
    return out, inner


def _launch(
    parts: Tensor,
    part_lse: Tensor,
    ptr: Tensor,
    z: Tensor,
    out: Tensor,
    lse: Tensor,
    inner: Tensor,
    size: int,
    factor: float,
    weighted: bool,
    has_z: bool,
) -> None:
    clouds, heads, latents, width = out.shape
    block_d = launch.block_width(width)
    block_m = 4
    programs = clouds * heads * triton.cdiv(latents, block_m)
    if programs == 0:
        return
    merge_kernel[(programs,)](
        parts,
        part_lse,
        ptr,
        z,
        out,
        lse,
        inner,
        size,
        factor,
        H=heads,
        M=latents,
        D=width,
        WEIGHTED=weighted,
        HAS_Z=has_z,
        BLOCK_T=256 // block_d,
        BLOCK_M=block_m,
        BLOCK_D=block_d,
        num_warps=4,
        **FMA,
    )
