"""Blocks made faster, in place: by C++ kernels on a CPU, by `torch.compile` elsewhere."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from flare_geo.nn.block import Block


def compile_blocks(
    blocks: Iterable[nn.Module], *, dynamic: bool | None = True, **options: Any
) -> None:
    """Make blocks faster, for clouds of any number and size; weights and `state_dict` stay.

    On a CPU, for float32 and widths that they take, by the C++ kernels of `flare_geo.ops.cpp`:
    compiled once on a machine, in some ten seconds. Otherwise by `torch.compile`, which gets the
    options; blocks that are alike share one compilation.

    Raises:
        RuntimeError: if there is no compiler; says what to do.
    """
    blocks = list(blocks)
    with_cpp = [] if options or not _in_float32_on_a_cpu(blocks) else _with_cpp(blocks)
    if len(with_cpp) < len(blocks):
        for block in blocks:
            block.compile(dynamic=dynamic, **options)
        return
    from flare_geo.ops import cpp

    cpp.library()
    for block in with_cpp:
        block.take_cpp()


def _with_cpp(blocks: list[nn.Module]) -> list[Block]:
    return [block for block in blocks if isinstance(block, Block) and block.has_cpp]


def _in_float32_on_a_cpu(blocks: list[nn.Module]) -> bool:
    weights = [parameter for block in blocks for parameter in block.parameters()]
    plain = all(w.device.type == "cpu" and w.dtype == torch.float32 for w in weights)
    return plain and not torch.is_autocast_enabled("cpu")
