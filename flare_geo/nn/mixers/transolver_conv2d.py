"""Physics attention on a grid: convolutions sort the points into slices."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from flare_geo.nn.mixer import layout_of
from flare_geo.nn.mixers.transolver import PhysicsAttention
from flare_geo.ops import Layout


class PhysicsAttentionConv2d(nn.Module):
    r"""The mixer of `"Transolver" <https://arxiv.org/abs/2402.02366>`_ for structured meshes.

    :class:`PhysicsAttention` whose two projections are 3 x 3 convolutions with zeros around the
    grid, and whose temperatures are held in [0.1, 5], as in the authors' code.

    Every cloud is one grid: its point `r * columns + c` stands in row r and column c. Points
    interact with their neighbours, too, so it neither streams nor shards, and their order counts.
    Cost O(N C (9 C + G)).

    Args:
        channels: width C, divisible by `heads`.
        heads: number H of heads, of width D = C / H.
        grid: numbers of rows and columns.
        num_slices: number G of slices.

    Shapes:
        - **x:** `[N, channels]`, N a multiple of the size of the grid; **ptr:** `[B+1]`
        - **returns** `[N, channels]`

    Raises:
        ValueError: a cloud has another number of points than the grid.

    Example:
        >>> PhysicsAttentionConv2d(64, grid=(4, 5))(torch.randn(20, 64)).shape
        torch.Size([20, 64])
    """

    def __init__(
        self, channels: int, heads: int = 8, *, grid: Sequence[int], num_slices: int = 64
    ) -> None:
        super().__init__()
        if len(grid) != 2 or min(grid) < 1:
            raise ValueError(f"grid must be the numbers of rows and columns, got {list(grid)}")
        self.in_channels, self.grid = channels, (int(grid[0]), int(grid[1]))
        self.slices = _ClampedPhysicsAttention(channels, heads, num_slices=num_slices)
        self.slices.lin_x = _GridConv(channels, self.grid)  # type: ignore[assignment]
        self.slices.lin_fx = _GridConv(channels, self.grid)  # type: ignore[assignment]

    def forward(
        self, x: Tensor, ptr: Tensor | Layout | None = None, pos: Tensor | None = None
    ) -> Tensor:
        """Mix the points of each grid."""
        layout = layout_of(x, self.in_channels, ptr)
        rows, columns = self.grid
        if not torch.compiler.is_compiling():
            for size in set(layout.sizes) - {rows * columns}:
                raise ValueError(
                    f"each cloud must be a grid of {rows} x {columns} = {rows * columns} points, "
                    f"got one of {size}; use mixer 'transolver' for other clouds"
                )
        y: Tensor = self.slices(x, layout)
        return y


class _ClampedPhysicsAttention(PhysicsAttention):
    def weights(self, sorted_by: Tensor) -> Tensor:
        scores: Tensor = self.lin_slice(sorted_by) / self.temperature.clamp(0.1, 5.0)
        return scores.softmax(dim=-1)


class _GridConv(nn.Conv2d):
    """On packed grids: `[N, C]` to `[N, C]`."""

    def __init__(self, channels: int, grid: tuple[int, int]) -> None:
        super().__init__(channels, channels, 3, padding=1)
        self.grid = grid

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = self.grid
        grids = x.view(x.shape[0] // (rows * columns), rows, columns, x.shape[1])
        y = super().forward(grids.permute(0, 3, 1, 2))
        return y.permute(0, 2, 3, 1).reshape(x.shape)
