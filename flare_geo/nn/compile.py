"""Blocks made faster, in place: by C++ kernels on a CPU, by `torch.compile` elsewhere."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from flare_geo.nn.block import FlareBlock
from flare_geo.nn.flare_conv import FlareConv
from flare_geo.nn.mlp import ResidualMLP


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
    if options or not _take_cpp(blocks):
        for block in blocks:
            block.compile(dynamic=dynamic, **options)
        return
    from flare_geo.ops import cpp

    cpp.library()
    for module in (m for block in blocks for m in block.modules()):
        if isinstance(module, (FlareConv, ResidualMLP)):
            module.backend = "cpp"


def _take_cpp(blocks: list[nn.Module]) -> bool:
    weights = [parameter for block in blocks for parameter in block.parameters()]
    if any(w.device.type != "cpu" or w.dtype != torch.float32 for w in weights):
        return False
    from flare_geo.ops import cpp

    convs = [block.conv if isinstance(block, FlareBlock) else None for block in blocks]
    widths = {conv.q.shape[-1] if isinstance(conv, FlareConv) else 0 for conv in convs}
    return widths <= set(cpp.WIDTHS) and not torch.is_autocast_enabled("cpu")
