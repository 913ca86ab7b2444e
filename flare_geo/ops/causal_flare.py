r"""Causal FLARE on packed clouds: chunks of points or one point at a time, and merged states.

The state of a head after some points is `(mu [B, H, M], d [B, H, M], u [B, H, M, E])`, the running
maximum of the scores and the two sums of the encode relative to it,

.. math::
    \mu_m = \max_\tau S_{\tau m}, \qquad d_m = \sum_\tau e^{S_{\tau m} - \mu_m}, \qquad
    U_m = \sum_\tau e^{S_{\tau m} - \mu_m} v_\tau

so that it never overflows; (-inf, 0, 0) before the first point. It is float32 or wider. No gradient
goes through mu, which is a reference: U / d and mu + log d, all that counts, do not depend on it.
"""

import torch
from torch import Tensor

from flare_geo.ops.layout import Layout, make_layout
from flare_geo.ops.numerics import full_precision, wide_dtype
from flare_geo.ops.state import State

FEW = 16  # points of a chunk that can afford an exponential per pair and latent
SMALLEST = 1e-12  # its inverse and the square of that are numbers in float32


def causal_flare_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    ptr: Tensor | Layout | None = None,
    *,
    scale: float = 1.0,
    chunk_size: int = 64,
    q_decode: Tensor | None = None,
    k_decode: Tensor | None = None,
) -> Tensor:
    r"""FLARE in which a point sees itself and those before it in its cloud, from "From Encoder to
    Decoder: Extending FLARE to Memory-Efficient Causal Attention" (the authors' article and
    `code <https://github.com/vpuri3/causal-flare>`_).

    .. math::
        z_m^t = \frac{\sum_{\tau \le t} e^{S_{\tau m}} v_\tau}{\sum_{\tau \le t} e^{S_{\tau m}}},
        \qquad S_{\tau m} = s\, q_m \cdot k_\tau, \qquad
        y_t = \sum_m \mathrm{softmax}_m(S_{tm})\, z_m^t

    Each cloud is a sequence in the order of its points. The result does not depend on the size C of
    the chunks; the cost is O(N M (D + E + C)) per head. At the last point of a cloud it equals
    :func:`flare_geo.ops.flare_attention`.

    Args:
        q: latent queries.
        k: keys of the points.
        v: values of the points.
        ptr: offsets of the clouds, None for one cloud; a :class:`Layout` skips the checks.
        scale: factor s of the scores.
        chunk_size: points C of a chunk; it changes speed and rounding only.
        q_decode: queries of the points for the softmax over latents, in place of k.
        k_decode: keys of the latents for that softmax, in place of q; both or neither.

    Shapes:
        - **q:** `[H, M, D]`; **k:** `[N, H, D]`; **v:** `[N, H, E]`; **ptr:** `[B+1]` int64
        - **q_decode:** `[N, H, F]`; **k_decode:** `[H, M, F]`
        - **returns** y: `[N, H, E]` in the dtype of v

    Raises:
        ValueError: if shapes, dtypes or `ptr` do not fit, in one line that says how.

    Example:
        >>> q, k, v = torch.randn(8, 32, 16), torch.randn(500, 8, 16), torch.randn(500, 8, 16)
        >>> causal_flare_attention(q, k, v, ptr=torch.tensor([0, 200, 500])).shape
        torch.Size([500, 8, 16])
    """
    return causal_flare_prefill(
        q, k, v, ptr, scale=scale, chunk_size=chunk_size, q_decode=q_decode, k_decode=k_decode
    )[0]


def causal_flare_prefill(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    ptr: Tensor | Layout | None = None,
    state: State | None = None,
    *,
    scale: float = 1.0,
    chunk_size: int = 64,
    q_decode: Tensor | None = None,
    k_decode: Tensor | None = None,
) -> tuple[Tensor, State]:
    """:func:`causal_flare_attention` continued from a state; it also returns the state at the end.

    The arguments are the same; `state` is that of the points before these in each cloud, None if
    there are none.

    Shapes:
        - **returns** y `[N, H, E]` and a state `(mu, d, u)` per cloud

    Example:
        >>> q, k, v = torch.randn(8, 32, 16), torch.randn(500, 8, 16), torch.randn(500, 8, 16)
        >>> y, state = causal_flare_prefill(q, k[:400], v[:400])
        >>> rest, state = causal_flare_prefill(q, k[400:], v[400:], state=state)
    """
    layout = _check(q, k, v, ptr, state, chunk_size, q_decode, k_decode)
    wide = wide_dtype(v.dtype)
    if state is None:
        zero = torch.zeros(
            layout.num_clouds, *q.shape[:2], v.shape[-1], dtype=wide, device=v.device
        )
        state = (zero[..., 0] - torch.inf, zero[..., 0], zero)
    with full_precision(v):
        scores = scale * _per_point(k.to(wide), q.to(wide))  # [N, H, M]
        decode = scores
        if q_decode is not None and k_decode is not None:
            decode = scale * _per_point(q_decode.to(wide), k_decode.to(wide))
        y, state = _packed(scores, decode.softmax(dim=-1), v.to(wide), layout, state, chunk_size)
    return y.to(v.dtype), state


def causal_flare_step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    state: State | None = None,
    *,
    scale: float = 1.0,
    q_decode: Tensor | None = None,
    k_decode: Tensor | None = None,
) -> tuple[Tensor, State]:
    """The next point of each cloud: recurrent decode, in memory independent of the length.

    Shapes:
        - **q:** `[H, M, D]`; **k:** `[B, H, D]`; **v:** `[B, H, E]`; **q_decode:** `[B, H, F]`;
          **k_decode:** `[H, M, F]`
        - **returns** y `[B, H, E]` and the state `(mu, d, u)` after this point

    Example:
        >>> q, k, v = torch.randn(8, 32, 16), torch.randn(1, 8, 16), torch.randn(1, 8, 16)
        >>> y, state = causal_flare_step(q, k, v)
        >>> y, state = causal_flare_step(q, k, v, state)
    """
    layout = Layout.of(torch.arange(len(k) + 1, device=k.device), (1,) * len(k))
    return causal_flare_prefill(
        q, k, v, layout, state, scale=scale, q_decode=q_decode, k_decode=k_decode
    )


def merge_causal_states(*states: State) -> State:
    """Merge the states of disjoint chunks of the same clouds: exact, associative, commutative.

    Shapes:
        - **states:** states `(mu, d, u)` of the same shapes; **returns** such a state
    """
    mus = torch.stack([mu for mu, _, _ in states])  # [P, B, H, M]
    mu = mus.amax(dim=0)
    weights = (mus - mu.masked_fill(mu.isneginf(), 0.0)).exp()
    d = (weights * torch.stack([d for _, d, _ in states])).sum(dim=0)
    u = (weights.unsqueeze(-1) * torch.stack([u for _, _, u in states])).sum(dim=0)
    return mu, d, u


def _packed(
    scores: Tensor, weights: Tensor, v: Tensor, layout: Layout, state: State, chunk_size: int
) -> tuple[Tensor, State]:
    """Clouds of one size in one dense call, others one by one."""
    if layout.num_clouds == 0:
        return v, state
    tensors, ys, states = (scores, weights, v), [], []
    if layout.equal:
        shape = (layout.num_clouds, layout.num_points // layout.num_clouds)
        s, weight, value = (x.reshape(*shape, *x.shape[1:]).transpose(1, 2) for x in tensors)
        y, state = _sequence(s, weight, value, state, chunk_size)
        return y.transpose(1, 2).flatten(0, 1), state
    for cloud, own in enumerate(zip(*(x.split_with_sizes(layout.sizes) for x in tensors))):
        before = tuple(tensor[cloud : cloud + 1] for tensor in state)
        s, weight, value = (x.transpose(0, 1).unsqueeze(0) for x in own)
        y, after = _sequence(s, weight, value, before, chunk_size)
        ys.append(y.squeeze(0).transpose(0, 1))
        states.append(after)
    return torch.cat(ys), tuple(torch.cat(tensors) for tensors in zip(*states))


def _sequence(
    scores: Tensor, weights: Tensor, v: Tensor, state: State, chunk_size: int
) -> tuple[Tensor, State]:
    """Clouds of one size, chunk by chunk.

    Scores and weights, the softmax over latents, are `[b, H, n, M]`; v is `[b, H, n, E]`.
    """
    if v.shape[2] == 0:
        return v, state
    ys = []
    for start in range(0, v.shape[2], chunk_size):
        s, weight, value = (x[:, :, start : start + chunk_size] for x in (scores, weights, v))
        y, state = _chunk(s, weight, value, state)
        ys.append(y)
    return torch.cat(ys, dim=2), state


def _chunk(s: Tensor, weight: Tensor, v: Tensor, state: State) -> tuple[Tensor, State]:
    """Consecutive points `[b, H, C, ...]` that follow those of the state.

    With r_tm any reference, the numerators of z^t_m are a matrix product of e^(S_tau,m - r_tm) and
    v_tau, tau <= t, and the state. The largest score of chunk and state is one reference for
    all t, and everything is a product of matrices. Where it lies so far above the scores up to some
    t that numbers vanish, the halves of the chunk are computed one after the other; a chunk of FEW
    points takes one reference per t, and C^2 M exponentials.
    """
    mu, d, u = state
    top = torch.maximum(mu, s.detach().amax(dim=2))  # [b, H, M]
    e, old = (s - top.unsqueeze(2)).exp(), (mu - top).exp()
    sums = (d * old).unsqueeze(2) + e.cumsum(dim=2)  # [b, H, C, M]
    if bool(sums.amin() > SMALLEST):
        part = weight / sums
        y = (part @ e.mT).tril() @ v + (part * old.unsqueeze(2)) @ u
    elif s.shape[2] > FEW:
        return _sequence(s, weight, v, state, -(-s.shape[2] // 2))
    else:
        running = torch.maximum(mu.unsqueeze(2), s.detach().cummax(dim=2).values)
        future = torch.ones(s.shape[2], s.shape[2], dtype=torch.bool, device=s.device).triu(1)
        terms = s.unsqueeze(2) - running.unsqueeze(3)  # [b, H, t, tau, M]
        terms = terms.masked_fill(future.unsqueeze(-1), -torch.inf).exp()
        past = (mu.unsqueeze(2) - running).exp()
        part = weight / (d.unsqueeze(2) * past + terms.sum(dim=3))
        y = torch.einsum("bhtm,bhtsm->bhts", part, terms) @ v + (part * past) @ u
    return y, (top, sums[:, :, -1], u * old.unsqueeze(-1) + e.mT @ v)


def _per_point(points: Tensor, latents: Tensor) -> Tensor:
    """Products `[N, H, M]` of `[N, H, D]` and `[H, M, D]`."""
    return (points.transpose(0, 1) @ latents.mT).transpose(0, 1)


def _check(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    ptr: Tensor | Layout | None,
    state: State | None,
    chunk_size: int,
    q_decode: Tensor | None,
    k_decode: Tensor | None,
) -> Layout:
    if q.ndim != 3 or q.shape[1] == 0:
        raise ValueError(f"q must be [H, M, D] with M > 0, got {list(q.shape)}")
    heads, latents, width = q.shape
    if k.ndim != 3 or k.shape[1:] != (heads, width):
        raise ValueError(f"k must be [N, H={heads}, D={width}] to fit q, got {list(k.shape)}")
    if v.ndim != 3 or v.shape[:2] != k.shape[:2]:
        raise ValueError(f"v must be [N={len(k)}, H={heads}, E] to fit k, got {list(v.shape)}")
    layout = make_layout(ptr, k.shape[0], k.device)
    if (q_decode is None) != (k_decode is None):
        raise ValueError("give both q_decode and k_decode, or neither")
    if q_decode is not None and k_decode is not None:
        points, few = (len(k), heads, k_decode.shape[-1]), (heads, latents, q_decode.shape[-1])
        if q_decode.shape != points or k_decode.shape != few:
            raise ValueError(
                f"q_decode must be [N={len(k)}, H={heads}, F] and k_decode [H={heads}, "
                f"M={latents}, F], got {list(q_decode.shape)} and {list(k_decode.shape)}"
            )
    if state is not None:
        expected = (layout.num_clouds, heads, latents, v.shape[-1])
        if len(state) != 3 or state[2].shape != expected:
            raise ValueError(f"state must be (mu, d, u) with u {list(expected)}, as of a prefill")
    if not q.dtype == k.dtype == v.dtype or not q.is_floating_point():
        raise ValueError(
            f"q, k, v must share one floating dtype, got {q.dtype}, {k.dtype}, {v.dtype}"
        )
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")
    return layout
