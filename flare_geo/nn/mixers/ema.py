"""Moving averages along the order of the points, and attention gated by them."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flare_geo.nn.mixer import layout_of
from flare_geo.ops import Layout, pairwise_attention
from flare_geo.ops.convolution import causal_convolution
from flare_geo.ops.numerics import wide

CLOSEST = 1e-4  # of a decay to 0 and to 1
LARGEST = 60.0  # exponent of the clipped form


class EMAGatedAttention(nn.Module):
    r"""Gated attention of `"Mega: Moving Average Equipped Gated Attention"
    <https://arxiv.org/abs/2209.10655>`_ in one head, with averages in both directions.

    .. math::
        s_t = r\, s_{t-1} + a\, b\, u_t, \quad r = 1 - a d, \quad
        \mathrm{scan}(u)_t = \sum_{j<4} e_j\, s_{tj}, \quad
        z = W_z\, [\mathrm{scan}(u), \overleftarrow{\mathrm{scan}}(u)]

    .. math::
        q, k, v = \mathrm{silu}(W_q z), \mathrm{silu}(W_k z), \mathrm{silu}(W_v u), \quad
        o = \mathrm{softmax}(C^{-1/2} q k^\top)\, v, \quad g_i = \sigma(W_i z), \quad
        y = g_2 \odot \mathrm{silu}(z W_h + (g_1 \odot o)\, U_h + b_h) + (1 - g_2) \odot u

    The scan of a cloud is a convolution with its own kernel :math:`\sum_j e_j a_j b_j r_j^t`, done
    by FFT: O(N C log N), exact to rounding for every length. The attention is between all pairs,
    O(N^2 C). The result depends on the order of the points; it neither streams nor shards.

    Differs from the paper: q and k have linears of their own (there one projection, shared), both
    directions are combined by a linear.

    Args:
        channels: width C.
        heads: not used: the paper has one head.
        clip: evaluate the scan as the reference does, :math:`e^{L_t} \sum_{\tau \le t} a b u_\tau
            e^{-L_\tau}` with :math:`L_t = t \log r` cut at -60. The same as long as nothing is
            cut; behind that point of a long cloud the average no longer decays, so this form is
            only for equality with the reference.

    Shapes:
        - **x:** `[N, channels]`; **ptr:** `[B+1]`; **returns** `[N, channels]`

    Example:
        >>> EMAGatedAttention(64)(torch.randn(500, 64), ptr=torch.tensor([0, 200, 500])).shape
        torch.Size([500, 64])
    """

    def __init__(self, channels: int, heads: int = 1, *, clip: bool = False) -> None:
        super().__init__()
        self.in_channels, self.clip = channels, clip
        self.alpha, self.delta, self.beta, self.eta = (
            nn.Parameter(torch.empty(channels, 4)) for _ in range(4)
        )
        self.lin_z = nn.Linear(2 * channels, channels)
        self.lin_q, self.lin_k, self.lin_v = (nn.Linear(channels, channels) for _ in range(3))
        self.lin_g1, self.lin_g2 = (nn.Linear(channels, channels) for _ in range(2))
        self.w_h, self.u_h = (nn.Parameter(torch.empty(channels, channels)) for _ in range(2))
        self.b_h = nn.Parameter(torch.zeros(channels))
        for logits in (self.alpha, self.delta, self.beta):
            nn.init.normal_(logits, std=0.2)
        nn.init.normal_(self.eta, std=0.5)
        for weight in (self.w_h, self.u_h):
            nn.init.xavier_uniform_(weight)

    def forward(
        self, x: Tensor, ptr: Tensor | Layout | None = None, pos: Tensor | None = None
    ) -> Tensor:
        """Mix the points of each cloud."""
        layout = layout_of(x, self.in_channels, ptr)
        z = self.lin_z(self._averages(x, layout))
        q, k = F.silu(self.lin_q(z)), F.silu(self.lin_k(z))
        v = F.silu(self.lin_v(x))
        o = pairwise_attention(q.unsqueeze(1), k.unsqueeze(1), v.unsqueeze(1), layout).squeeze(1)
        g1, g2 = self.lin_g1(z).sigmoid(), self.lin_g2(z).sigmoid()
        h = F.silu(z @ self.w_h + (g1 * o) @ self.u_h + self.b_h)
        y: Tensor = g2 * h + (1 - g2) * x
        return y

    def _averages(self, x: Tensor, layout: Layout) -> Tensor:
        """`[N, 2C]`: the scan of each cloud in both directions."""
        u = wide(x)
        a, d, b = (t.to(u.dtype).sigmoid() for t in (self.alpha, self.delta, self.beta))
        log_r = (1 - a * d).clamp(CLOSEST, 1 - CLOSEST).log()  # [C, 4]
        gain = a * b * self.eta.to(u.dtype)
        scan = _clipped_scan if self.clip else _scan
        there = scan(u, log_r, gain, layout.ptr)
        back = scan(u.flip(0), log_r, gain, x.shape[0] - layout.ptr.flip(0)).flip(0)
        return torch.cat([there, back], dim=-1).to(x.dtype)


def _scan(u: Tensor, log_r: Tensor, gain: Tensor, ptr: Tensor) -> Tensor:
    """`[N, C]`: the sum over tau <= t of u_tau and the kernel at t - tau."""
    t = torch.arange(u.shape[0], device=u.device, dtype=u.dtype).view(-1, 1, 1)
    kernel = ((t * log_r).exp() * gain).sum(-1)  # [N, C]
    return causal_convolution(u, kernel, ptr)


@torch.compiler.disable(reason="for equality, not for speed")  # type: ignore[no-untyped-call]
def _clipped_scan(u: Tensor, log_r: Tensor, gain: Tensor, ptr: Tensor) -> Tensor:
    scans = [u[:0]]
    for cloud in u.split_with_sizes(ptr.diff().tolist()):
        t = torch.arange(cloud.shape[0], device=u.device, dtype=u.dtype).view(-1, 1, 1)
        level = (t * log_r).clamp(-LARGEST, LARGEST)  # [n, C, 4]
        sums = (cloud.unsqueeze(-1) * (-level).exp()).cumsum(dim=0)
        scans.append((level.exp() * sums * gain).sum(-1))
    return torch.cat(scans)
