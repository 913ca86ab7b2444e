r"""FLARE attention of clouds whose points are spread over ranks.

An encode is a sum over points (see `flare_geo/ops/README.md`): every rank encodes what it has, the
parts are merged, and the decode is pointwise. With the weights :math:`w_p = \exp(l_p - l)` of the
parts p, the merge and its gradient are

.. math::
    z = \sum_p w_p z_p, \qquad
    dz_p = w_p\, dz, \qquad dl_p = w_p\, ((z_p - z) \cdot dz + dl)

where dz is the sum of what the ranks have of it. So at most `H M (D + 1)` numbers a cloud leave a
rank in either direction, whatever the number of points.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from flare_geo.ops import Layout, flare_decode, flare_encode, merge_encodings


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
    z, lse = flare_encode(q, k, v, ptr, scale=scale, backend=backend)
    z = merge_across(z, lse, group)
    return flare_decode(q, k, z, ptr, scale=scale, backend=backend)


def merge_across(z: Tensor, lse: Tensor, group: dist.ProcessGroup | None = None) -> Tensor:
    """Join the encodings of all ranks: the `z [B, H, M, D]` of whole clouds, the same on all."""
    merged: Tensor = _Merge.apply(z, lse, group)  # type: ignore[no-untyped-call]
    return merged


class _Merge(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, lse: Tensor, group: dist.ProcessGroup | None) -> Tensor:
        wide = torch.promote_types(z.dtype, lse.dtype)
        parts = gather(torch.cat([z.to(wide), lse.to(wide).unsqueeze(-1)], dim=-1), group)
        merged, total = merge_encodings(*((part[..., :-1], part[..., -1]) for part in parts))
        merged = merged.to(z.dtype)
        ctx.save_for_backward(z, lse, merged, total)
        ctx.group = group
        return merged

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        z, lse, merged, total = ctx.saved_tensors
        dz = add_up(grads[0], ctx.group)
        nobody = total.isneginf()  # no rank has a point of the cloud
        weight = (lse - total.masked_fill(nobody, 0.0)).exp().unsqueeze(-1)  # [B, H, M, 1]
        dlse = weight * (z - merged) * dz
        return (weight * dz).to(z.dtype), dlse.sum(-1).to(lse.dtype), None


def gather(x: Tensor, group: dist.ProcessGroup | None) -> list[Tensor]:
    """The x of every rank, all of one shape, in the order of the ranks."""
    x = x.contiguous()
    parts = [torch.empty_like(x) for _ in range(dist.get_world_size(group))]
    dist.all_gather(parts, x, group=group)
    return parts


def add_up(x: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """The sum over the ranks, in their order: the same bits on all."""
    return torch.stack(gather(x, group)).sum(dim=0)
