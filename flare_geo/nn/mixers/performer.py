"""Performer: linear attention whose features are random exponentials."""

import torch
from torch import Tensor

from flare_geo.nn.mixers.linear import LinearAttention
from flare_geo.ops.numerics import wide


class Performer(LinearAttention):
    r"""FAVOR+ of `"Rethinking Attention with Performers" <https://arxiv.org/abs/2009.14794>`_.

    Linear attention with the features

    .. math::
        \phi(t)_f = F^{-1/2} \big( e^{\,\omega_f \cdot t' - |t'|^2 / 2 - c} + \epsilon \big),
        \qquad t' = D^{-1/4}\, t

    of fixed random :math:`\omega` (a buffer, kept with the weights). With Gaussian rows and c = 0
    :math:`\phi(q) \cdot \phi(k)` is, in the mean, the weight :math:`e^{D^{-1/2} q \cdot k}` of
    softmax attention. O(N C F) time, features of H F numbers per point, a state of H F (D + 1)
    numbers per cloud.

    As FLARE's comparison has it, by default, rows are of unit length and c is the largest exponent
    of each point, for queries and for keys. That is finite whatever comes, but the c of a key does
    not cancel: keys are weighted anew. ``orthogonal=True`` is the paper's: orthogonal rows with the
    lengths of Gaussian ones, and c = 0 for keys, whose exponents are at most
    :math:`|\omega_f|^2 / 2`.

    Args:
        channels: width C, divisible by `heads`.
        heads: number H of heads, of width D = C / H.
        num_features: number F of features per head.
        orthogonal: the paper's features in place of those of the comparison.

    Shapes:
        - **x:** `[N, channels]`; **ptr:** `[B+1]`; **returns** `[N, channels]`

    Example:
        >>> Performer(64)(torch.randn(500, 64), ptr=torch.tensor([0, 200, 500])).shape
        torch.Size([500, 64])
    """

    omega: Tensor

    def __init__(
        self, channels: int, heads: int = 8, *, num_features: int = 256, orthogonal: bool = False
    ) -> None:
        super().__init__(channels, heads)
        self.orthogonal = orthogonal
        omega = torch.randn(heads, num_features, self.width)
        lengths = omega.norm(dim=-1, keepdim=True)
        if orthogonal:
            blocks = -(-num_features // self.width)
            rows, r = torch.linalg.qr(torch.randn(heads, blocks, self.width, self.width))
            rows = rows * r.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)  # no direction first
            omega = rows.flatten(1, 2)[:, :num_features] * lengths
        else:
            omega = omega / lengths
        self.register_buffer("omega", omega)

    def features(self, t: Tensor, is_key: bool) -> Tensor:
        """`[N, H, D]` to `[N, H, F]`, in float32 or wider."""
        t = wide(t) * self.width**-0.25
        with torch.autocast(t.device.type, enabled=False):
            e = torch.einsum("nhd,hfd->nhf", t, self.omega.to(t.dtype))
        e = e - t.square().sum(dim=-1, keepdim=True) / 2
        if not (is_key and self.orthogonal):
            e = e - e.amax(dim=-1, keepdim=True)
        phi: Tensor = (e.exp() + 1e-6) * self.omega.shape[1] ** -0.5
        return phi
