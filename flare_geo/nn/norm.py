"""The two normalisations of the FLARE family."""

from typing import Literal

import torch
from torch import nn

Norm = Literal["layer", "rms"]


def make_norm(kind: Norm, channels: int) -> nn.Module:
    """LayerNorm, or RMSNorm with the float32 epsilon whatever the dtype (as the paper's code has).

    Raises:
        ValueError: if `kind` is neither ``"layer"`` nor ``"rms"``.
    """
    if kind == "layer":
        return nn.LayerNorm(channels)
    if kind == "rms":
        return nn.RMSNorm(channels, eps=torch.finfo(torch.float32).eps)
    raise ValueError(f"norm must be 'layer' or 'rms', got '{kind}'")
