"""A model whose clouds are spread over ranks: who has which points, and what has to be added up."""

from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from flare_geo.distributed.attention import add_up, merge_across
from flare_geo.ops import Layout, make_layout, ptr_to_batch


def share_of(ptr: Tensor | Layout, rank: int, world_size: int) -> tuple[Tensor, Tensor]:
    """The points of a rank: an even part of every cloud, next to each other.

    Shapes:
        - **ptr:** `[B+1]`; **returns** the indices `[n]` of the points, and their own `[B+1]`

    Raises:
        ValueError: if there is no such rank.
    """
    if not 0 <= rank < world_size:
        raise ValueError(f"rank must be 0 to {world_size - 1}, got {rank}")
    if not isinstance(ptr, Layout):
        ptr = make_layout(ptr, int(ptr[-1]), ptr.device)
    starts, sizes = ptr.ptr[:-1], ptr.ptr.diff()
    first, last = (sizes * r // world_size for r in (rank, rank + 1))
    counts = last - first
    own = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    cloud = ptr_to_batch(own)
    inside = torch.arange(len(cloud), device=counts.device) - own[cloud]
    return starts[cloud] + first[cloud] + inside, own


def shard_points(model: nn.Module, group: dist.ProcessGroup | None = None) -> None:
    """Let the mixers of a model see clouds whose points are spread over a group.

    Each mixer whose points meet in sums, as :class:`flare_geo.nn.FlareConv`, is handed what joins
    the sums of all ranks.

    Raises:
        ValueError: if the model has no such mixer, or one whose points meet pair by pair.
    """
    modules: list[Any] = list(model.modules())
    # What lies inside a mixer sees whole sums, the same on all ranks.
    inside = {id(part) for m in modules if hasattr(m, "join") for part in [*m.modules()][1:]}
    blocks = [m for m in modules if hasattr(type(m), "sum_mixer") and id(m) not in inside]
    mixers = [block.sum_mixer for block in blocks]  # says what cannot be cut
    mixers = mixers or [m for m in modules if hasattr(m, "join")]
    if not mixers:
        raise ValueError(
            f"{type(model).__name__} has no mixer whose sums could be joined over ranks: points "
            "can be spread for FLARE and other models of blocks"
        )
    for mixer in mixers:
        mixer.join = partial(merge_across, group=group)


def add_gradients(model: nn.Module, group: dist.ProcessGroup | None = None) -> None:
    """Add up the gradients of all weights over the ranks, in one message of their number.

    A weight without a gradient on this rank, which may have no point at all, counts as zero.
    """
    weights = [p for p in model.parameters() if p.requires_grad]
    for weight in weights:
        if weight.grad is None:
            weight.grad = torch.zeros_like(weight)
    grads = [weight.grad for weight in weights if weight.grad is not None]
    flat = add_up(torch.cat([g.flatten() for g in grads]), group)
    for grad, total in zip(grads, flat.split([g.numel() for g in grads]), strict=True):
        grad.copy_(total.view_as(grad))


def sum_across(x: Tensor, group: dist.ProcessGroup | None = None) -> Tensor:
    """The sum of x over the ranks, for a loss that all ranks compute alike from sums over points.

    Its gradient is the gradient of that loss, not of the sum of the ranks' copies of it.
    """
    total: Tensor = _Sum.apply(x, group)  # type: ignore[no-untyped-call]
    return total


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup | None) -> Tensor:
        return add_up(x, group)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None
