"""States of parts of clouds, and how they are joined: what can be cut, streamed and spread."""

from collections.abc import Callable

import torch
from torch import Tensor

State = tuple[Tensor, ...]
"""What a mixer keeps of the points of each cloud: tensors `[B, ...]`."""

Merge = Callable[..., State]
"""Joins the states of disjoint parts of the same clouds: exact, associative, commutative."""


def merge_sums(*parts: State) -> State:
    """Join states that are plain sums over points: add them.

    Shapes:
        - **parts:** tuples of tensors `[B, ...]`, alike in every part; **returns** such a tuple
    """
    return tuple(torch.stack(tensors).sum(dim=0) for tensors in zip(*parts, strict=True))
