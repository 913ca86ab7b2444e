"""Whether a fused kernel may serve a call of an operation that has one besides its torch path."""

import os
from importlib.util import find_spec

import torch
from torch import Tensor

HAS_TRITON = find_spec("triton") is not None
DTYPES = (torch.float16, torch.bfloat16, torch.float32)


def use_triton(backend: str, x: Tensor, width: int, widest: int, instead: str = "torch") -> bool:
    """Decide between the Triton kernels and the torch path of an operation.

    Args:
        backend: ``"auto"``, ``"torch"`` or ``"triton"``.
        x: any of the inputs, which share one dtype and device.
        width: the head width D of the call.
        widest: the largest D that the kernels take.
        instead: the backend that a message names.

    Raises:
        ValueError: if there is no such backend, or ``"triton"`` cannot run such a call.
        TypeError: if ``"triton"`` is asked for a dtype that its kernels do not compute.
    """
    if backend not in ("auto", instead, "triton"):
        raise ValueError(f"backend must be one of auto, {instead}, triton, got '{backend}'")
    if backend == "auto":
        return HAS_TRITON and x.is_cuda and x.dtype in DTYPES and width <= widest
    if backend == instead:
        return False
    if not HAS_TRITON:
        raise ValueError(
            "backend 'triton' needs the package triton: pip install 'flare-geo[triton]'"
        )
    if x.dtype not in DTYPES:
        raise TypeError(
            f"backend 'triton' computes float16, bfloat16 and float32, got {x.dtype}; "
            f"use backend='{instead}'"
        )
    if width > widest:
        raise ValueError(
            f"backend 'triton' takes D up to {widest}, got {width}; use backend='{instead}'"
        )
    if not x.is_cuda and os.environ.get("TRITON_INTERPRET") != "1":
        raise ValueError(
            f"backend 'triton' needs tensors on a CUDA device, got {x.device}; "
            f"use backend='{instead}'"
        )
    return True
