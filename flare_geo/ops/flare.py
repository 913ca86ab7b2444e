"""FLARE attention on packed point clouds: the public functions, their documentation and checks."""

import torch
from torch import Tensor

from flare_geo.ops.dispatch import choose
from flare_geo.ops.layout import Layout, make_layout


def flare_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    ptr: Tensor | Layout | None = None,
    *,
    scale: float = 1.0,
    backend: str = "auto",
) -> Tensor:
    r"""Attention of linear cost through M latents, from `"FLARE: Fast Low-rank Attention Routing
    Engine" <https://arxiv.org/abs/2508.12594>`_.

    .. math::
        z_h = \mathrm{softmax}_n(s\, q_h k_h^\top)\, v_h, \qquad
        y_h = \mathrm{softmax}_m(s\, k_h q_h^\top)\, z_h

    The first softmax runs over the points of a cloud, the second over the latents. The operator
    from `v` to `y` has rank at most M and is never formed; the cost is O(N M D) per head.

    Args:
        q: latent queries.
        k: keys of the points.
        v: values of the points.
        ptr: offsets of the clouds, None for one cloud; a :class:`Layout` skips the checks.
        scale: factor s of the scores. The paper's is 1, not :math:`D^{-1/2}`.
        backend: ``"auto"`` takes ``"triton"`` where it can, else ``"sdpa"``
            (``scaled_dot_product_attention``). ``"triton"`` runs on CUDA in half and single
            precision with D up to 128. Only by name: ``"cpp"`` (CPU, float32, D = 4, 8, 16, 32),
            ``"varlen"`` (``torch.nn.attention.varlen``: CUDA, half precision, D a multiple of 8
            up to 256) and ``"reference"`` (the definition).

    Shapes:
        - **q:** `[H, M, D]`, or `[B, H, M, D]` with queries per cloud
        - **k, v:** `[N, H, D]`; **ptr:** `[B+1]` int64
        - **returns** y: `[N, H, D]` in the dtype of v

    Raises:
        ValueError: if shapes, dtypes, devices or `ptr` do not fit, if there is no such backend, or
            if it does not take such a call; in one line that says why.
        TypeError: if the backend does not compute the dtype.

    Example:
        >>> q, k, v = torch.randn(8, 64, 16), torch.randn(500, 8, 16), torch.randn(500, 8, 16)
        >>> flare_attention(q, k, v, ptr=torch.tensor([0, 200, 500])).shape
        torch.Size([500, 8, 16])
    """
    layout = _check(q, k, v, ptr, "v")
    y: Tensor = choose("flare", backend, q).attention(q, k, v, layout, scale)
    return y


def flare_encode(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    ptr: Tensor | Layout | None = None,
    *,
    scale: float = 1.0,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    r"""First half of :func:`flare_attention`.

    .. math::
        z_h = \mathrm{softmax}_n(s\, q_h k_h^\top)\, v_h

    The log-normaliser :math:`l_{hm} = \log \sum_n \exp(s\, q_{hm} \cdot k_{nh})` comes with it, so
    that encodings of chunks of a cloud can be merged by :func:`merge_encodings`. A cloud without
    points has z = 0 and l = -inf, the neutral element of that merge.

    Shapes:
        - **q:** `[H, M, D]` or `[B, H, M, D]`; **k, v:** `[N, H, D]`; **ptr:** `[B+1]`
        - **returns** z: `[B, H, M, D]` in the dtype of v; lse: `[B, H, M]`, float32 or wider

    Raises:
        ValueError, TypeError: as :func:`flare_attention`.

    Example:
        >>> q, k, v = torch.randn(8, 64, 16), torch.randn(500, 8, 16), torch.randn(500, 8, 16)
        >>> z, lse = flare_encode(q, k, v)
        >>> z.shape, lse.shape
        (torch.Size([1, 8, 64, 16]), torch.Size([1, 8, 64]))
    """
    layout = _check(q, k, v, ptr, "v")
    state: tuple[Tensor, Tensor] = choose("flare", backend, q).encode(q, k, v, layout, scale)
    return state


def flare_decode(
    q: Tensor,
    k: Tensor,
    z: Tensor,
    ptr: Tensor | Layout | None = None,
    *,
    scale: float = 1.0,
    backend: str = "auto",
) -> Tensor:
    r"""Second half of :func:`flare_attention`.

    .. math::
        y_h = \mathrm{softmax}_m(s\, k_h q_h^\top)\, z_h

    Pointwise: the points may be others than those that were encoded.

    Shapes:
        - **q:** `[H, M, D]` or `[B, H, M, D]`; **k:** `[N, H, D]`; **z:** `[B, H, M, D]`;
          **ptr:** `[B+1]`
        - **returns** y: `[N, H, D]` in the dtype of z

    Raises:
        ValueError, TypeError: as :func:`flare_attention`.

    Example:
        >>> q, k, z = torch.randn(8, 64, 16), torch.randn(500, 8, 16), torch.randn(1, 8, 64, 16)
        >>> flare_decode(q, k, z).shape
        torch.Size([500, 8, 16])
    """
    layout = _check(q, k, z, ptr, "z")
    y: Tensor = choose("flare", backend, q).decode(q, k, z, layout, scale)
    return y


def merge_encodings(*states: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    r"""Merge encodings of disjoint chunks of the same clouds: exact, associative, commutative.

    .. math::
        l = \log \sum_i \exp(l_i), \qquad z = \sum_i \exp(l_i - l)\, z_i

    Args:
        states: one or more pairs `(z, lse)` of :func:`flare_encode`.

    Shapes:
        - **z:** `[B, H, M, D]`; **lse:** `[B, H, M]`; the same for every state and the result

    Raises:
        ValueError: if there is no state or the shapes differ.

    Example:
        >>> q, k, v = torch.randn(8, 64, 16), torch.randn(500, 8, 16), torch.randn(500, 8, 16)
        >>> halves = [flare_encode(q, k[s], v[s]) for s in (slice(0, 200), slice(200, 500))]
        >>> torch.allclose(merge_encodings(*halves)[0], flare_encode(q, k, v)[0], atol=1e-5)
        True
    """
    if not states:
        raise ValueError("merge_encodings needs at least one pair (z, lse), got none")
    for z, lse in states:
        if z.shape != states[0][0].shape or lse.shape != z.shape[:-1]:
            raise ValueError(
                f"merge_encodings needs z {list(states[0][0].shape)} and lse of the same leading "
                f"shape in every state, got z {list(z.shape)} and lse {list(lse.shape)}"
            )
    lses = torch.stack([lse for _, lse in states])  # [P, B, H, M]
    # Where every chunk is empty all l are -inf: 0 in their place keeps values and gradients
    # finite, and the weights are exp(-inf) = 0 all the same.
    empty = lses.isneginf().all(dim=0)
    reference = lses.masked_fill(empty, 0.0).logsumexp(dim=0)
    total = reference.masked_fill(empty, -torch.inf)
    weights = (lses - reference).exp().unsqueeze(-1)  # [P, B, H, M, 1]
    zs = torch.stack([z for z, _ in states])
    merged = (weights * zs.to(weights.dtype)).sum(dim=0)
    return merged.to(zs.dtype), total


def _check(q: Tensor, k: Tensor, v: Tensor, ptr: Tensor | Layout | None, name: str) -> Layout:
    """Check the arguments of the three functions above; `v` is z for the decode."""
    if q.ndim not in (3, 4):
        raise ValueError(f"q must be [H, M, D] or [B, H, M, D], got {list(q.shape)}")
    heads, latents, width = q.shape[-3:]
    if latents == 0:
        raise ValueError("q must hold at least one latent query, got M=0")
    if k.ndim != 3 or k.shape[1:] != (heads, width):
        raise ValueError(f"k must be [N, H={heads}, D={width}] to fit q, got {list(k.shape)}")
    layout = make_layout(ptr, k.shape[0], k.device)
    expected = (layout.num_clouds, heads, latents, width) if name == "z" else tuple(k.shape)
    if tuple(v.shape) != expected:
        raise ValueError(f"{name} must be {list(expected)} to fit q, k, ptr, got {list(v.shape)}")
    if q.ndim == 4 and q.shape[0] != layout.num_clouds:
        raise ValueError(f"q must hold queries for {layout.num_clouds} clouds, got {q.shape[0]}")
    if not q.dtype == k.dtype == v.dtype or not q.is_floating_point():
        raise ValueError(
            f"q, k, {name} must share one floating dtype, got {q.dtype}, {k.dtype}, {v.dtype}"
        )
    if not q.device == k.device == v.device:
        raise ValueError(
            f"q, k, {name} must be on one device, got {q.device}, {k.device}, {v.device}"
        )
    return layout
