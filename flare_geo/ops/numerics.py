"""Half precision is computed in float32: the dtype, the conversion, and autocast out of the way."""

import torch
from torch import Tensor


def wide_dtype(dtype: torch.dtype) -> torch.dtype:
    """float32, or `dtype` where that is wider."""
    return torch.promote_types(dtype, torch.float32)


def wide(x: Tensor) -> Tensor:
    """The tensor in float32, or as it is where that is wider."""
    return x.to(wide_dtype(x.dtype))


def full_precision(x: Tensor) -> torch.autocast:
    """A context in which autocast does not narrow products on the device of x."""
    return torch.autocast(x.device.type, enabled=False)
