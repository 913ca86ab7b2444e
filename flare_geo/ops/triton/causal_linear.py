"""Causal linear attention by Triton kernels: y_t = s sum_{tau <= t} (q_t . k_tau) v_tau.

1. A cloud is cut into tiles of `span` points, a tile into blocks of BLOCK_N. One program sums the
   state `sum k v^T [D, E]` of a tile.
2. The states of the tiles of a cloud are replaced by the sums of those before them, in order.
3. One program walks through the blocks of a tile with the state in registers:
   y = (q k^T o mask) v + q S, then S += k^T v.

There are only as many tiles as fill the device, so the states cost little memory and time. With
REVERSE a point sees itself and those after it. All three gradients are the same operation,

    dq = f(dy, v, k),    dk = f_reverse(v, dy, q),    dv = f_reverse(k, q, dy),

which is linear in each argument: so gradients of gradients exist too.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from flare_geo.ops.triton.clouds import find_tile, num_tiles
from flare_geo.ops.triton.precision import FMA, dot, input_precision


@triton.jit
def load_block(p_x, o_row, m_row, o_col, WIDTH, stride):  # type: ignore[no-untyped-def]
    """`[rows, columns]` of one head of a packed tensor; zeros beyond the cloud and the width."""
    mask = m_row[:, None] & (o_col < WIDTH)[None, :]
    return tl.load(p_x + o_row[:, None] * stride + o_col[None, :], mask=mask, other=0.0)


@triton.jit
def causal_linear_state_fwd_kernel(  # type: ignore[no-untyped-def]
    p_k,
    p_v,
    p_state,
    p_ptr,
    num_clouds,
    span,
    heads,
    s_kn,
    s_kh,
    s_vn,
    s_vh,
    D: tl.constexpr,
    E: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_E: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """State `[D, E]` of one tile and head."""
    head = (tl.program_id(0) % heads).to(tl.int64)
    tile = tl.program_id(0) // heads
    _, start, count = find_tile(p_ptr, tile, num_clouds, span)
    if count > 0:
        o_d = tl.arange(0, BLOCK_D)
        o_e = tl.program_id(1) * BLOCK_E + tl.arange(0, BLOCK_E)
        b_state = tl.zeros([BLOCK_D, BLOCK_E], dtype=tl.float32)
        for o in range(0, count, BLOCK_N):
            o_i = o + tl.arange(0, BLOCK_N)
            o_n, m_n = start + o_i, o_i < count
            b_k = load_block(p_k + head * s_kh, o_n, m_n, o_d, D, s_kn)
            b_v = load_block(p_v + head * s_vh, o_n, m_n, o_e, E, s_vn)
            b_state += dot(tl.trans(b_k), b_v, PRECISION)
        p_out = p_state + (tile.to(tl.int64) * heads + head) * D * E
        m_out = (o_d < D)[:, None] & (o_e < E)[None, :]
        tl.store(p_out + o_d[:, None] * E + o_e[None, :], b_state, mask=m_out)


@triton.jit
def causal_linear_prefix_fwd_kernel(  # type: ignore[no-untyped-def]
    p_state,
    p_ptr,
    span,
    size,
    BLOCK: tl.constexpr,
    REVERSE: tl.constexpr,
):
    """Exclusive sums over the tiles of one cloud, in place; `size` numbers a tile."""
    blocks = tl.cdiv(size, BLOCK)
    cloud = tl.program_id(0) // blocks
    o_x = (tl.program_id(0) % blocks) * BLOCK + tl.arange(0, BLOCK)
    m_x = o_x < size
    start = tl.load(p_ptr + cloud)
    tiles = tl.cdiv(tl.load(p_ptr + cloud + 1) - start, span)
    first = start // span + cloud
    b_sum = tl.zeros([BLOCK], dtype=tl.float32)
    for i in tl.range(0, tiles, num_stages=4):
        tile = first + (tiles - 1 - i if REVERSE else i)
        p_x = p_state + tile * size + o_x
        b_x = tl.load(p_x, mask=m_x, other=0.0)
        tl.store(p_x, b_sum, mask=m_x)
        b_sum += b_x


@triton.jit
def causal_linear_fwd_kernel(  # type: ignore[no-untyped-def]
    p_q,
    p_k,
    p_v,
    p_state,
    p_y,
    p_ptr,
    num_clouds,
    span,
    heads,
    scale,
    s_qn,
    s_qh,
    s_kn,
    s_kh,
    s_vn,
    s_vh,
    D: tl.constexpr,
    E: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_E: tl.constexpr,
    PRECISION: tl.constexpr,
    WIDE: tl.constexpr,
    REVERSE: tl.constexpr,
):
    """Outputs of one tile and head. WIDE: scores and states enter products as float32."""
    head = (tl.program_id(0) % heads).to(tl.int64)
    tile = tl.program_id(0) // heads
    _, start, count = find_tile(p_ptr, tile, num_clouds, span)
    if count > 0:
        o_d = tl.arange(0, BLOCK_D)
        o_e = tl.program_id(1) * BLOCK_E + tl.arange(0, BLOCK_E)
        o_i = tl.arange(0, BLOCK_N)
        m_seen = o_i[:, None] <= o_i[None, :] if REVERSE else o_i[:, None] >= o_i[None, :]
        p_in = p_state + (tile.to(tl.int64) * heads + head) * D * E
        m_in = (o_d < D)[:, None] & (o_e < E)[None, :]
        b_state = tl.load(p_in + o_d[:, None] * E + o_e[None, :], mask=m_in, other=0.0)
        blocks = tl.cdiv(count, BLOCK_N)
        for i in range(blocks):
            o_b = (blocks - 1 - i if REVERSE else i) * BLOCK_N + o_i
            o_n, m_n = start + o_b, o_b < count
            b_q = load_block(p_q + head * s_qh, o_n, m_n, o_d, D, s_qn)
            b_k = load_block(p_k + head * s_kh, o_n, m_n, o_d, D, s_kn)
            b_v = load_block(p_v + head * s_vh, o_n, m_n, o_e, E, s_vn)
            mixed = tl.float32 if WIDE else b_v.dtype
            b_scores = tl.where(m_seen, dot(b_q, tl.trans(b_k), PRECISION), 0.0).to(mixed)
            b_y = dot(b_q.to(mixed), b_state.to(mixed), PRECISION)
            b_y += dot(b_scores, b_v.to(mixed), PRECISION)
            p_out = p_y + (o_n[:, None] * heads + head) * E + o_e[None, :]
            m_out = m_n[:, None] & (o_e < E)[None, :]
            tl.store(p_out, (scale * b_y).to(p_y.dtype.element_ty), mask=m_out)
            b_state += dot(tl.trans(b_k), b_v, PRECISION)


def blocks(widths: tuple[int, int], chunk: int, dtype: torch.dtype) -> tuple[dict[str, int], int]:
    """Block sizes for widths (D, E) and chunks of so many points, and the number of warps.

    The state, the scores and the rows of a chunk share the registers: see
    `tests/ops/kernels/compile.py`.
    """
    block_d, block_e = (max(16, triton.next_power_of_2(w)) for w in widths)
    block_n = max(16, triton.next_power_of_2(chunk))
    widest = max(block_d, block_e)
    if input_precision(dtype) == "ieee":  # no tensor cores: small blocks, multiplied in registers
        most_n, most_e, warps = (32 if widest <= 32 else 16), 16, 4
    else:
        narrow = widest > 64 or (widest > 32 and dtype == torch.float32)
        most_n, most_e, warps = (32 if narrow else 64), 32, (4 if widest <= 32 else 8)
    constants = {"BLOCK_N": min(block_n, most_n), "BLOCK_E": min(block_e, most_e)}
    return {**constants, "BLOCK_D": block_d}, warps


def span_of(points: int, programs: int, block: int, device: torch.device) -> int:
    """Points of a tile, when so many programs work on each: from shapes and the device only.

    Eight programs a multiprocessor fill the device and even out the last wave; fewer tiles would
    mean fewer states, which are small beside the points.
    """
    cuda = device.type == "cuda"
    number = torch.cuda.get_device_properties(device).multi_processor_count if cuda else 4
    return block * max(1, -(-points * programs // (8 * number * block)))


@torch.library.custom_op("flare_geo::causal_linear", mutates_args=())
def causal_linear(
    q: Tensor, k: Tensor, v: Tensor, ptr: Tensor, scale: float, chunk_size: int, reverse: bool
) -> Tensor:
    """`y [N, H, E]` of `q, k [N, H, D]`, `v [N, H, E]`; `reverse`: from the end of each cloud."""
    q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
    (points, heads, width), outputs, clouds = q.shape, v.shape[-1], ptr.numel() - 1
    y = torch.empty(v.shape, dtype=v.dtype, device=v.device)
    if y.numel() == 0:
        return y
    sizes, warps = blocks((width, outputs), chunk_size, q.dtype)
    parts = triton.cdiv(outputs, sizes["BLOCK_E"])
    span = span_of(points, heads * parts, sizes["BLOCK_N"], q.device)
    tiles = num_tiles(points, clouds, span)
    states = torch.empty(tiles, heads, width, outputs, dtype=torch.float32, device=q.device)
    strides = [s for x in (q, k, v) for s in x.stride()[:2]]
    common = {"D": width, "E": outputs, "PRECISION": input_precision(q.dtype)}
    common |= {"num_warps": warps, **FMA}
    with torch.cuda.device_of(q):  # type: ignore[no-untyped-call]
        causal_linear_state_fwd_kernel[(tiles * heads, parts)](
            *(k, v, states, ptr, clouds, span, heads), *strides[2:], **common, **sizes
        )
        size = heads * width * outputs
        causal_linear_prefix_fwd_kernel[(clouds * triton.cdiv(size, 256),)](
            states, ptr, span, size, BLOCK=256, REVERSE=reverse, **FMA
        )
        causal_linear_fwd_kernel[(tiles * heads, parts)](
            *(q, k, v, states, y, ptr, clouds, span, heads, scale, *strides),
            **common,
            **sizes,
            WIDE=q.dtype == torch.float16,  # sums may pass its largest number, 65504
            REVERSE=reverse,
        )
    return y


@causal_linear.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, ptr: Tensor, scale: float, chunk_size: int, reverse: bool
) -> Tensor:
    return torch.empty(v.shape, dtype=v.dtype, device=v.device)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:4])
    ctx.options = inputs[4:]


def _backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    q, k, v, ptr = ctx.saved_tensors
    scale, chunk_size, reverse = ctx.options
    needs = ctx.needs_input_grad
    dq = causal_linear(dy, v, k, ptr, scale, chunk_size, reverse) if needs[0] else None
    dk = causal_linear(v, dy, q, ptr, scale, chunk_size, not reverse) if needs[1] else None
    dv = causal_linear(k, q, dy, ptr, scale, chunk_size, not reverse) if needs[2] else None
    return dq, dk, dv, None, None, None, None


causal_linear.register_autograd(_backward, setup_context=_save)
