"""FLARE attention by `torch.nn.attention.varlen`: flash attention on clouds as they are packed.

Encode: the queries are the M latents of each cloud, the keys its points. Decode: the other way
round. One call each, whatever the sizes. Flash attention is parallel over queries, clouds and
heads, not over keys: in the encode of few clouds most of a GPU waits. It adds up the gradient of
the queries in an order that changes: bits do not repeat.
"""

import inspect
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.varlen import AuxRequest, varlen_attn

from flare_geo.ops.layout import Layout

HAS_SCALE = "scale" in inspect.signature(varlen_attn).parameters  # not in torch 2.10


def encode(q: Tensor, k: Tensor, v: Tensor, layout: Layout, scale: float) -> tuple[Tensor, Tensor]:
    r"""Latents `z [B, H, M, D]` and their log-normalisers `lse [B, H, M]`.

    The operator passes no gradient through its lse. With the weights `P` of the encode,

    .. math::
        \partial l_m / \partial q_m = s \sum_n P_{mn} k_n, \qquad
        \partial l_m / \partial k_n = s\, P_{mn} q_m

    which are the gradients of :math:`s\, q_m \cdot \sum_n P_{mn} k_n` for given P: the encode of
    the keys themselves, with q and k held where they make P.
    """
    if k.shape[0] == 0:
        z = _nothing(q, k, v).expand(layout.num_clouds, *q.shape[-3:])
        return z, z.float().sum(-1) - torch.inf
    z, lse = _encode(q, k, v, layout, scale)
    if torch.is_grad_enabled() and (q.requires_grad or k.requires_grad):
        means, _ = _encode(q.detach(), k.detach(), k, layout, scale)
        linear = scale * (q.float() * means.float()).sum(-1)  # [B, H, M]
        lse = lse + (linear - linear.detach())
    return z, lse


def decode(q: Tensor, k: Tensor, z: Tensor, layout: Layout, scale: float) -> Tensor:
    """Point features `y [N, H, D]`."""
    if k.shape[0] == 0:
        return k + _nothing(q, k, z)
    keys, options = _scaled(_pack(q, layout), scale)
    latents, points = _offsets(layout, q.shape[-2])
    y = varlen_attn(
        _rows(k), keys, _pack(z, layout), points, latents, _longest(layout), q.shape[-2], **options
    )
    assert isinstance(y, Tensor)  # it is a pair where more is asked for
    return y


def attention(q: Tensor, k: Tensor, v: Tensor, layout: Layout, scale: float) -> Tensor:
    """Encode, then decode: `y [N, H, D]`."""
    if k.shape[0] == 0:
        return v + _nothing(q, k, v)
    z, _ = _encode(q, k, v, layout, scale)
    return decode(q, k, z, layout, scale)


def _encode(q: Tensor, k: Tensor, v: Tensor, layout: Layout, scale: float) -> tuple[Tensor, Tensor]:
    """As `encode`, of one point at least; no gradient through the lse."""
    queries, options = _scaled(_pack(q, layout), scale)
    latents, points = _offsets(layout, q.shape[-2])
    z, lse = varlen_attn(  # [B * M, H, D] and [H, B * M]
        queries,
        _rows(k),
        _rows(v),
        latents,
        points,
        q.shape[-2],
        _longest(layout),
        return_aux=AuxRequest(lse=True),
        **options,
    )
    empty = _empty(layout)
    z = z.unflatten(0, (layout.num_clouds, -1)).transpose(1, 2)  # [B, H, M, D]
    lse = lse.detach().unflatten(1, (layout.num_clouds, -1)).transpose(0, 1)  # [B, H, M]
    # Without keys the operator gives lse = inf; the rest of what it gives is not documented.
    return z.masked_fill(empty[..., None], 0.0), lse.masked_fill(empty, -torch.inf)


def _pack(x: Tensor, layout: Layout) -> Tensor:
    """`[H, M, D]` or `[B, H, M, D]` as `[B * M, H, D]`.

    Zero for clouds without points, so that the gradient that the operator gives them is dropped.
    """
    x = x.transpose(-3, -2).expand(layout.num_clouds, -1, -1, -1)
    return x.masked_fill(_empty(layout)[..., None], 0.0).flatten(0, 1).contiguous()


def _empty(layout: Layout) -> Tensor:
    """`[B, 1, 1]`: the clouds without points."""
    return (layout.ptr.diff() == 0)[:, None, None]


def _offsets(layout: Layout, num_latents: int) -> tuple[Tensor, Tensor]:
    """Where the latents of each cloud begin, and its points: `[B+1]` int32 both."""
    points = layout.ptr.to(torch.int32)
    clouds = torch.arange(len(points), dtype=torch.int32, device=points.device)
    return clouds * num_latents, points


def _longest(layout: Layout) -> int:
    """Points of the largest cloud; under torch.compile, where sizes are unknown, the bound N."""
    return layout.num_points if torch.compiler.is_compiling() else max(layout.sizes)


def _scaled(q: Tensor, scale: float) -> tuple[Tensor, dict[str, Any]]:
    """Latent queries and the options for `scale`, which flash attention takes positive."""
    if HAS_SCALE and scale:
        return (q, {"scale": scale}) if scale > 0 else (-q, {"scale": -scale})
    return q * (scale * q.shape[-1] ** 0.5), {}  # the operator divides by the square root


def _rows(x: Tensor) -> Tensor:
    """`[N, H, D]` as the kernels read it, 16 bytes at a time; copied only where that needs it."""
    aligned = x.stride(-1) == 1 and x.stride(0) % 8 == 0 and x.stride(1) % 8 == 0
    return x if aligned else x.contiguous()


def _nothing(*inputs: Tensor) -> Tensor:
    """Zero that depends on the inputs: what the operator does without points is not documented."""
    return torch.stack([x.mul(0).sum() for x in inputs]).sum()
