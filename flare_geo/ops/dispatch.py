"""One table of operations and their backends, and the choice between them.

A backend is one row of `TABLE`: how its module is loaded and which calls it does not take. The
module offers, on checked inputs,

    flare           encode(q, k, v, layout, scale), decode(q, k, z, layout, scale),
                    attention(q, k, v, layout, scale)
    triple          mean_of_products(a, b, c, layout), read_state(a, state, c, layout)
    residual_mlps   residual_mlps(x, weights, biases, act)

The last row of an operation is plain PyTorch and takes every call.
"""

import os
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor

from flare_geo.ops import reference, residual_mlp_torch, sdpa, triple_torch

HAS_TRITON = find_spec("triton") is not None
HAS_VARLEN = find_spec("torch.nn.attention.varlen") is not None
TRITON_DTYPES = (torch.float16, torch.bfloat16, torch.float32)


class WrongDtype(TypeError, ValueError):
    """A dtype that the kernels of a backend do not compute."""


class Refusal(NamedTuple):
    """Why a backend does not take a call: `limit` is what it takes, `got` is what came."""

    error: type[ValueError]
    limit: str
    got: object


class Backend(NamedTuple):
    """One implementation of an operation.

    Args:
        load: imports the module that computes, when a call first wants it, and returns it.
        refusal: looks at a call; None if the backend takes it.
        auto: whether ``"auto"`` may choose it for a call that it takes; None if only its name does.
    """

    load: Callable[[], Any]
    refusal: Callable[..., Refusal | None]
    auto: Callable[..., bool] | None = None


def choose(op: str, backend: str, *call: Any) -> Any:
    """The module that computes a call: of the backend asked for, or of the first that fits.

    Args:
        op: a key of `TABLE`.
        backend: ``"auto"`` or the name of a backend of this operation.
        call: what the refusals of the operation look at: q; x and widths; x and the activation.

    Raises:
        ValueError: if there is no such backend, or it does not take such a call.
        WrongDtype: if its kernels do not compute the dtype; a TypeError and a ValueError.
    """
    return TABLE[op][select(op, backend, *call)].load()


def select(op: str, backend: str, *call: Any) -> str:
    """The name of the backend that :func:`choose` loads."""
    backends = TABLE[op]
    if backend == "auto":
        for name, row in backends.items():
            if row.auto is not None and row.auto(*call) and row.refusal(*call) is None:
                return name
    check_name(op, backend)
    refusal = backends[backend].refusal(*call)
    if refusal is not None:
        plain = list(backends)[-1]
        raise refusal.error(
            f"backend '{backend}' {refusal.limit}, got {refusal.got}; use backend='{plain}'"
        )
    return backend


def check_name(op: str, backend: str) -> None:
    """Check that an operation has a backend of this name.

    Raises:
        ValueError: if it has not; lists those that it has.
    """
    if backend != "auto" and backend not in TABLE[op]:
        raise ValueError(f"backend must be one of auto, {', '.join(TABLE[op])}, got '{backend}'")


def takes(op: str, backend: str, *call: Any) -> bool:
    """Whether a backend, asked for by name, takes a call."""
    return TABLE[op][backend].refusal(*call) is None


def _no_refusal(*_: Any) -> Refusal | None:
    return None


def _always(*_: Any) -> bool:
    return True


def _on_cuda(x: Tensor, *_: Any) -> bool:
    return x.is_cuda


def _half_on_cuda(x: Tensor, *_: Any) -> bool:
    """Products in float32 leave the tensor cores, and registers spill: torch is faster there."""
    return x.is_cuda and x.dtype != torch.float32


def _triton_refusal(x: Tensor) -> Refusal | None:
    """The limits of all Triton kernels."""
    if not HAS_TRITON:
        package = "needs the package triton (pip install 'flare-geo[triton]')"
        return Refusal(ValueError, package, "none")
    if x.dtype not in TRITON_DTYPES:
        return Refusal(WrongDtype, "computes float16, bfloat16 and float32", x.dtype)
    if not x.is_cuda and os.environ.get("TRITON_INTERPRET") != "1":
        return Refusal(ValueError, "needs tensors on a CUDA device", x.device)
    return None


def _cpp_refusal(x: Tensor) -> Refusal | None:
    """The limits of all C++ kernels."""
    if x.dtype != torch.float32:
        return Refusal(WrongDtype, "computes float32", x.dtype)
    if x.device.type != "cpu":
        return Refusal(ValueError, "needs tensors on the CPU", x.device)
    return None


def _flare_triton(q: Tensor) -> Refusal | None:
    refusal = _triton_refusal(q)
    if refusal is None and q.shape[-1] > 128:
        return Refusal(ValueError, "takes D up to 128", q.shape[-1])
    return refusal


def _flare_cpp(q: Tensor) -> Refusal | None:
    refusal = _cpp_refusal(q)
    if refusal is None and q.shape[-1] not in _cpp().WIDTHS:
        widths = ", ".join(map(str, _cpp().WIDTHS))
        return Refusal(ValueError, f"takes D = {widths}", q.shape[-1])
    return refusal


def _flare_varlen(q: Tensor) -> Refusal | None:
    width = q.shape[-1]
    if q.dtype not in (torch.float16, torch.bfloat16):
        return Refusal(WrongDtype, "computes float16 and bfloat16", q.dtype)
    if width % 8 or width > 256:
        return Refusal(ValueError, "takes D = 8, 16, ..., 256", width)
    if not q.is_cuda:
        return Refusal(ValueError, "needs tensors on a CUDA device", q.device)
    if not HAS_VARLEN:
        return Refusal(ValueError, "needs torch 2.10 or later", torch.__version__)
    return None


def _triple_triton(x: Tensor, widths: tuple[int, int, int]) -> Refusal | None:
    refusal = _triton_refusal(x)
    if refusal is None and len(set(widths)) > 1:
        return Refusal(ValueError, "needs one width D", widths)
    if refusal is None and widths[0] > 32:
        return Refusal(ValueError, "takes D up to 32", widths[0])
    return refusal


def _mlps_triton(x: Tensor, act: str) -> Refusal | None:
    refusal = _triton_refusal(x)
    if refusal is None and x.shape[-1] not in (16, 32, 64, 128):
        return Refusal(ValueError, "takes C = 16, 32, 64, 128", x.shape[-1])
    return refusal


def _mlps_cpp(x: Tensor, act: str) -> Refusal | None:
    refusal = _cpp_refusal(x)
    if refusal is not None:
        return refusal
    if x.shape[-1] % 16:
        return Refusal(ValueError, "takes C = 16, 32, 48, ...", x.shape[-1])
    if act not in _cpp().ACTIVATIONS:
        return Refusal(ValueError, f"computes {' and '.join(_cpp().ACTIVATIONS)}", act)
    if torch.is_autocast_enabled("cpu"):
        return Refusal(ValueError, "computes float32", "a call under autocast")
    return None


def _triton() -> Any:
    from flare_geo.ops import triton

    return triton


def _triton_triple() -> Any:
    from flare_geo.ops.triton import triple

    return triple


def _triton_residual_mlp() -> Any:
    from flare_geo.ops.triton import residual_mlp

    return residual_mlp


def _cpp() -> Any:
    from flare_geo.ops import cpp

    return cpp


def _varlen() -> Any:
    from flare_geo.ops import varlen

    return varlen


TABLE: dict[str, dict[str, Backend]] = {
    "flare": {
        "triton": Backend(_triton, _flare_triton, auto=_on_cuda),
        "varlen": Backend(_varlen, _flare_varlen),
        "cpp": Backend(_cpp, _flare_cpp),
        "reference": Backend(lambda: reference, _no_refusal),
        "sdpa": Backend(lambda: sdpa, _no_refusal, auto=_always),
    },
    "triple": {
        "triton": Backend(_triton_triple, _triple_triton, auto=_on_cuda),
        "torch": Backend(lambda: triple_torch, _no_refusal, auto=_always),
    },
    "residual_mlps": {
        "triton": Backend(_triton_residual_mlp, _mlps_triton, auto=_half_on_cuda),
        "cpp": Backend(_cpp, _mlps_cpp),
        "torch": Backend(lambda: residual_mlp_torch, _no_refusal, auto=_always),
    },
}
