"""How the attention kernels are divided: blocks, warps and the points of a program.

Pure functions of shapes and device, so that the same call always adds in the same order. The
numbers of `blocks` follow `tests/ops/kernels/compile.py` (registers, spills, shared memory); they
were not swept on a GPU yet.
"""

from functools import lru_cache
from typing import Literal, NamedTuple

import torch
import triton

from flare_geo.ops.triton.precision import input_precision

Kernel = Literal["encode_fwd", "decode_fwd", "latents_bwd", "points_bwd"]

PROGRAMS_PER_SM = 6  # enough to hide latency and even out the last wave, few enough partial sums


class Blocks(NamedTuple):
    """Constants of one launch."""

    m: int  # latents of a block
    n: int  # points of a block
    num_warps: int
    num_stages: int


def block_width(width: int) -> int:
    """D as a tile has it: a power of two that a tensor core takes."""
    return max(16, int(triton.next_power_of_2(width)))


def blocks(kernel: Kernel, width: int, latents: int, dtype: torch.dtype) -> Blocks:
    """Latents and points of a block: scores and accumulators must stay in registers."""
    d = block_width(width)
    m = max(16, triton.next_power_of_2(latents))
    if input_precision(dtype) == "ieee":  # no tensor cores: small tiles, multiplied in registers
        side = 32 if d <= 32 else 16
        return Blocks(min(m, side), side, 4, 1)
    if kernel == "points_bwd":
        return _points_backward(d, m)
    size = d * dtype.itemsize  # bytes of a row decide what fits
    if kernel == "decode_fwd":
        most = 128 if size <= 64 else 64 if size <= 128 else 32
        return Blocks(min(m, most), 64 if size <= 256 else 32, 4, 2)
    return Blocks(min(m, 64), 128 if d == 16 else 64 if size <= 256 else 32, 4, 2)


def _points_backward(d: int, m: int) -> Blocks:
    """Scores, both weights, the gradient and all operands of six products are alive at once.

    All latents in one block where that fits: the gradient of q then never leaves the registers.
    """
    if d == 128:
        return Blocks(16, 32, 8, 1)
    if d == 64:
        return Blocks(m, 16, 4, 1) if m <= 64 else Blocks(32, 32, 4, 1)
    if m <= 64:
        return Blocks(m, 32 if d == 16 else 16, 4, 2)
    if m == 128:
        return Blocks(128, 32 if d == 16 else 16, 8, 2)
    return Blocks(64, 32, 4, 1) if d == 16 else Blocks(64, 16, 4, 1)


def points_of_program(
    num_points: int, programs_per_tile: int, block: int, device: torch.device
) -> int:
    """Points of a cloud that one program walks through, a multiple of its block.

    Enough tiles to fill the device PROGRAMS_PER_SM times, and never fewer than two blocks a
    program: each one loads its queries and leaves a partial sum behind.
    """
    tiles = max(1, PROGRAMS_PER_SM * _multiprocessors(device) // programs_per_tile)
    return max(2, int(triton.cdiv(triton.cdiv(num_points, tiles), block))) * block


def span_of(points: int, programs: int, block: int, device: torch.device) -> int:
    """Points of a tile of triple attention, on each of which `programs` programs work.

    Eight programs per multiprocessor fill the device and even out the last wave; fewer tiles would
    mean fewer states, which are small beside the points.
    """
    cuda = device.type == "cuda"
    number = torch.cuda.get_device_properties(device).multi_processor_count if cuda else 4
    return block * max(1, -(-points * programs // (8 * number * block)))


@lru_cache
def _multiprocessors(device: torch.device) -> int:
    if device.type != "cuda":  # the interpreter
        return 1
    return int(torch.cuda.get_device_properties(device).multi_processor_count)
