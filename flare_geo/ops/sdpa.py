"""FLARE attention by `torch.nn.functional.scaled_dot_product_attention`.

Clouds of one size go through as one dense pair of calls; clouds of different sizes one after the
other, over sizes that are known on the host. The `lse` of an encode is not something SDPA returns:
it costs one more product of queries and keys, and only where it is asked for.
"""

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from flare_geo.ops.layout import Layout


def encode(q: Tensor, k: Tensor, v: Tensor, layout: Layout, scale: float) -> tuple[Tensor, Tensor]:
    """Latents `z [B, H, M, D]` and their log-normalisers `lse [B, H, M]`."""
    groups = _groups(q, layout, k, v)
    z = torch.cat([_encode_dense(q_g, k_g, v_g, scale) for q_g, (k_g, v_g) in groups])
    lse = torch.cat(
        [
            torch.matmul(_wide(q_g), _wide(k_g).mT).mul(scale).logsumexp(dim=-1)
            for q_g, (k_g, _) in groups
        ]
    )
    return z, lse


def decode(q: Tensor, k: Tensor, z: Tensor, layout: Layout, scale: float) -> Tensor:
    """Point features `y [N, H, D]`."""
    groups = _groups(q, layout, k)
    clouds = z.split_with_sizes([k_g.shape[0] for _, (k_g,) in groups])
    return torch.cat(
        [
            _packed(scaled_dot_product_attention(k_g, q_g, z_g, scale=scale))
            for (q_g, (k_g,)), z_g in zip(groups, clouds)
        ]
    )


def attention(q: Tensor, k: Tensor, v: Tensor, layout: Layout, scale: float) -> Tensor:
    """Encode, then decode: `y [N, H, D]`."""
    ys = []
    for q_g, (k_g, v_g) in _groups(q, layout, k, v):
        z = _encode_dense(q_g, k_g, v_g, scale)  # [b, H, M, D]
        ys.append(_packed(scaled_dot_product_attention(k_g, q_g, z, scale=scale)))
    return torch.cat(ys)


def _encode_dense(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """`[b, H, M, D]` from `[b, H, n, D]`; the sum over no point at all is zero."""
    if k.shape[-2] == 0:
        return torch.zeros_like(q)
    return scaled_dot_product_attention(q, k, v, scale=scale)


def _groups(q: Tensor, layout: Layout, *packed: Tensor) -> list[tuple[Tensor, tuple[Tensor, ...]]]:
    """Dense groups of consecutive clouds: queries `[b, H, M, D]`, features `[b, H, n, D]`."""
    q = q if q.ndim == 4 else q.expand(layout.num_clouds, -1, -1, -1)
    if layout.common_size is not None or layout.num_clouds == 0:
        shape = (layout.num_clouds, layout.common_size or 0)
        return [(q, tuple(x.view(*shape, *x.shape[1:]).transpose(1, 2) for x in packed))]
    split = [
        x.transpose(0, 1).split_with_sizes(layout.sizes, dim=1) for x in packed
    ]  # per cloud [H, n, D]
    return [
        (q[b : b + 1], tuple(x[b].unsqueeze(0) for x in split)) for b in range(layout.num_clouds)
    ]


def _packed(y: Tensor) -> Tensor:
    return y.transpose(1, 2).flatten(0, 1)  # [b, H, n, D] -> [b n, H, D]


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
