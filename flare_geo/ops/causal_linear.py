"""Causal linear attention on packed clouds: the public function, its checks and its torch path."""

import torch
from torch import Tensor
from torch.nn.functional import pad

from flare_geo.ops.fused import use_triton
from flare_geo.ops.layout import Layout, make_layout


def causal_linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    ptr: Tensor | Layout | None = None,
    *,
    scale: float = 1.0,
    chunk_size: int = 64,
    backend: str = "auto",
) -> Tensor:
    r"""Linear attention in which a point sees itself and those before it in its cloud, from
    `"Transformers are RNNs: Fast Autoregressive Transformers with Linear Attention"
    <https://arxiv.org/abs/2006.16236>`_.

    .. math::
        y_t = s \sum_{\tau \le t} (q_t \cdot k_\tau)\, v_\tau

    Clouds are taken in chunks of C points. Inside a chunk the sum is a masked product of scores;
    what lies before it is the state :math:`\sum k_\tau v_\tau^\top` of width D x E. The cost is
    O(N (C + D) (D + E)) a head, for any length. Order matters: this is no set function.

    There is neither a feature map nor a normaliser. Apply the first to q and k; for the second,
    append a channel of ones to v: the last channel of y then is :math:`s \sum q_t \cdot k_\tau`,
    by which the others are divided.

    Args:
        q: queries of the points.
        k: keys of the points.
        v: values of the points.
        ptr: offsets of the clouds, None for one cloud; a :class:`Layout` skips the checks.
        scale: factor s.
        chunk_size: points C of a chunk; changes speed and rounding only. The kernels round it up
            to a power of two from 16 to 64, or to fewer where registers are short.
        backend: ``"torch"``, ``"triton"`` (D and E up to 128, half and single precision), or
            ``"auto"``: the kernels where they can run on a GPU, torch elsewhere.

    Shapes:
        - **q, k:** `[N, H, D]`; **v:** `[N, H, E]`; **ptr:** `[B+1]` int64
        - **returns** y: `[N, H, E]` in the dtype of v

    Raises:
        ValueError: if shapes, dtypes, `ptr` or the backend do not fit, in one line that says how.
        TypeError: if ``"triton"`` is asked for float64.

    Example:
        >>> q, k, v = torch.rand(500, 8, 16), torch.rand(500, 8, 16), torch.randn(500, 8, 16)
        >>> sums = causal_linear_attention(q, k, torch.cat([v, torch.ones(500, 8, 1)], dim=-1))
        >>> (sums[..., :-1] / sums[..., -1:]).shape
        torch.Size([500, 8, 16])
    """
    layout = _check(q, k, v, ptr, chunk_size)
    if use_triton(backend, q, max(q.shape[-1], v.shape[-1]), widest=128):
        from flare_geo.ops.triton.causal_linear import causal_linear

        y: Tensor = causal_linear(q, k, v, layout.ptr, scale, chunk_size, False)
        return y
    return chunked(q, k, v, layout, scale, chunk_size)


def chunked(
    q: Tensor, k: Tensor, v: Tensor, layout: Layout, scale: float, chunk_size: int
) -> Tensor:
    """The torch path: equal clouds in one dense piece, others one by one; half as float32."""
    if layout.equal:
        shape = (layout.num_clouds, layout.num_points // layout.num_clouds)
        q, k, v = (x.reshape(*shape, *x.shape[1:]) for x in (q, k, v))
        return _dense(q, k, v, scale, chunk_size).flatten(0, 1)
    split = (x.unsqueeze(0).split_with_sizes(layout.sizes, dim=1) for x in (q, k, v))
    ys = [_dense(q_b, k_b, v_b, scale, chunk_size) for q_b, k_b, v_b in zip(*split)]
    return torch.cat(ys, dim=1).squeeze(0) if ys else torch.zeros_like(v)


def _dense(q: Tensor, k: Tensor, v: Tensor, scale: float, chunk_size: int) -> Tensor:
    """`[b, n, H, E]` from `[b, n, H, D]`: b clouds of n points."""
    (clouds, n), dtype = v.shape[:2], v.dtype
    size = max(1, min(chunk_size, n))
    chunks = -(-n // size)
    spare = chunks * size - n  # zero keys and values at the end of a cloud change no sum
    wide = torch.promote_types(dtype, torch.float32)
    q, k, v = (
        pad(x.to(wide), (0, 0, 0, 0, 0, spare))
        .reshape(clouds, chunks, size, *x.shape[2:])
        .transpose(2, 3)
        for x in (q, k, v)
    )  # [b, chunks, H, size, D]
    states = k.mT @ v  # [b, chunks, H, D, E]
    before = pad(states, (0, 0, 0, 0, 0, 0, 1, 0))[:, :-1].cumsum(1)
    y = (q @ k.mT).tril() @ v + q @ before
    return y.transpose(2, 3).flatten(1, 2)[:, :n].mul(scale).to(dtype)


def _check(q: Tensor, k: Tensor, v: Tensor, ptr: Tensor | Layout | None, chunk_size: int) -> Layout:
    if q.ndim != 3:
        raise ValueError(f"q must be [N, H, D], got {list(q.shape)}")
    if k.shape != q.shape:
        raise ValueError(f"k must be {list(q.shape)} to fit q, got {list(k.shape)}")
    if v.ndim != 3 or v.shape[:2] != q.shape[:2]:
        raise ValueError(
            f"v must be [N={q.shape[0]}, H={q.shape[1]}, E] to fit q, got {list(v.shape)}"
        )
    if not q.dtype == k.dtype == v.dtype or not q.is_floating_point():
        raise ValueError(
            f"q, k, v must share one floating dtype, got {q.dtype}, {k.dtype}, {v.dtype}"
        )
    if not q.device == k.device == v.device:
        raise ValueError(f"q, k, v must be on one device, got {q.device}, {k.device}, {v.device}")
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")
    return make_layout(ptr, q.shape[0], q.device)
