"""Attention to a fixed number of learned combinations of points."""

import torch
from torch import Tensor, nn

from flare_geo.nn.mixer import head_width, layout_of
from flare_geo.ops import Layout, flare_decode, ptr_to_batch, sum_outer


class Linformer(nn.Module):
    r"""Attention of linear cost for sequences of bounded length, from `"Linformer: Self-Attention
    with Linear Complexity" <https://arxiv.org/abs/2006.04768>`_.

    .. math::
        k'_m = \sum_n E^k_{nm}\, k_n, \qquad v'_m = \sum_n E^v_{nm}\, v_n, \qquad
        y_n = W_{out} \big[ \mathrm{softmax}_m(D^{-1/2}\, q_{nh} \cdot k'_{mh})\, v'_{mh} \big]_h

    The row n of E is the place of the point in its own cloud, and E is shared by the heads: the
    result depends on the order of the points, and no cloud can be longer than `seq_len`. The two
    sums are over points, but each summand needs the place of its point, which a chunk or a rank
    does not know: it neither streams nor shards. Cost O(N M C) per cloud. q, k and v lie head by
    head in the fused projection (its rows are `[H, 3, D]`), as in the reference.

    Args:
        channels: width C, divisible by `heads`.
        heads: number H of heads, of width D = C / H.
        seq_len: largest number of points of a cloud: rows of E.
        num_latents: number M of combinations.

    Shapes:
        - **x:** `[N, channels]`; **ptr:** `[B+1]`; **returns** `[N, channels]`

    Raises:
        ValueError: a cloud has more than `seq_len` points.

    Example:
        >>> Linformer(64, seq_len=300)(torch.randn(500, 64), torch.tensor([0, 200, 500])).shape
        torch.Size([500, 64])
    """

    def __init__(
        self, channels: int, heads: int = 8, *, seq_len: int = 1024, num_latents: int = 256
    ) -> None:
        super().__init__()
        self.in_channels, self.heads, self.seq_len = channels, heads, seq_len
        self.width = head_width(channels, heads)
        self.lin_qkv = nn.Linear(channels, 3 * channels)
        self.lin_out = nn.Linear(channels, channels)
        self.e_k = nn.Parameter(Tensor(seq_len, num_latents))
        self.e_v = nn.Parameter(Tensor(seq_len, num_latents))
        for e in (self.e_k, self.e_v):  # combinations of a full cloud are as large as its points
            nn.init.normal_(e, std=seq_len**-0.5)

    def forward(
        self, x: Tensor, ptr: Tensor | Layout | None = None, pos: Tensor | None = None
    ) -> Tensor:
        """Mix the points of each cloud."""
        layout = layout_of(x, self.in_channels, ptr)
        if not torch.compiler.is_compiling() and max(layout.sizes, default=0) > self.seq_len:
            raise ValueError(
                f"Linformer has weights for clouds of at most seq_len={self.seq_len} points, got "
                f"one of {max(layout.sizes)}: make it with a larger seq_len"
            )
        clouds = ptr_to_batch(layout.ptr, x.shape[0])
        place = torch.arange(x.shape[0], device=x.device) - layout.ptr[clouds]
        qkv = self.lin_qkv(x).view(x.shape[0], self.heads, 3, self.width)
        q, k, v = qkv.unbind(2)  # [N, H, D]
        k, v = (
            sum_outer(e[place].unsqueeze(1), y.flatten(1).unsqueeze(1), layout)
            .view(layout.num_clouds, e.shape[1], self.heads, self.width)
            .transpose(1, 2)
            .to(q.dtype)  # [B, H, M, D]
            for e, y in ((self.e_k, k), (self.e_v, v))
        )
        y = flare_decode(k, q, v, layout, scale=self.width**-0.5)
        out: Tensor = self.lin_out(y.flatten(1))
        return out
