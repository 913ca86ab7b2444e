"""Latent queries made from the cloud that they will read: FLARE++."""

import torch
from torch import Tensor, nn

from flare_geo.nn.norm import Norm, make_norm
from flare_geo.ops import Layout, State, flare_encode
from flare_geo.ops.numerics import wide_dtype

LATENT_STD = 0.02
GATE = 0.25


class ConditionedQueries(nn.Module):
    r"""Queries made for each cloud, from `"FLARE++" <https://arxiv.org/abs/2608.11519>`_, in the
    gated, normalised form of its authors' code.

    .. math::
        K_0 = n(W_{k0} x), \quad V_0 = K_0 \text{ or } n(W_{v0} x), \qquad
        Q'_h = \mathrm{softmax}_n(s\, n_a(q_0)_h K_{0h}^\top)\, V_{0h}, \qquad
        Q_h = n(q)_h + \sigma(g_h)\, Q'_h

    The norms n have no weights, n_a has them. q are the fixed latents of :class:`FlareConv`; with
    the gate closed, the layer is FLARE with normalised latents.

    Args:
        in_channels: width of x.
        heads: number H of heads.
        width: width D per head.
        num_latents: number M of latents per head.
        scale: factor s of the scores; D^-1/2 if None.
        norm: kind of the norms.
        rms_eps: see :func:`flare_geo.nn.norm.make_norm`.
        share_k0_v0: whether the first keys are also the first values.
    """

    def __init__(
        self,
        in_channels: int,
        heads: int,
        width: int,
        num_latents: int,
        *,
        scale: float | None = None,
        norm: Norm = "layer",
        rms_eps: float = 1e-6,
        share_k0_v0: bool = True,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.scale: float = width**-0.5 if scale is None else scale
        self.q0 = nn.Parameter(Tensor(heads, num_latents, width))
        self.gate = nn.Parameter(Tensor(heads))
        self.q0_norm = make_norm(norm, width, rms_eps=rms_eps)
        self.norm = make_norm(norm, width, rms_eps=rms_eps, affine=False)
        self.k_lin = nn.Linear(in_channels, heads * width)
        self.v_lin = None if share_k0_v0 else nn.Linear(in_channels, heads * width)

    def reset_parameters(self) -> None:
        """Draw all parameters anew: small latents, linears near the identity."""
        nn.init.normal_(self.q0, std=LATENT_STD)
        nn.init.constant_(self.gate, GATE)
        for linear in (self.k_lin, self.v_lin):
            if linear is not None:
                start_near_identity(linear)

    def encode(self, x: Tensor, layout: Layout, backend: str) -> State:
        """`Q' [B, H, M, D]` and its lse `[B, H, M]`."""
        k = v = self._normed(self.k_lin, x)
        if self.v_lin is not None:
            v = self._normed(self.v_lin, x)
        q0 = self.q0_norm(self.q0).to(v.dtype)
        return flare_encode(q0, k, v, layout, scale=self.scale, backend=backend)

    def _normed(self, linear: nn.Linear, x: Tensor) -> Tensor:
        y: Tensor = self.norm(linear(x).unflatten(-1, (self.heads, -1)))
        return y

    def forward(self, fixed: Tensor, made: Tensor) -> Tensor:
        """The sum `[B, H, M, D]` of normalised fixed queries `[H, M, D]` and gated `Q'`, in float32
        or wider.
        """
        wide = wide_dtype(fixed.dtype)
        return fixed.to(wide) + self.gate.to(wide).sigmoid()[:, None, None] * made.to(wide)


def start_near_identity(linear: nn.Linear) -> None:
    """The identity plus a truncated N(0, 0.02), no bias: a residual without a skip."""
    noise = nn.init.trunc_normal_(torch.empty_like(linear.weight), std=0.02)
    nn.init.eye_(linear.weight)
    with torch.no_grad():
        linear.weight += noise
    nn.init.zeros_(linear.bias)
