"""Slices of points, mixed by a state-space model that goes along them in both directions."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flare_geo.nn.mixers.transolver import PhysicsAttention
from flare_geo.ops.numerics import wide_dtype


class LatentMamba(PhysicsAttention):
    r"""Mixer after `"Latent Mamba Operator for Partial Differential Equations"
    <https://arxiv.org/abs/2505.19105>`_ (LaMO), in plain PyTorch.

    The points are gathered into G slices and spread again as in :class:`PhysicsAttention`; in
    between, the slices :math:`s_1 \dots s_G` of all heads side by side are a sequence for the
    selective state-space model of `"Mamba" <https://arxiv.org/abs/2312.00752>`_:

    .. math::
        [u\, \gamma] = W s, \quad \Delta_g = \mathrm{softplus}(W_\Delta u_g + b), \quad
        h_g = e^{\Delta_g A} h_{g-1} + \Delta_g B_g u_g, \quad
        o_g = C_g \cdot h_g + d\, u_g

    .. math::
        s' = W' \big[(\overrightarrow{o} + \overleftarrow{o}) \odot \mathrm{silu}(\gamma)\big]

    with :math:`B_g, C_g` linear in :math:`u_g` and A < 0. The recurrence is evaluated in
    :math:`\log_2 G` steps. The points interact through the sums of the slices: O(N C G) and
    O(G C S log G) per cloud, it streams and shards.

    What is inferred: the body of the paper and its code were not available. From its title,
    abstract and remarks elsewhere come the slicing, the latents and the bidirectional state-space
    model on them. Inferred are that the heads are put side by side before it, that the directions
    share the projections W and W' and have the rest for themselves, that there is no short
    convolution along the slices, and the sizes.

    Args:
        channels: width C, divisible by `heads`.
        heads: number H of heads, of width D = C / H.
        num_slices: number G of slices.
        num_states: number S of states of each channel.
        expand: width of u over C.

    Shapes:
        - **x:** `[N, channels]`; **ptr:** `[B+1]`; **returns** `[N, channels]`

    Example:
        >>> LatentMamba(64)(torch.randn(500, 64), ptr=torch.tensor([0, 200, 500])).shape
        torch.Size([500, 64])
    """

    def __init__(
        self,
        channels: int,
        heads: int = 8,
        *,
        num_slices: int = 64,
        num_states: int = 16,
        expand: int = 2,
    ) -> None:
        super().__init__(channels, heads, num_slices=num_slices)
        del self.lin_q, self.lin_k, self.lin_v
        wide = expand * channels
        self.lin_u = nn.Linear(channels, 2 * wide)
        self.there = SelectiveScan(wide, num_states)
        self.back = SelectiveScan(wide, num_states)
        self.lin_s = nn.Linear(wide, channels)

    def mix(self, slices: Tensor) -> Tensor:
        """Let the slices `[B, H, G, D]` of each cloud interact."""
        s = slices.transpose(1, 2).flatten(2)  # [B, G, C]
        u, gate = self.lin_u(s).chunk(2, dim=-1)
        o = self.there(u) + self.back(u.flip(1)).flip(1)
        y: Tensor = self.lin_s(o * F.silu(gate)).view(*s.shape[:2], self.heads, self.width)
        return y.transpose(1, 2)


class SelectiveScan(nn.Module):
    """The selective state-space model in one direction: `[B, G, E]` to `[B, G, E]`."""

    def __init__(self, channels: int, num_states: int) -> None:
        super().__init__()
        self.num_states, self.rank = num_states, math.ceil(channels / 16)
        self.lin_in = nn.Linear(channels, self.rank + 2 * num_states, bias=False)
        self.lin_step = nn.Linear(self.rank, channels, bias=False)
        steps = torch.exp(torch.empty(channels).uniform_(math.log(1e-3), math.log(1e-1)))
        self.step = nn.Parameter(steps.expm1().log())  # what softplus makes `steps` of
        self.log_a = nn.Parameter(torch.arange(1.0, num_states + 1).log().repeat(channels, 1))
        self.skip = nn.Parameter(torch.ones(channels))

    def forward(self, u: Tensor) -> Tensor:
        """Each place sees itself and those before it."""
        wide = wide_dtype(u.dtype)
        sizes = [self.rank, self.num_states, self.num_states]
        step, b, c = self.lin_in(u).split_with_sizes(sizes, dim=-1)
        step = F.softplus((self.lin_step(step) + self.step).to(wide)).unsqueeze(-1)  # [B, G, E, 1]
        decay = (-step * self.log_a.to(wide).exp()).exp()  # [B, G, E, S]
        h = scan(decay, step * u.to(wide).unsqueeze(-1) * b.to(wide).unsqueeze(-2))
        o: Tensor = (h @ c.to(wide).unsqueeze(-1)).squeeze(-1).to(u.dtype) + self.skip * u
        return o


def scan(decay: Tensor, x: Tensor) -> Tensor:
    r"""The recurrence :math:`h_g = a_g h_{g-1} + x_g` by doubling: each step joins two spans.

    Shapes:
        - **decay, x:** `[B, G, ...]`; **returns** `[B, G, ...]`
    """
    reach = 1
    while reach < x.shape[1]:
        before, after = x[:, :-reach], x[:, reach:]
        x = torch.cat([x[:, :reach], after + decay[:, reach:] * before], dim=1)
        decay = torch.cat([decay[:, :reach], decay[:, reach:] * decay[:, :-reach]], dim=1)
        reach *= 2
    return x
