"""Mergeable reduction states: the basis of streaming and sharding."""

from collections.abc import Callable

import torch
from torch import Tensor

State = tuple[Tensor, ...]
"""The sums of a mixer over the points of each cloud: tensors `[B, ...]`."""

Merge = Callable[..., State]
"""Merges the states of disjoint chunks of the same clouds: exact, associative, commutative."""


def merge_sums(*states: State) -> State:
    """Merge states that are plain sums over points: add them.

    Shapes:
        - **states:** tuples of tensors `[B, ...]` of the same shapes; **returns** such a tuple
    """
    return tuple(torch.stack(tensors).sum(dim=0) for tensors in zip(*states, strict=True))
