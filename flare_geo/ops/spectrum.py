"""The mixing operator of FLARE attention: its weights, eigenvalues and eigenvectors.

One head mixes the N points of one cloud by `W = A^T P` (N x N, rank at most M; letters as in
README.md): `P = exp(S - l)` is the softmax of the scores over points, `A = exp(S - r)` that over
latents. W is never formed. Both share the scores, so `J = sqrt(P o A) = exp(S - l/2 - r/2)` gives

    W = exp(-r/2) J^T J exp(r/2)        similar to J^T J: eigenvalues are real and not negative
    G = J J^T [M, M]                    has all of them that are not zero
    G u = lambda u   =>   W x = lambda x   with   x = A^T (exp(-l/2) u)

The rows of W sum to one: the largest eigenvalue is 1 and its eigenvector is constant. Scores are
formed chunk by chunk over the points, twice: O(N M^2) time, and no more memory than a few times
`CHUNK` scores and G. All in float64.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from flare_geo.ops.numerics import wide_dtype

CHUNK = 2**21  # scores at a time: 16 MiB
UNRESOLVED = 34.5  # log 1e15: what is smaller than this in an eigenvector of G is rounding


@torch.no_grad()
def encode_weights(q: Tensor, k: Tensor, *, scale: float = 1.0) -> Tensor:
    """How strongly each latent reads each point: the softmax over points `P`.

    The latents are independent of each other: pass `q[:, chosen]` for some of them, and
    `q[h : h + 1], k[:, h : h + 1]` for one head.

    Shapes:
        - **q:** `[H, M, D]`; **k:** `[N, H, D]`, one cloud
        - **returns** `[H, M, N]` in float32 (float64 for float64 keys); sums to 1 over points
    """
    check(q, k)
    lse, out = _encode_normaliser(q, k, scale), _empty(k, (*q.shape[:2], len(k)))
    for at, scores in _chunks(q, k, scale):
        out[:, :, at] = (scores - lse).exp().to(out.dtype)
    return out


@torch.no_grad()
def decode_weights(
    q: Tensor, k: Tensor, *, scale: float = 1.0, latents: Sequence[int] | None = None
) -> Tensor:
    """Which latents each point listens to: the softmax over latents `A^T`.

    Args:
        q: all latents; the softmax needs them.
        k: the keys of one cloud.
        scale: factor of the scores.
        latents: which of them to return, all if None.

    Shapes:
        - **q:** `[H, M, D]`; **k:** `[N, H, D]`
        - **returns** `[N, H, M]`, or one column per chosen latent, in float32 (float64 for
          float64 keys); sums to 1 over all latents
    """
    check(q, k)
    chosen = list(range(q.shape[1])) if latents is None else list(latents)
    out = _empty(k, (len(k), q.shape[0], len(chosen)))
    for at, scores in _chunks(q, k, scale):
        out[at] = scores.softmax(dim=1)[:, chosen].permute(2, 0, 1).to(out.dtype)
    return out


@torch.no_grad()
def mixing_spectrum(q: Tensor, k: Tensor, *, scale: float = 1.0) -> Tensor:
    """The eigenvalues of the N x N mixing operator of each head that can differ from zero.

    In exact arithmetic they lie in [0, 1] and the first is 1. Those below about 1e-15 are rounding.
    With N < M points, M - N of them are zero.

    Shapes:
        - **q:** `[H, M, D]`; **k:** `[N, H, D]`, one cloud
        - **returns** `[H, M]` float64, descending

    Example:
        >>> mixing_spectrum(torch.randn(8, 64, 8), torch.randn(1000, 8, 8)).shape
        torch.Size([8, 64])
    """
    check(q, k)
    gram = _gram(q, k, scale, _encode_normaliser(q, k, scale))
    values: Tensor = torch.linalg.eigvalsh(gram)
    return values.flip(-1).clamp(0, 1)


@torch.no_grad()
def mixing_eigenvectors(
    q: Tensor, k: Tensor, count: int, *, scale: float = 1.0
) -> tuple[Tensor, Tensor]:
    """The fields on the points that each head only scales: `W x = lambda x`, largest first.

    The first is constant. Each is scaled so that its entry of largest size is +1. They are
    orthogonal with the weights `exp(r)`, the share of each point in the stationary state of W;
    at points with less than 1e-30 of the largest share they are lost in rounding, and fade to 0.
    So is the whole vector where the eigenvalue is below about 1e-15: it has no meaning.

    Shapes:
        - **q:** `[H, M, D]`; **k:** `[N, H, D]`, one cloud
        - **returns** eigenvalues `[H, count]` and vectors `[H, N, count]`, float64

    Raises:
        ValueError: `count` is not 1 to M.
    """
    check(q, k)
    if not 1 <= count <= q.shape[1]:
        raise ValueError(f"count must be 1 to the number of latents {q.shape[1]}, got {count}")
    lse = _encode_normaliser(q, k, scale)
    values, vectors = torch.linalg.eigh(_gram(q, k, scale, lse))
    values, vectors = values.flip(-1)[:, :count].clamp(0, 1), vectors.flip(-1)[..., :count]
    rise = 0.5 * (lse.amax(dim=1, keepdim=True) - lse)
    latent = rise.clamp(max=UNRESOLVED).exp() * vectors  # [H, M, count]
    out = torch.empty(len(q), len(k), count, dtype=torch.float64, device=k.device)
    for at, scores in _chunks(q, k, scale):
        out[:, at] = scores.softmax(dim=1).mT @ latent
    peak = out.gather(1, out.abs().argmax(dim=1, keepdim=True))
    return values, out.div_(peak.masked_fill(peak == 0, 1))


def effective_rank(eigenvalues: Tensor) -> Tensor:
    """How many modes a head spreads over: the exponential of the entropy of its spectrum.

    With `p = eigenvalues / sum` it is `exp(-sum p log p)`: 1 where the head only averages, M where
    all eigenvalues are equal, k where k are equal and the rest zero.

    Shapes:
        - **eigenvalues:** `[..., M]`, none negative; **returns** `[...]`
    """
    p = eigenvalues / eigenvalues.sum(dim=-1, keepdim=True)
    entropy: Tensor = torch.special.entr(p).sum(dim=-1)
    return entropy.exp()


def check(q: Tensor, k: Tensor) -> None:
    """Raise a ValueError unless q is `[H, M, D]` and k `[N, H, D]` with N > 0."""
    fits = q.ndim == 3 and k.ndim == 3 and k.shape[1:] == (q.shape[0], q.shape[2])
    if not fits or not k.shape[0]:
        raise ValueError(
            f"q and k must be [H, M, D] and [N, H, D] with N > 0, got {list(q.shape)} and "
            f"{list(k.shape)}"
        )


def _chunks(q: Tensor, k: Tensor, scale: float) -> Iterator[tuple[slice, Tensor]]:
    """Chunks of points, and their scores `[H, M, n]` in float64."""
    wide = q.double() * scale
    step = max(1, CHUNK // (q.shape[0] * q.shape[1]))
    for start in range(0, len(k), step):
        at = slice(start, min(start + step, len(k)))
        yield at, wide @ k[at].double().permute(1, 2, 0)


def _encode_normaliser(q: Tensor, k: Tensor, scale: float) -> Tensor:
    """`l [H, M, 1]`, the logarithm of the sum over points."""
    lse = torch.full((*q.shape[:2], 1), -torch.inf, dtype=torch.float64, device=k.device)
    for _, scores in _chunks(q, k, scale):
        lse = torch.logaddexp(lse, scores.logsumexp(dim=-1, keepdim=True))
    return lse


def _gram(q: Tensor, k: Tensor, scale: float, lse: Tensor) -> Tensor:
    """`G = J J^T [H, M, M]`."""
    heads, latents = q.shape[:2]
    gram = torch.zeros(heads, latents, latents, dtype=torch.float64, device=k.device)
    for _, scores in _chunks(q, k, scale):
        root = (scores - 0.5 * (lse + scores.logsumexp(dim=1, keepdim=True))).exp_()
        gram.baddbmm_(root, root.mT)
    return gram


def _empty(k: Tensor, shape: tuple[int, ...]) -> Tensor:
    return k.new_empty(shape, dtype=wide_dtype(k.dtype))
