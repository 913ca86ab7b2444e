"""AdamW with weight decay on linear and convolutional weights only; the one-cycle schedule."""

import torch
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Two groups: the weights of linear and convolutional layers decay; nothing else does.

    Biases, norms and the latent queries of :class:`flare_geo.nn.FlareConv` do not decay.
    """
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    decayed = {id(module.weight) for module in model.modules() if isinstance(module, kinds)}
    trained = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if id(p) in decayed], "weight_decay": weight_decay},
        {"params": [p for p in trained if id(p) not in decayed], "weight_decay": 0.0},
    ]


def make_optimizer(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    eps: float,
    total_steps: int,
    pct_start: float,
    div_factor: float,
    final_div_factor: float,
    fused: bool,
) -> tuple[torch.optim.Optimizer, OneCycleLR]:
    """AdamW and a cosine one-cycle schedule over all steps of the run.

    The cycle changes Adam's first beta as well (from 0.95 to 0.85 at the peak of the rate and
    back), as PyTorch does by default and as the runs of the paper did.
    """
    optimizer = AdamW(parameter_groups(model, weight_decay), lr=lr, eps=eps, fused=fused)
    schedule = OneCycleLR(
        optimizer,
        max_lr=lr,
        total_steps=total_steps,
        pct_start=pct_start,
        div_factor=div_factor,
        final_div_factor=final_div_factor,
    )
    return optimizer, schedule
