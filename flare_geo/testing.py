"""The properties every layer on packed clouds must hold; use them on your own layers too.

Each function calls `layer(x, ptr=ptr)` with random points and raises AssertionError with the
largest relative difference when a property does not hold:

    def test_my_layer():
        check_clouds_are_independent(MyLayer(16), 16)
        check_permutation_equivariance(MyLayer(16), 16)
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Layer = Callable[..., Tensor]
SIZES = (0, 1, 17, 64, 1, 0, 233)


def random_sizes(generator: torch.Generator, clouds: int = 6, largest: int = 200) -> list[int]:
    """Sizes of a ragged batch with an empty cloud and a one-point cloud among them, shuffled."""
    sizes = torch.randint(2, largest + 1, (clouds,), generator=generator).tolist()
    sizes += [0, 1]
    return [sizes[i] for i in torch.randperm(len(sizes), generator=generator).tolist()]


def check_clouds_are_independent(
    layer: Layer,
    in_channels: int,
    sizes: Sequence[int] = SIZES,
    *,
    tolerance: float = 1e-6,
    dtype: torch.dtype = torch.float32,
    generator: torch.Generator | None = None,
) -> float:
    """A cloud's output is the same alone and inside a batch; returns the largest difference.

    The difference is relative to the largest output of all clouds: the one value of a cloud of one
    point may be near zero by chance.
    """
    x = torch.randn(sum(sizes), in_channels, dtype=dtype, generator=generator)
    ptr = torch.tensor([0, *sizes]).cumsum(0)
    with torch.no_grad():
        together = layer(x, ptr=ptr)
        alone = [layer(cloud, ptr=torch.tensor([0, len(cloud)])) for cloud in x.split(list(sizes))]
        worst = relative_difference(together, torch.cat(alone))
    assert worst <= tolerance, f"a cloud differs by {worst:.2e} alone and inside the batch {sizes}"
    return worst


def check_permutation_equivariance(
    layer: Layer,
    in_channels: int,
    sizes: Sequence[int] = SIZES,
    *,
    tolerance: float = 1e-6,
    dtype: torch.dtype = torch.float32,
    generator: torch.Generator | None = None,
) -> float:
    """Reordering the points of each cloud reorders the output; returns the largest difference."""
    x = torch.randn(sum(sizes), in_channels, dtype=dtype, generator=generator)
    ptr = torch.tensor([0, *sizes]).cumsum(0)
    order = torch.cat(
        [
            start + torch.randperm(size, generator=generator)
            for start, size in zip(ptr[:-1].tolist(), sizes)
        ]
    )
    with torch.no_grad():
        worst = relative_difference(layer(x[order], ptr=ptr), layer(x, ptr=ptr)[order])
    assert worst <= tolerance, f"the output differs by {worst:.2e} when points change their order"
    return worst


def check_batch_equals_ptr(
    layer: Layer, in_channels: int, sizes: Sequence[int] = (3, 1, 40)
) -> None:
    """`batch=` and `ptr=` mean the same; an unsorted `batch` is refused."""
    x = torch.randn(sum(sizes), in_channels)
    ptr = torch.tensor([0, *sizes]).cumsum(0)
    batch = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    with torch.no_grad():
        assert torch.equal(layer(x, batch=batch), layer(x, ptr=ptr)), "batch= differs from ptr="
        try:
            layer(x, batch=batch.flip(0))
        except ValueError:
            return
    raise AssertionError("an unsorted batch was accepted")


def relative_difference(a: Tensor, b: Tensor) -> float:
    """Largest |a - b| over largest |b|; 0 for empty tensors."""
    assert a.shape == b.shape, f"shapes differ: {list(a.shape)} and {list(b.shape)}"
    if a.numel() == 0:
        return 0.0
    return float((a - b).abs().max() / b.abs().max().clamp(min=torch.finfo(b.dtype).tiny))
