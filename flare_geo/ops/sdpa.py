"""FLARE attention by `torch.nn.functional.scaled_dot_product_attention`.

All clouds of one size go through one dense pair of calls. SDPA does not return the `lse` of an
encode: it costs one more product of queries and keys, where it is asked for.
"""

from collections.abc import Callable
from itertools import accumulate, pairwise

import torch
from torch import Tensor
from torch.library import custom_op
from torch.nn.functional import scaled_dot_product_attention

from flare_geo.ops.gradients import register_gradient
from flare_geo.ops.layout import Layout, make_layout, ptr_to_batch
from flare_geo.ops.numerics import wide
from flare_geo.ops.segment import apply_state, segment_sum, sum_outer

CHUNK = 2**18  # scores at a time in the backward operator


def encode(q: Tensor, k: Tensor, v: Tensor, layout: Layout, scale: float) -> tuple[Tensor, Tensor]:
    """Latents `z [B, H, M, D]` and their log-normalisers `lse [B, H, M]`."""

    def lse(q: Tensor, k: Tensor) -> Tensor:
        return torch.matmul(wide(q), wide(k).mT).mul(scale).logsumexp(dim=-1)

    if torch.compiler.is_compiling():
        return _encode_in_graph(q, k, v, layout, scale)
    if layout.num_clouds == 0:
        z = _latent(q, layout).clone()
        return z, wide(z).sum(-1)
    zs = _by_size(
        lambda q, k, v: _encode_dense(q, k, v, scale), layout, [_latent(q, layout)], [k, v]
    )
    return torch.stack(zs), torch.stack(_by_size(lse, layout, [_latent(q, layout)], [k]))


def decode(q: Tensor, k: Tensor, z: Tensor, layout: Layout, scale: float) -> Tensor:
    """Point features `y [N, H, D]`."""
    if torch.compiler.is_compiling():
        scores = scale * apply_state(k, _latent(q, layout).mT, layout)  # [N, H, M]
        return apply_state(scores.softmax(dim=-1), z, layout).to(z.dtype)
    if layout.num_clouds == 0:
        return k.clone()

    def dense(q: Tensor, z: Tensor, k: Tensor) -> Tensor:
        return scaled_dot_product_attention(k, q, z, scale=scale)

    return _packed(_by_size(dense, layout, [_latent(q, layout), z], [k]))


def attention(q: Tensor, k: Tensor, v: Tensor, layout: Layout, scale: float) -> Tensor:
    """Encode, then decode: `y [N, H, D]`."""
    if layout.equal:  # [b, H, n, D], also inside a compiled graph: no size is read
        shape = (layout.num_clouds, k.shape[0] // layout.num_clouds)
        k, v = (x.reshape(*shape, *x.shape[1:]).transpose(1, 2) for x in (k, v))
        return _pair(_latent(q, layout), k, v, scale).transpose(1, 2).flatten(0, 1)
    if torch.compiler.is_compiling():
        y: Tensor = attention_op(q, k, v, layout.ptr, scale)
        return y
    if layout.num_clouds == 0:
        return v.clone()
    latent = [_latent(q, layout)]
    return _packed(_by_size(lambda q, k, v: _pair(q, k, v, scale), layout, latent, [k, v]))


def _encode_in_graph(
    q: Tensor, k: Tensor, v: Tensor, layout: Layout, scale: float
) -> tuple[Tensor, Tensor]:
    """:func:`encode` under torch.compile, where sizes are unknown: all scores are held."""
    scores = scale * apply_state(k, _latent(q, layout).mT, layout)  # [N, H, M]
    cloud = ptr_to_batch(layout.ptr, k.shape[0]).view(-1, 1, 1).expand_as(scores)
    lowest = scores.new_full((layout.num_clouds, *scores.shape[1:]), -torch.inf)
    largest = lowest.scatter_reduce(0, cloud, scores.detach(), "amax")  # [B, H, M]
    weights = (scores - largest.gather(0, cloud)).exp()
    total = segment_sum(weights, layout)  # at least 1, unless a cloud has no points: then 0
    # The bound must not be 1: one point gives just that, and the derivative of clamp at its bound
    # is 1 in torch 2.13 and 0 in torch 2.15.
    z = sum_outer(weights, v, layout) / total.clamp(min=0.5).unsqueeze(-1)
    return z.to(v.dtype), largest + total.log()


@custom_op("flare_geo::sdpa_attention", mutates_args=())
def attention_op(q: Tensor, k: Tensor, v: Tensor, ptr: Tensor, scale: float) -> Tensor:
    """:func:`attention` under torch.compile, where sizes are unknown."""
    return attention(q, k, v, make_layout(ptr, k.shape[0], k.device), scale).contiguous()


@custom_op("flare_geo::sdpa_attention_backward", mutates_args=())
def attention_backward_op(
    dy: Tensor, q: Tensor, k: Tensor, v: Tensor, ptr: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v, by the formulas of README.md (operators have no autograd inside)."""
    layout = make_layout(ptr, k.shape[0], k.device)
    dq, dk, dv = q.new_zeros(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)
    starts = [0, *accumulate(layout.sizes)]
    for cloud, (start, end) in enumerate(pairwise(starts)):
        at = slice(start, end)
        q_b = q if q.ndim == 3 else q[cloud]
        k_b, v_b, dy_b = (x[at].transpose(0, 1) for x in (k, v, dy))
        dq_b, dk_b, dv_b = _pair_backward(q_b, k_b, v_b, dy_b, scale)
        (dq if q.ndim == 3 else dq[cloud]).add_(dq_b)
        dk[at], dv[at] = dk_b.transpose(0, 1), dv_b.transpose(0, 1)
    return dq, dk, dv


attention_op.register_fake(lambda q, k, v, ptr, scale: v.new_empty(v.shape))
register_gradient(attention_op, attention_backward_op, count=3)


def _pair(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    z = _encode_dense(q, k, v, scale)  # [b, H, M, D]
    return scaled_dot_product_attention(k, q, z, scale=scale)


def _pair_backward(
    q: Tensor, k: Tensor, v: Tensor, dy: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients for one cloud, `[H, M, D]` and `[H, n, D]`, a chunk of points at a time."""
    step = max(64, CHUNK // q.shape[:2].numel())
    chunks = [slice(i, i + step) for i in range(0, k.shape[1], step)]
    q_w, k, v, dy = (wide(x) for x in (q, k, v, dy))

    def scores(at: slice) -> Tensor:
        return scale * q_w @ k[:, at].mT  # [H, M, n]

    lse = q_w.new_full((*q.shape[:2], 1), -torch.inf)
    for at in chunks:
        lse = torch.logaddexp(lse, scores(at).logsumexp(-1, keepdim=True))
    z, dz = torch.zeros_like(q_w), torch.zeros_like(q_w)
    for at in chunks:
        s = scores(at)
        z += (s - lse).exp() @ v[:, at]
        dz += s.softmax(dim=1) @ dy[:, at]
    e = (z * dz).sum(-1, keepdim=True)
    dq, dk, dv = torch.zeros_like(q_w), torch.empty_like(k), torch.empty_like(v)
    for at in chunks:
        s = scores(at)
        p, a = (s - lse).exp(), s.softmax(dim=1)
        da, dp = z @ dy[:, at].mT, dz @ v[:, at].mT
        ds = a * (da - (a * da).sum(1, keepdim=True)) + p * (dp - e)
        dv[:, at] = p.mT @ dz
        dk[:, at] = scale * ds.mT @ q_w
        dq += scale * ds @ k[:, at]
    return dq.to(q.dtype), dk.to(q.dtype), dv.to(q.dtype)


def _encode_dense(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """`[b, H, M, D]` from `[b, H, n, D]`; the sum over no points is zero, with a gradient."""
    if k.shape[-2] == 0:
        return torch.zeros_like(q) + v.sum(dim=-2, keepdim=True)
    return scaled_dot_product_attention(q, k, v, scale=scale)


def _by_size(
    dense: Callable[..., Tensor], layout: Layout, latent: list[Tensor], points: list[Tensor]
) -> list[Tensor]:
    """Results of `dense` for each cloud, from one call for all clouds of a size.

    It gets `[b, ...]` of the latent tensors and `[b, H, n, D]` of those on points.
    """
    clouds_of: dict[int, list[int]] = {}
    for cloud, size in enumerate(layout.sizes):
        clouds_of.setdefault(size, []).append(cloud)
    split = [x.transpose(0, 1).split_with_sizes(layout.sizes, dim=1) for x in points]
    results: dict[int, Tensor] = {}
    for clouds in clouds_of.values():
        few = clouds if len(clouds) < layout.num_clouds else slice(None)
        stacked = [_stack([x[c] for c in clouds]) for x in split]
        results.update(zip(clouds, dense(*(x[few] for x in latent), *stacked)))
    return [results[cloud] for cloud in range(layout.num_clouds)]


def _stack(clouds: list[Tensor]) -> Tensor:
    return clouds[0].unsqueeze(0) if len(clouds) == 1 else torch.stack(clouds)


def _latent(q: Tensor, layout: Layout) -> Tensor:
    return q if q.ndim == 4 else q.expand(layout.num_clouds, -1, -1, -1)


def _packed(clouds: list[Tensor]) -> Tensor:
    return torch.cat([cloud.transpose(0, 1) for cloud in clouds])  # [H, n, D] each to [N, H, D]
