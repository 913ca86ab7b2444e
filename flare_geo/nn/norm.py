"""The two normalisations of the FLARE family."""

from typing import Literal

import torch
from torch import nn

Norm = Literal["layer", "rms"]
RMS_EPS = torch.finfo(torch.float32).eps


def make_norm(
    kind: Norm, channels: int, *, rms_eps: float = RMS_EPS, affine: bool = True
) -> nn.Module:
    """LayerNorm, or RMSNorm with the float32 epsilon whatever the dtype (as the paper's code has).

    Args:
        kind: ``"layer"`` or ``"rms"``.
        channels: width of the last axis.
        rms_eps: epsilon of RMSNorm; that of LayerNorm is 1e-5.
        affine: whether the norm has weights.

    Raises:
        ValueError: if `kind` is neither ``"layer"`` nor ``"rms"``.
    """
    if kind == "layer":
        return nn.LayerNorm(channels, elementwise_affine=affine)
    if kind == "rms":
        return nn.RMSNorm(channels, eps=rms_eps, elementwise_affine=affine)
    raise ValueError(f"norm must be 'layer' or 'rms', got '{kind}'")
