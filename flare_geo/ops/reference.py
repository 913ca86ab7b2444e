"""The definition of FLARE attention (arXiv 2508.12594), cloud by cloud.

    z_h = softmax_n(s q_h k_h^T) v_h        encode: M latents read N points
    y_h = softmax_m(s k_h q_h^T) z_h        decode: N points read M latents

Everything here is meant to be checked against these two lines. Half precision is computed in
float32 and rounded once at the end.
"""

import torch
from torch import Tensor

from flare_geo.ops.layout import Layout
from flare_geo.ops.numerics import wide_dtype


def encode(q: Tensor, k: Tensor, v: Tensor, layout: Layout, scale: float) -> tuple[Tensor, Tensor]:
    """Latents `z [B, H, M, D]` and their log-normalisers `lse [B, H, M]`."""
    zs, lses = [], []
    wide = wide_dtype(v.dtype)
    per_cloud = zip(k.split_with_sizes(layout.sizes), v.split_with_sizes(layout.sizes))
    for b, (k_b, v_b) in enumerate(per_cloud):
        q_b = _queries_of(q, b).to(wide)  # [H, M, D]
        scores = scale * torch.einsum("hmd,nhd->hmn", q_b, k_b.to(wide))
        lse = scores.logsumexp(dim=-1)  # -inf for a cloud without points
        weights = scores.softmax(dim=-1)  # [H, M, n]
        zs.append(torch.einsum("hmn,nhd->hmd", weights, v_b.to(wide)))
        lses.append(lse)
    if not zs:
        heads, latents, width = q.shape[-3:]
        return v.new_zeros(0, heads, latents, width), torch.zeros(
            0, heads, latents, dtype=wide, device=v.device
        )
    return torch.stack(zs).to(v.dtype), torch.stack(lses)


def decode(q: Tensor, k: Tensor, z: Tensor, layout: Layout, scale: float) -> Tensor:
    """Point features `y [N, H, D]`."""
    ys = []
    wide = wide_dtype(z.dtype)
    for b, k_b in enumerate(k.split_with_sizes(layout.sizes)):
        q_b = _queries_of(q, b).to(wide)  # [H, M, D]
        scores = scale * torch.einsum("nhd,hmd->nhm", k_b.to(wide), q_b)
        ys.append(torch.einsum("nhm,hmd->nhd", scores.softmax(dim=-1), z[b].to(wide)))
    return torch.cat(ys).to(z.dtype) if ys else torch.zeros_like(k)


def attention(q: Tensor, k: Tensor, v: Tensor, layout: Layout, scale: float) -> Tensor:
    """Encode, then decode: `y [N, H, D]`."""
    z, _ = encode(q, k, v, layout, scale)
    return decode(q, k, z, layout, scale)


def _queries_of(q: Tensor, cloud: int) -> Tensor:
    return q if q.ndim == 3 else q[cloud]
