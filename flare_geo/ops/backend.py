"""Which implementation runs: the one asked for, else the best for the inputs."""

from importlib.util import find_spec
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

from flare_geo.ops import reference, sdpa
from flare_geo.ops.fused import use_triton
from flare_geo.ops.layout import Layout

Backend = Literal["auto", "reference", "sdpa", "triton", "varlen", "cpp"]


class Implementation(Protocol):
    """What a backend module offers; inputs are checked already."""

    def encode(
        self, q: Tensor, k: Tensor, v: Tensor, layout: Layout, scale: float
    ) -> tuple[Tensor, Tensor]:
        """`z [B, H, M, D]` and `lse [B, H, M]`."""

    def decode(self, q: Tensor, k: Tensor, z: Tensor, layout: Layout, scale: float) -> Tensor:
        """`y [N, H, D]`."""

    def attention(self, q: Tensor, k: Tensor, v: Tensor, layout: Layout, scale: float) -> Tensor:
        """Both in one: `y [N, H, D]`."""


IMPLEMENTATIONS: dict[str, Implementation] = {"reference": reference, "sdpa": sdpa}
WIDEST = 128  # D of the Triton kernels
HAS_VARLEN = find_spec("torch.nn.attention.varlen") is not None


def choose_backend(backend: str, q: Tensor) -> Implementation:
    """The implementation for a backend name and queries.

    ``"auto"`` is Triton on CUDA where triton is installed and takes the dtype and the head width,
    else SDPA.

    Raises:
        ValueError: if there is no such backend, or it cannot run such a call.
        TypeError: if it is asked for a dtype that its kernels do not compute.
    """
    if backend not in get_args(Backend):
        raise ValueError(f"backend must be one of {', '.join(get_args(Backend))}, got '{backend}'")
    if backend in IMPLEMENTATIONS:
        return IMPLEMENTATIONS[backend]
    if backend == "varlen":
        _check_varlen(q)
        from flare_geo.ops import varlen

        return varlen
    if backend == "cpp":
        from flare_geo.ops import cpp

        _check_cpp(q, cpp.WIDTHS)
        return cpp
    if use_triton(backend, q, q.shape[-1], WIDEST, instead="sdpa"):
        from flare_geo.ops import triton

        return triton
    return sdpa


def _check_varlen(q: Tensor) -> None:
    if q.dtype not in (torch.float16, torch.bfloat16):
        raise TypeError(
            f"backend 'varlen' computes float16 and bfloat16, got {q.dtype}; use backend='sdpa'"
        )
    width = q.shape[-1]
    if width % 8 or width > 256:
        raise ValueError(
            f"backend 'varlen' takes D = 8, 16, ..., 256, got {width}; use backend='sdpa'"
        )
    if not q.is_cuda:
        raise ValueError(
            f"backend 'varlen' needs tensors on a CUDA device, got {q.device}; use backend='sdpa'"
        )
    if not HAS_VARLEN:
        raise ValueError(
            f"backend 'varlen' needs torch 2.10 or later, got {torch.__version__}; "
            "use backend='sdpa'"
        )


def _check_cpp(q: Tensor, widths: tuple[int, ...]) -> None:
    if q.dtype != torch.float32:
        raise TypeError(f"backend 'cpp' computes float32, got {q.dtype}; use 'auto'")
    if q.device.type != "cpu":
        raise ValueError(f"backend 'cpp' needs tensors on the CPU, got {q.device}; use 'auto'")
    if q.shape[-1] not in widths:
        raise ValueError(
            f"backend 'cpp' takes D = {', '.join(map(str, widths))}, got {q.shape[-1]}; use 'auto'"
        )
