"""Triple attention: third order, without softmax, at linear cost."""

from collections.abc import Sequence

from torch import Tensor

from flare_geo.nn.mixer import layout_of
from flare_geo.nn.mixers.projected import ProjectedMixer
from flare_geo.ops import Layout, State, triple_output, triple_state


class TripleAttention(ProjectedMixer):
    r"""Each point weighs the others by the product of two scores.

    .. math::
        y_n = W\, \mathrm{LN}\Big[ \frac{1}{N} \sum_m
              (q^1_n \cdot k^1_m)\, (q^2_n \cdot k^2_m)\, v_m \Big]

    with q, k, v = x + W x, or deeper residual MLPs, in heads. There is no paper: "Higher-Order
    Attention in Linear Time" and "Triple Attention in Triton" are articles of FLARE's authors;
    related to `2-simplicial attention <https://arxiv.org/abs/1909.00668>`_. O(N C D^2) time, a
    state of H D^3 numbers per cloud: for small D; see :func:`flare_geo.ops.triple_attention`.

    Args:
        channels: width C, divisible by `heads`.
        heads: number H of heads, of width D = C / H.
        num_layers: inner layers of the projections, -1 for one linear with skip.
        normalized: whether queries and keys are divided by their length.
        backend: see :func:`flare_geo.ops.triple_attention`.

    Shapes:
        - **x:** `[N, channels]`; **ptr:** `[B+1]`; **returns** `[N, channels]`

    Example:
        >>> TripleAttention(64)(torch.randn(500, 64), ptr=torch.tensor([0, 200, 500])).shape
        torch.Size([500, 64])
    """

    names: tuple[str, ...] = ("q1", "q2", "k1", "k2", "v")

    def __init__(
        self,
        channels: int,
        heads: int = 8,
        *,
        num_layers: int = -1,
        normalized: bool = False,
        backend: str = "auto",
    ) -> None:
        super().__init__(channels, heads, self.names, num_layers=num_layers)
        self.normalized, self.backend = normalized, backend

    def queries(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Two of each point, `[N, H, I]` and `[N, H, K]`."""
        q1, q2 = (self._scaled(t) for t in self.project(x, "q1", "q2"))
        return q1, q2

    def keys_and_values(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """k1 `[N, H, I]`, k2 `[N, H, K]` and v `[N, H, D]`."""
        k1, k2, v = self.project(x, "k1", "k2", "v")
        return self._scaled(k1), self._scaled(k2), v

    def encode(
        self, x: Tensor, ptr: Tensor | Layout | None = None, states: Sequence[State] = ()
    ) -> State:
        """The sums of the triple products `[B, H, I, D, K]`, and the numbers of points `[B]`."""
        layout = layout_of(x, self.in_channels, ptr)
        k1, k2, v = self.keys_and_values(x)
        mean = triple_state(k1, v, k2, layout, backend=self.backend)
        points = layout.ptr.diff().to(mean.dtype)
        return mean * points.view(-1, 1, 1, 1, 1), points

    def decode(
        self, x: Tensor, states: Sequence[State], ptr: Tensor | Layout | None = None
    ) -> Tensor:
        """What the points read from the state of their cloud: pointwise."""
        layout = layout_of(x, self.in_channels, ptr)
        total, points = states[0]
        mean = total / points.clamp(min=1).view(-1, 1, 1, 1, 1)
        q1, q2 = self.queries(x)
        return self.finish(triple_output(q1, mean, q2, layout, backend=self.backend), x)

    def _scaled(self, t: Tensor) -> Tensor:
        return t / (t.norm(dim=-1, keepdim=True) + 1e-6) if self.normalized else t
