r"""States of clouds whose points are spread over ranks, joined with exact gradients.

A state is a sum over points, plain or normalised (see `flare_geo/ops/README.md`): every rank sums
up what it has, the parts are merged, and everything else is pointwise. So what leaves a rank in
either direction is a state a cloud, for FLARE `H M (D + 1)` numbers, whatever the number of points.

Every rank goes on from the merged state with points of its own: its gradient is the sum of what
the ranks have of it, pulled back through the merge to the part of this rank.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from flare_geo.ops import (
    Layout,
    Merge,
    State,
    flare_decode,
    flare_encode,
    merge_encodings,
)


def sharded_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    ptr: Tensor | Layout | None = None,
    *,
    group: dist.ProcessGroup | None = None,
    scale: float = 1.0,
    backend: str = "auto",
) -> Tensor:
    """:func:`flare_geo.ops.flare_attention` where every rank has some points of every cloud.

    The gradients are those of the sum of what the ranks compute from their points: that of q is a
    part, to be added up over the ranks, as those of all weights (:func:`add_gradients`).

    Args:
        q: latent queries, the same on all ranks.
        k: keys of the points of this rank.
        v: values of the points of this rank.
        ptr: offsets of this rank's parts of the clouds; every rank names all clouds, and may have
            no point of some.
        group: the ranks; all if None.
        scale: factor of the scores.
        backend: see :func:`flare_geo.ops.flare_attention`.

    Shapes:
        - **q:** `[H, M, D]` or `[B, H, M, D]`; **k, v:** `[n, H, D]`; **ptr:** `[B+1]`
        - **returns** `[n, H, D]`
    """
    own = flare_encode(q, k, v, ptr, scale=scale, backend=backend)
    z, _ = merge_across(merge_encodings, own, group)
    return flare_decode(q, k, z, ptr, scale=scale, backend=backend)


def merge_across(merge: Merge, state: State, group: dist.ProcessGroup | None = None) -> State:
    """Join the states of all ranks: that of whole clouds, the same on all.

    Args:
        merge: how, such as :func:`flare_geo.ops.merge_encodings` or
            :func:`flare_geo.ops.merge_sums`.
        state: of the points of this rank, tensors `[B, ...]`.
        group: the ranks; all if None.
    """
    merged: State = _Merge.apply(merge, group, *state)  # type: ignore[no-untyped-call]
    return merged


class _Merge(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, merge: Merge, group: dist.ProcessGroup | None, *state: Tensor) -> State:
        shapes = [tensor.shape for tensor in state]
        message = _pack(state)
        parts = [_unpack(part, shapes, state) for part in gather(message, group)]
        ctx.merge, ctx.group, ctx.rank = merge, group, dist.get_rank(group)
        ctx.ranks, ctx.width = len(parts), len(state)
        ctx.save_for_backward(*(tensor for part in parts for tensor in part))
        ctx.set_materialize_grads(False)
        return merge(*parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        saved, width = ctx.saved_tensors, ctx.width
        parts = [saved[i * width : (i + 1) * width] for i in range(ctx.ranks)]
        used = [i for i, grad in enumerate(grads) if grad is not None]  # alike on all ranks
        given = [grad for grad in grads if grad is not None]
        total = _unpack(add_up(_pack(given), ctx.group), [g.shape for g in given], given)
        with torch.enable_grad():
            own = tuple(tensor.detach().requires_grad_() for tensor in parts[ctx.rank])
            parts[ctx.rank] = own
            merged = ctx.merge(*parts)
            pulled = torch.autograd.grad([merged[i] for i in used], own, total, allow_unused=True)
        return None, None, *pulled


def _pack(tensors: Sequence[Tensor]) -> Tensor:
    """One message `[numbers]` of several tensors, in the widest of their dtypes."""
    flat = [tensor.flatten() for tensor in tensors]
    wide = flat[0].dtype
    for tensor in flat:
        wide = torch.promote_types(wide, tensor.dtype)
    return torch.cat([tensor.to(wide) for tensor in flat])


def _unpack(
    message: Tensor, shapes: Sequence[torch.Size], like: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    parts = message.split([shape.numel() for shape in shapes])
    return tuple(
        part.view(shape).to(tensor.dtype)
        for part, shape, tensor in zip(parts, shapes, like, strict=True)
    )


def gather(x: Tensor, group: dist.ProcessGroup | None) -> list[Tensor]:
    """The x of every rank, all of one shape, in the order of the ranks."""
    x = x.contiguous()
    parts = [torch.empty_like(x) for _ in range(dist.get_world_size(group))]
    dist.all_gather(parts, x, group=group)
    return parts


def add_up(x: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """The sum over the ranks, in their order: the same bits on all that have one kind of device."""
    return torch.stack(gather(x, group)).sum(dim=0)
