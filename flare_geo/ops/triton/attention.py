"""The attention kernels as operators of torch, launched on the device of the points."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from flare_geo.ops.operators import Kernels, attention_operators
from flare_geo.ops.triton.backward import latents_backward, points_backward
from flare_geo.ops.triton.decode import decode as decode_kernels
from flare_geo.ops.triton.decode import empty_r
from flare_geo.ops.triton.encode import encode as encode_kernels


def rows(x: Tensor) -> Tensor:
    """Views of a wider tensor pass as they are; one with the points innermost is copied.

    Strides are constants of the kernels: those of a view `[H, N, D]` would change with N.
    """
    return x if x.stride(0) >= x.stride(1) >= x.stride(2) == 1 else x.contiguous()


def _on_its_device(launch: Callable[..., Any]) -> Callable[..., Any]:
    """Launch on the device of k, the second argument."""

    def run(q: Tensor, k: Tensor, *others: Any, **options: Any) -> Any:
        with torch.cuda.device_of(k):  # type: ignore[no-untyped-call]
            return launch(q, k, *others, **options)

    return run


encode, decode, attention, encode_op, decode_op, attention_op = attention_operators(
    "flare_geo::",
    Kernels(
        encode=_on_its_device(encode_kernels),
        decode=_on_its_device(decode_kernels),
        latents_backward=_on_its_device(latents_backward),
        points_backward=_on_its_device(points_backward),
        rows=rows,
        empty_r=empty_r,
    ),
)
