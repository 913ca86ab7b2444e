"""Triple attention by Triton kernels: all of it, gradients included, is two contractions.

    state      S_ijk = sum_n a_ni b_nj c_nk            points to a state of width D x D x D
    contract   da_i = sum_jk G_ijk b_j c_k             a state and points to points
               db_j = sum_ik G_ijk a_i c_k
               dc_k = sum_ij G_ijk a_i b_j

The output y is `db` for a = q1, c = q2, G = S. The gradients of a state are all three for G = dS;
those of an output are a state of (q1, dy, q2), and `da, dc` for b = dy, G = S.

The D^2 products of a point exist on chip only. The sum over points is split over tiles of `span`
points, whose partial states are added in order. `contract` forms `T_ij = sum_k G_ijk c_k` once, as
one matrix product for a block of i, and takes both da and db from it.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from flare_geo.ops.layout import Layout
from flare_geo.ops.triton.clouds import num_tiles
from flare_geo.ops.triton.launch import span_of
from flare_geo.ops.triton.precision import FMA, input_precision
from flare_geo.ops.triton.triple_kernels import (
    triple_contract_kernel,
    triple_merge_fwd_kernel,
    triple_state_fwd_kernel,
)


def mean_of_products(a: Tensor, b: Tensor, c: Tensor, layout: Layout) -> Tensor:
    """As :func:`flare_geo.ops.triple_torch.mean_of_products`, for one width D: float32."""
    state: Tensor = triple_state(a, b, c, layout.ptr, True)
    return state


def read_state(a: Tensor, state: Tensor, c: Tensor, layout: Layout) -> Tensor:
    """As :func:`flare_geo.ops.triple_torch.read_state`, for one width D."""
    y: Tensor = triple_output(a, state, c, layout.ptr)
    return y


def blocks(width: int, dtype: torch.dtype) -> tuple[dict[str, int], dict[str, int]]:
    """Block sizes of the state kernel and of the contraction.

    BLOCK_I bounds the registers of the accumulated state, or of the products; see
    `tests/ops/kernels/compile.py`.
    """
    block_d = max(4, triton.next_power_of_2(width))
    exact = input_precision(dtype) == "ieee"  # no tensor cores: smaller blocks
    slices, points, tile = (128, 32, 32) if exact else (256, 64, 128 if block_d <= 8 else 64)
    state = {"BLOCK_N": points, "BLOCK_I": min(block_d, slices // block_d)}
    contract = {"BLOCK_N": tile, "BLOCK_I": min(block_d, 64 // block_d)}
    return (
        {**state, "BLOCK_D": block_d},
        {**contract, "BLOCK_D": block_d, "BLOCK_K": max(16, block_d)},
    )


def operands(dtype: torch.dtype) -> dict[str, Any]:
    """What the products multiply: sums over points pass the range of float16, so tf32 there."""
    operand = tl.bfloat16 if dtype == torch.bfloat16 else tl.float32
    return {"OPERAND": operand, "PRECISION": input_precision(dtype)}


def _rows(*packed: Tensor) -> tuple[list[Tensor], list[int]]:
    """The tensors with adjacent channels, and their strides over points and heads."""
    dense = [x if x.stride(-1) == 1 else x.contiguous() for x in packed]
    return dense, [s for x in dense for s in x.stride()[:2]]


@torch.library.custom_op("flare_geo::triple_state", mutates_args=())
def triple_state(a: Tensor, b: Tensor, c: Tensor, ptr: Tensor, mean: bool) -> Tensor:
    """`S [B, H, D, D, D]` float32 of `a, b, c [N, H, D]`: sums, or means, over each cloud."""
    (points, heads, width), clouds = a.shape, ptr.numel() - 1
    state = torch.empty(clouds, heads, width, width, width, dtype=torch.float32, device=a.device)
    if state.numel() == 0:
        return state
    packed, strides = _rows(a, b, c)
    sizes, _ = blocks(width, a.dtype)
    parts = triton.cdiv(width, sizes["BLOCK_I"])
    span = span_of(points, heads * parts, sizes["BLOCK_N"], a.device)
    tiles = num_tiles(points, clouds, span)
    partial = torch.empty(tiles, *state.shape[1:], dtype=torch.float32, device=a.device)
    with torch.cuda.device_of(a):  # type: ignore[no-untyped-call]
        triple_state_fwd_kernel[(tiles * heads, parts)](
            *(*packed, partial, ptr, clouds, span, heads, *strides),
            D=width,
            **sizes,
            **operands(a.dtype),
            **FMA,
        )
        size = heads * width**3
        triple_merge_fwd_kernel[(clouds * triton.cdiv(size, 256),)](
            partial, state, ptr, span, size, BLOCK=256, MEAN=mean, **FMA
        )
    return state


@triple_state.register_fake
def _(a: Tensor, b: Tensor, c: Tensor, ptr: Tensor, mean: bool) -> Tensor:
    _, heads, width = a.shape
    shape = (ptr.shape[0] - 1, heads, width, width, width)
    return torch.empty(shape, dtype=torch.float32, device=a.device)


@torch.library.custom_op("flare_geo::triple_output", mutates_args=())
def triple_output(q1: Tensor, state: Tensor, q2: Tensor, ptr: Tensor) -> Tensor:
    """`y [N, H, D]` of `q1, q2 [N, H, D]` and the states of the clouds, float32."""
    y = torch.empty(q1.shape, dtype=q1.dtype, device=q1.device)
    _contract((q1, q1, q2), state, ptr, (None, y, None), mean=False)
    return y


@triple_output.register_fake
def _(q1: Tensor, state: Tensor, q2: Tensor, ptr: Tensor) -> Tensor:
    return torch.empty(q1.shape, dtype=q1.dtype, device=q1.device)


@torch.library.custom_op("flare_geo::triple_gradients", mutates_args=())
def triple_gradients(
    a: Tensor, b: Tensor, c: Tensor, g: Tensor, ptr: Tensor, mean: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """`da, db, dc [N, H, D]` from `G [B, H, D, D, D]`.

    With `mean` divided by the points of the cloud; without it db is not wanted and has no row.
    """
    da, db, dc = _like(a, b, c, mean)
    _contract((a, b, c), g, ptr, (da, db if mean else None, dc), mean)
    return da, db, dc


@triple_gradients.register_fake
def _(
    a: Tensor, b: Tensor, c: Tensor, g: Tensor, ptr: Tensor, mean: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return _like(a, b, c, mean)


def _like(a: Tensor, b: Tensor, c: Tensor, middle: bool) -> tuple[Tensor, Tensor, Tensor]:
    shape_b = b.shape if middle else (0, *b.shape[1:])
    shapes = (a.shape, shape_b, c.shape)
    da, db, dc = (torch.empty(s, dtype=a.dtype, device=a.device) for s in shapes)
    return da, db, dc


def _contract(
    packed: tuple[Tensor, Tensor, Tensor],
    g: Tensor,
    ptr: Tensor,
    outputs: tuple[Tensor | None, Tensor | None, Tensor | None],
    mean: bool,
) -> None:
    a = packed[0]
    (points, heads, width), clouds = a.shape, ptr.numel() - 1
    if a.numel() == 0:
        return
    dense, strides = _rows(*packed)
    _, sizes = blocks(width, a.dtype)
    with torch.cuda.device_of(a):  # type: ignore[no-untyped-call]
        triple_contract_kernel[(num_tiles(points, clouds, sizes["BLOCK_N"]) * heads,)](
            *(*dense, g.contiguous(), *(a if x is None else x for x in outputs)),
            *(ptr, clouds, heads, *strides),
            D=width,
            **sizes,
            **operands(a.dtype),
            **FMA,
            MEAN=mean,
            OUTER=outputs[0] is not None,
            MIDDLE=outputs[1] is not None,
        )


def _save_state(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.mean = inputs
    ctx.save_for_backward(*tensors)


def _state_backward(ctx: Any, ds: Tensor) -> tuple[Tensor | None, ...]:
    a, b, c, ptr = ctx.saved_tensors
    return *triple_gradients(a, b, c, ds, ptr, True), None, None


def _save_output(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _output_backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    q1, state, q2, ptr = ctx.saved_tensors
    needs = ctx.needs_input_grad
    dq1, _, dq2 = (
        triple_gradients(q1, dy, q2, state, ptr, False) if needs[0] or needs[2] else (None,) * 3
    )
    return dq1, triple_state(q1, dy, q2, ptr, False) if needs[1] else None, dq2, None


triple_state.register_autograd(_state_backward, setup_context=_save_state)
triple_output.register_autograd(_output_backward, setup_context=_save_output)
