"""Softmax attention between all pairs of points of a cloud."""

from itertools import accumulate, pairwise

import torch
from torch import Tensor
from torch.library import custom_op
from torch.nn.functional import scaled_dot_product_attention

from flare_geo.ops.gradients import register_gradient
from flare_geo.ops.layout import Layout, make_layout
from flare_geo.ops.numerics import wide

CHUNK = 2**22  # scores at a time in the backward operator


def pairwise_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    ptr: Tensor | Layout | None = None,
    kv_ptr: Tensor | Layout | None = None,
    *,
    scale: float | None = None,
) -> Tensor:
    r"""Attention between the points of a cloud, or from the points of one packing to another.

    .. math::
        y_{nh} = \sum_m \mathrm{softmax}_m(s\, q_{nh} \cdot k_{mh})\, v_{mh}

    One dense call where all clouds have one size, else one call per cloud: nothing is padded, and
    no score is kept where `scaled_dot_product_attention` has a fused kernel. The cost is
    O(N^2 H D) per cloud. A point whose cloud has no keys gets zero.

    Args:
        q: queries of the points.
        k: keys.
        v: values.
        ptr: offsets of the clouds of q, None for one cloud.
        kv_ptr: offsets of the clouds of k and v, equally many; `ptr` if None.
        scale: factor s of the scores; :math:`D^{-1/2}` if None.

    Shapes:
        - **q:** `[N, H, D]`; **k:** `[Nk, H, D]`; **v:** `[Nk, H, Dv]`; **ptr, kv_ptr:** `[B+1]`
        - **returns** `[N, H, Dv]`

    Raises:
        ValueError: if `ptr` and `kv_ptr` do not name equally many clouds.

    Example:
        >>> q, k, v = torch.randn(3, 500, 8, 16)
        >>> pairwise_attention(q, k, v, torch.tensor([0, 200, 500])).shape
        torch.Size([500, 8, 16])
    """
    layout = make_layout(ptr, q.shape[0], q.device)
    kv_layout = layout if kv_ptr is None else make_layout(kv_ptr, k.shape[0], k.device)
    if kv_layout.num_clouds != layout.num_clouds:
        raise ValueError(f"kv_ptr must name {layout.num_clouds} clouds, got {kv_layout.num_clouds}")
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    if layout.equal and kv_layout.equal and k.numel() > 0:
        q, k, v = (
            x.reshape(layout.num_clouds, x.shape[0] // layout.num_clouds, *x.shape[1:])
            for x in (q, k, v)
        )
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # [B, H, n, D]
        y = scaled_dot_product_attention(q, k, v, scale=scale)
        return y.transpose(1, 2).flatten(0, 1)
    if torch.compiler.is_compiling():
        y_op: Tensor = _attention_op(q, k, v, layout.ptr, kv_layout.ptr, scale)
        return y_op
    clouds = [
        _one_cloud(q_b.transpose(0, 1), k_b.transpose(0, 1), v_b.transpose(0, 1), scale)
        for q_b, k_b, v_b in zip(
            q.split_with_sizes(layout.sizes),
            k.split_with_sizes(kv_layout.sizes),
            v.split_with_sizes(kv_layout.sizes),
            strict=True,
        )
    ]
    if not clouds:
        return q.new_zeros(0, q.shape[1], v.shape[2])
    return torch.cat([cloud.transpose(0, 1) for cloud in clouds])


def _one_cloud(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    if k.shape[1] == 0:
        return q @ k.mT @ v  # zero, with gradients
    return scaled_dot_product_attention(q, k, v, scale=scale)


@custom_op("flare_geo::pairwise_attention", mutates_args=())
def _attention_op(
    q: Tensor, k: Tensor, v: Tensor, ptr: Tensor, kv_ptr: Tensor, scale: float
) -> Tensor:
    """:func:`pairwise_attention` under torch.compile, where sizes are unknown."""
    return pairwise_attention(q, k, v, ptr, kv_ptr, scale=scale).contiguous()


@custom_op("flare_geo::pairwise_attention_backward", mutates_args=())
def _backward_op(
    dy: Tensor, q: Tensor, k: Tensor, v: Tensor, ptr: Tensor, kv_ptr: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v, a chunk of queries at a time: operators have no autograd inside.

    With P the softmax of the scores: dV = P^T dY, dS = P * (dY V^T - rowsum(P * dY V^T)).
    """
    dq, dk, dv = (x.new_zeros(x.shape) for x in (q, k, v))
    offsets = [
        pairwise([0, *accumulate(make_layout(p, len(x), x.device).sizes)])
        for p, x in ((ptr, q), (kv_ptr, k))
    ]
    for (start, end), (first, last) in zip(*offsets, strict=True):
        keys, values = (wide(x[first:last]).transpose(0, 1) for x in (k, v))  # [H, m, D]
        dkeys, dvalues = torch.zeros_like(keys), torch.zeros_like(values)
        step = max(1, CHUNK // max(1, keys.shape[:2].numel()))
        for at in (slice(i, min(i + step, end)) for i in range(start, end, step)):
            q_i, dy_i = (wide(x[at]).transpose(0, 1) for x in (q, dy))
            p = (scale * q_i @ keys.mT).softmax(dim=-1)  # [H, n, m]
            dp = dy_i @ values.mT
            ds = scale * p * (dp - (p * dp).sum(-1, keepdim=True))
            dq[at] = (ds @ keys).transpose(0, 1).to(q.dtype)
            dkeys += ds.mT @ q_i
            dvalues += p.mT @ dy_i
        dk[first:last], dv[first:last] = dkeys.transpose(0, 1), dvalues.transpose(0, 1)
    return dq, dk, dv


_attention_op.register_fake(
    lambda q, k, v, ptr, kv_ptr, scale: q.new_empty(q.shape[0], q.shape[1], v.shape[2])
)
register_gradient(_attention_op, _backward_op, count=3)
