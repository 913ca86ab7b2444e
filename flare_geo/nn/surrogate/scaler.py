"""Affine normalisation of channels whose statistics are buffers: they travel with the weights."""

from collections.abc import Iterable
from typing import Self

import torch
from torch import Tensor, nn


class Scaler(nn.Module):
    r"""Channel-wise :math:`(x - \mathrm{mean}) / \mathrm{std}` and its inverse.

    Args:
        mean: `[C]` offset of each channel.
        std: `[C]` positive scale of each channel.

    Shapes:
        - **x:** `[..., C]`; **returns** `[..., C]`

    Raises:
        ValueError: if mean and std are not finite vectors of one length, or std is not positive.

    Example:
        >>> scaler = Scaler.fit([torch.randn(100, 3), torch.randn(50, 3)])
        >>> x = torch.randn(7, 3)
        >>> torch.allclose(scaler.inverse(scaler(x)), x, atol=1e-6)
        True
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        if mean.ndim != 1 or mean.shape != std.shape:
            raise ValueError(
                f"mean and std must be vectors of one length, got {list(mean.shape)} and "
                f"{list(std.shape)}"
            )
        if not (torch.isfinite(mean).all() and torch.isfinite(std).all() and (std > 0).all()):
            raise ValueError("mean and std must be finite and std positive")
        self.register_buffer("mean", mean.to(torch.float32))
        self.register_buffer("std", std.to(torch.float32))

    @classmethod
    def identity(cls, channels: int) -> Self:
        """A scaler that changes nothing, for fields that stay raw."""
        return cls(torch.zeros(channels), torch.ones(channels))

    @classmethod
    def fit(cls, chunks: Iterable[Tensor]) -> Self:
        """Mean and standard deviation over all rows of all chunks, one pass, in float64.

        Chunks `[n, C]` may be empty. A channel that never changes gets std 1. Sums of squares about
        the means of the chunks are merged (Chan, Golub, LeVeque 1979), so nothing cancels.

        Raises:
            ValueError: if there is not one row, or a value is not finite.
        """
        count, mean, squares = 0, torch.zeros(0), torch.zeros(0)
        for chunk in chunks:
            n = chunk.shape[0]
            if n == 0:
                continue
            x = chunk.detach().to(torch.float64)
            chunk_mean = x.mean(dim=0)
            chunk_squares = (x - chunk_mean).square().sum(dim=0)
            if count == 0:
                count, mean, squares = n, chunk_mean, chunk_squares
                continue
            gap = chunk_mean - mean
            total = count + n
            squares = squares + chunk_squares + gap.square() * (count * n / total)
            mean = mean + gap * (n / total)
            count = total
        if count == 0:
            raise ValueError("cannot fit a Scaler: there is no point in the training data")
        std = (squares / count).sqrt()
        # below the rounding of the mean a channel is constant: leave it in its own unit
        constant = std <= 1e-9 * mean.abs().clamp(min=1e-30)
        return cls(mean, torch.where(constant, torch.ones_like(std), std))

    def forward(self, x: Tensor) -> Tensor:
        """Physical units to about zero mean and unit variance."""
        return (x - self.mean) / self.std

    def inverse(self, x: Tensor) -> Tensor:
        """Back to physical units."""
        return x * self.std + self.mean
