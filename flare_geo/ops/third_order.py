"""Attention to all pairs of points of a cloud, in bounded memory."""

from itertools import pairwise

import torch
from torch import Tensor
from torch.library import custom_op

from flare_geo.ops.gradients import register_gradient
from flare_geo.ops.layout import Layout, make_layout
from flare_geo.ops.numerics import wide

CHUNK = 2**23  # scores at a time


def third_order_attention(
    q: Tensor,
    k1: Tensor,
    k2: Tensor,
    v1: Tensor,
    v2: Tensor,
    ptr: Tensor | Layout | None = None,
) -> Tensor:
    r"""Third-order attention of `"Representational Strengths and Limitations of Transformers"
    <https://arxiv.org/abs/2306.02896>`_.

    .. math::
        s_{ijk} = D^{-1/2} \sum_d q_{id}\, k^1_{jd}\, k^2_{kd}, \qquad
        y_i = \sum_{jk} \mathrm{softmax}_{(j,k)}(s_{ijk})\; v^1_j \odot v^2_k

    The softmax is over all N^2 ordered pairs of points of the cloud. A chunk of points has about
    `CHUNK` scores, or the H N^2 of one point; they are computed again in the backward pass.

    Shapes:
        - **q, k1, k2, v1, v2:** `[N, H, D]`; **ptr:** `[B+1]`; **returns** `[N, H, D]`

    Example:
        >>> third_order_attention(*torch.randn(5, 50, 8, 16), torch.tensor([0, 20, 50])).shape
        torch.Size([50, 8, 16])
    """
    y: Tensor = _op(q, k1, k2, v1, v2, make_layout(ptr, q.shape[0], q.device).ptr)
    return y


@custom_op("flare_geo::third_order_attention", mutates_args=())
def _op(q: Tensor, k1: Tensor, k2: Tensor, v1: Tensor, v2: Tensor, ptr: Tensor) -> Tensor:
    """One operator: sizes are unknown under torch.compile."""
    y = torch.empty_like(v1)
    for cloud in _clouds(ptr):
        keys = [_by_head(x[cloud]) for x in (k1, k2, v1, v2)]
        for at in _chunks(cloud, q.shape[1]):
            weights = _weights(_by_head(q[at]), *keys[:2])  # [H, i, j, k]
            over_k = weights @ keys[3].unsqueeze(1)  # [H, i, j, D]
            y[at] = (over_k * keys[2].unsqueeze(1)).sum(2).transpose(0, 1).to(y.dtype)
    return y


@custom_op("flare_geo::third_order_attention_backward", mutates_args=())
def _backward_op(
    dy: Tensor, q: Tensor, k1: Tensor, k2: Tensor, v1: Tensor, v2: Tensor, ptr: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients; with P the softmax, dP = dy . (v1 * v2), dS = P * (dP - sum P dP)."""
    dq, *dkv = (x.new_empty(x.shape) for x in (q, k1, k2, v1, v2))
    for cloud in _clouds(ptr):
        k1_b, k2_b, v1_b, v2_b = (_by_head(x[cloud]) for x in (k1, k2, v1, v2))  # [H, n, D]
        sums = [torch.zeros_like(k1_b) for _ in range(4)]
        for at in _chunks(cloud, q.shape[1]):
            q_i, dy_i = _by_head(q[at]).unsqueeze(2), _by_head(dy[at]).unsqueeze(2)
            p = _weights(q_i.squeeze(2), k1_b, k2_b)  # [H, i, j, k]
            dy_v1 = dy_i * v1_b.unsqueeze(1)  # [H, i, j, D]
            dp = dy_v1 @ v2_b.unsqueeze(1).mT
            ds = q.shape[-1] ** -0.5 * p * (dp - (p * dp).sum((2, 3), keepdim=True))
            along_k2 = ds @ k2_b.unsqueeze(1)  # [H, i, j, D]
            dq[at] = (along_k2 * k1_b.unsqueeze(1)).sum(2).transpose(0, 1).to(q.dtype)
            sums[0] += (along_k2 * q_i).sum(1)
            sums[1] += ds.flatten(1, 2).mT @ (q_i * k1_b.unsqueeze(1)).flatten(1, 2)
            sums[2] += (p @ v2_b.unsqueeze(1) * dy_i).sum(1)
            sums[3] += p.flatten(1, 2).mT @ dy_v1.flatten(1, 2)
        for grad, total in zip(dkv, sums, strict=True):
            grad[cloud] = total.transpose(0, 1).to(q.dtype)
    return dq, dkv[0], dkv[1], dkv[2], dkv[3]


def _weights(q: Tensor, k1: Tensor, k2: Tensor) -> Tensor:
    """The softmax over pairs, `[H, i, j, k]`, for queries `[H, i, D]`."""
    by_j = q.unsqueeze(2) * k1.unsqueeze(1)  # [H, i, j, D]
    scores = q.shape[-1] ** -0.5 * by_j @ k2.unsqueeze(1).mT
    return torch.softmax(scores.flatten(2), dim=-1).view_as(scores)


def _clouds(ptr: Tensor) -> list[slice]:
    """The clouds that have points."""
    return [slice(start, end) for start, end in pairwise(ptr.tolist()) if end > start]


def _chunks(cloud: slice, heads: int) -> list[slice]:
    """Chunks of the points of a cloud, of `CHUNK` scores at most."""
    size = cloud.stop - cloud.start
    step = max(1, CHUNK // (heads * size**2))
    return [slice(i, min(i + step, cloud.stop)) for i in range(cloud.start, cloud.stop, step)]


def _by_head(x: Tensor) -> Tensor:
    """`[n, H, D]` to `[H, n, D]`, float32 or wider."""
    return wide(x).transpose(0, 1)


_op.register_fake(lambda q, k1, k2, v1, v2, ptr: torch.empty_like(v1))
register_gradient(_op, _backward_op, count=5)
