"""Linear attention: softmax replaced by a product of features of queries and keys."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flare_geo.nn.mixer import SumMixer, head_width, layout_of
from flare_geo.ops import Layout, State, apply_state, merge_sums, ptr_to_batch, sum_outer

Kernel = Literal["elu", "silu", "relu", "identity", "normalized"]
KERNELS: dict[str, Callable[[Tensor], Tensor]] = {
    "elu": lambda t: F.elu(t) + 1,
    "silu": lambda t: F.silu(t) + 0.5,
    "relu": F.relu,
    "identity": lambda t: t,
    "normalized": lambda t: F.normalize(t, dim=-1),
}


class LinearAttention(SumMixer):
    r"""Attention of `"Transformers are RNNs" <https://arxiv.org/abs/2006.16236>`_, not causal.

    .. math::
        y_n = \frac{\phi(q_n)^\top \sum_m \phi(k_m)\, v_m^\top}
                   {\phi(q_n) \cdot \sum_m \phi(k_m) + \epsilon}, \qquad
        q, k, v = \mathrm{heads}(W x)

    The points of a cloud interact through one sum: O(N C D) time, a state of H D (D + 1) numbers
    per cloud.

    The weights of a kernel that can be negative ("identity", "normalized") may cancel: the
    denominator is then near zero, of either sign. It is moved away from zero by `eps`, which bounds
    the result, not its size; ``divide="points"`` divides by the number of points instead, as the
    `Galerkin Transformer <https://arxiv.org/abs/2105.14995>`_ does, and is the stable choice.

    Args:
        channels: width C, divisible by `heads`.
        heads: number H of heads, of width D = C / H.
        kernel: the feature map: elu + 1 (the paper's), silu + 1/2, relu, identity, or each query
            and key over its length.
        divide: by the sum of the weights (``"weights"``), or by the number of points.
        eps: keeps the denominator from zero.

    Shapes:
        - **x:** `[N, channels]`; **ptr:** `[B+1]`; **returns** `[N, channels]`

    Example:
        >>> LinearAttention(64)(torch.randn(500, 64), ptr=torch.tensor([0, 200, 500])).shape
        torch.Size([500, 64])
    """

    merges = (merge_sums,)

    def __init__(
        self,
        channels: int,
        heads: int = 8,
        *,
        kernel: Kernel = "elu",
        divide: Literal["weights", "points"] = "weights",
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        if kernel not in KERNELS:
            raise ValueError(f"kernel must be one of {', '.join(KERNELS)}, got '{kernel}'")
        if divide not in ("weights", "points"):
            raise ValueError(f"divide must be 'weights' or 'points', got '{divide}'")
        self.in_channels, self.heads = channels, heads
        self.width = head_width(channels, heads)
        self.kernel, self.divide, self.eps = kernel, divide, eps
        self.lin_q = nn.Linear(channels, channels)
        self.lin_k = nn.Linear(channels, channels)
        self.lin_v = nn.Linear(channels, channels)
        self.lin_out = nn.Linear(channels, channels)

    def encode(
        self, x: Tensor, ptr: Tensor | Layout | None = None, states: Sequence[State] = ()
    ) -> State:
        """The sums of phi(k) [v 1]^T `[B, H, F, D + 1]`, and the numbers of points `[B]`."""
        layout = layout_of(x, self.in_channels, ptr)
        k, v = self._heads(self.lin_k(x)), self._heads(self.lin_v(x))
        total = sum_outer(self.features(k, is_key=True), F.pad(v, (0, 1), value=1.0), layout)
        return total, layout.ptr.diff().to(total.dtype)

    def decode(
        self, x: Tensor, states: Sequence[State], ptr: Tensor | Layout | None = None
    ) -> Tensor:
        """What the points read from the state of their cloud: pointwise."""
        layout = layout_of(x, self.in_channels, ptr)
        total, points = states[0]
        phi = self.features(self._heads(self.lin_q(x)), is_key=False)
        y = apply_state(phi, total, layout)
        y, weight = y[..., :-1], y[..., -1:]
        if self.divide == "points":
            y = y / points[ptr_to_batch(layout.ptr, len(x))].view(-1, 1, 1)
        else:
            y = y / (weight + self.eps * torch.where(weight < 0, -1, 1))
        out: Tensor = self.lin_out(y.to(x.dtype).flatten(1))
        return out

    def features(self, t: Tensor, is_key: bool) -> Tensor:
        """The feature map: `[N, H, D]` to `[N, H, F]`."""
        return KERNELS[self.kernel](t)

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], self.heads, self.width)
