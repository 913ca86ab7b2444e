"""Quad attention: fourth order, without softmax, at linear cost."""

import torch
from torch import Tensor

from flare_geo.nn.mixers.triple import TripleAttention


class QuadAttention(TripleAttention):
    r"""Each point weighs the others by the product of three scores.

    .. math::
        y_n = W\, \mathrm{LN}\Big[ \frac{1}{N} \sum_m
              (q^1_n \cdot k^1_m)\, (q^2_n \cdot k^2_m)\, (q^3_n \cdot k^3_m)\, v_m \Big]

    with q, k, v = x + W x in heads; from the article "Higher-Order Attention in Linear Time" of
    FLARE's authors. It is :class:`TripleAttention` of the outer products of the first two queries
    and keys, of width D^2. O(N C D^3) time, a state of H D^4 numbers per cloud: for D up to 8 or
    so.

    Args:
        channels: width C, divisible by `heads`.
        heads: number H of heads, of width D = C / H.

    Shapes:
        - **x:** `[N, channels]`; **ptr:** `[B+1]`; **returns** `[N, channels]`

    Example:
        >>> QuadAttention(64, 16)(torch.randn(500, 64), ptr=torch.tensor([0, 200, 500])).shape
        torch.Size([500, 64])
    """

    names = ("q1", "q2", "q3", "k1", "k2", "k3", "v")

    def __init__(self, channels: int, heads: int = 8) -> None:
        super().__init__(channels, heads, backend="torch")

    def queries(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """`[N, H, D^2]` and `[N, H, D]`."""
        q1, q2, q3 = self.project(x, "q1", "q2", "q3")
        return _outer(q1, q2), q3

    def keys_and_values(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`[N, H, D^2]`, `[N, H, D]` and v `[N, H, D]`."""
        k1, k2, k3, v = self.project(x, "k1", "k2", "k3", "v")
        return _outer(k1, k2), k3, v


def _outer(a: Tensor, b: Tensor) -> Tensor:
    return torch.einsum("nhi,nhj->nhij", a, b).flatten(2)
