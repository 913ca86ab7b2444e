"""The properties every layer on packed clouds must hold; use them on your own layers too.

Each function calls `layer(x, ptr=ptr)` with random points and raises AssertionError with the
largest relative difference when a property does not hold:

    def test_my_layer():
        check_clouds_are_independent(MyLayer(16), 16)
        check_permutation_equivariance(MyLayer(16), 16)
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

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


def check_gradients(
    layer: nn.Module,
    in_channels: int,
    sizes: Sequence[int] = (3, 0, 1, 5),
    *,
    generator: torch.Generator | None = None,
) -> None:
    """Gradients of the points and of all weights against differences, in float64 (`gradcheck`)."""
    layer = copy.deepcopy(layer).double()
    x = torch.randn(sum(sizes), in_channels, dtype=torch.float64, generator=generator)
    ptr = torch.tensor([0, *sizes]).cumsum(0)
    weights = dict(layer.named_parameters())

    def run(x: Tensor, *values: Tensor) -> Tensor:
        named = dict(zip(weights, values, strict=True))
        y: Tensor = torch.func.functional_call(layer, named, (x,), {"ptr": ptr})
        return y

    inputs = (x.requires_grad_(), *(w.detach().requires_grad_() for w in weights.values()))
    assert torch.autograd.gradcheck(run, inputs, fast_mode=True)


def check_parts_merge(
    layer: nn.Module,
    in_channels: int,
    sizes: Sequence[int] = SIZES,
    *,
    parts: int = 3,
    tolerance: float = 1e-6,
    dtype: torch.dtype = torch.float32,
    generator: torch.Generator | None = None,
) -> float:
    """A :class:`flare_geo.nn.SumMixer` gives the same where the points of each cloud lie in several
    places, in chunks or on ranks, and so do its gradients; returns the largest difference.

    Each sum is encoded part by part, merged, and decoded part by part.
    """
    x = torch.randn(sum(sizes), in_channels, dtype=dtype, generator=generator)
    x.requires_grad_()
    cloud = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    part = torch.randint(parts, (len(x),), generator=generator)
    where = [(part == i).nonzero()[:, 0] for i in range(parts)]
    counts = [torch.bincount(cloud[at], minlength=len(sizes)) for at in where]
    ptrs = [torch.cat([n.new_zeros(1), n.cumsum(0)]) for n in counts]
    merges: Any = layer.merges
    encode: Any = layer.encode
    decode: Any = layer.decode
    states: list[tuple[Tensor, ...]] = []
    for merge in merges:
        own = [encode(x[at], ptr, states) for at, ptr in zip(where, ptrs, strict=True)]
        states.append(merge(*own))
    y = torch.cat([decode(x[at], states, ptr) for at, ptr in zip(where, ptrs, strict=True)])
    y = y[torch.cat(where).argsort()]
    whole = layer(x, ptr=torch.tensor([0, *sizes]).cumsum(0))
    weight = torch.randn(y.shape, dtype=dtype, generator=generator)
    grads = [torch.autograd.grad((out * weight).sum(), x)[0] for out in (y, whole)]
    worst = max(relative_difference(y, whole), relative_difference(grads[0], grads[1]))
    assert worst <= tolerance, f"{parts} parts of each cloud differ by {worst:.2e} from the whole"
    return worst


def check_compiles(
    layer: nn.Module,
    in_channels: int,
    batches: Sequence[Sequence[int]] = ((7, 0, 1, 20), (6, 3, 8, 2, 30), (1, 1, 1)),
    *,
    tolerance: float = 1e-5,
    dtype: torch.dtype = torch.float32,
    backend: str = "aot_eager",
    fullgraph: bool = True,
) -> None:
    """`torch.compile` for sizes that change, in one graph: same output, same gradients.

    The gradients are those of the points and of all weights. One that is small beside the largest
    is compared with a thousandth of that one, as it may be the rounding of a sum that cancels.
    """
    torch._dynamo.reset()
    compiled = torch.compile(layer, backend=backend, fullgraph=fullgraph, dynamic=True)
    for sizes in batches:
        x = torch.randn(sum(sizes), in_channels, dtype=dtype)
        ptr = torch.tensor([0, *sizes]).cumsum(0)
        leaves = {"x": x.requires_grad_()} | dict(layer.named_parameters())
        found = []
        for run in (compiled, layer):
            y = run(x, ptr=ptr)
            loss = y.square().sum()
            grads = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
            found.append([y, *(torch.zeros(0) if g is None else g for g in grads)])
        largest = max((float(g.abs().max()) for g in found[1][1:] if g.numel()), default=0.0)
        for name, a, b in zip(("the output", *leaves), *found, strict=True):
            floor = 0.0 if name == "the output" else 1e-3 * largest
            worst = relative_difference(a, b, floor)
            assert worst <= tolerance, (
                f"compiled, clouds of {list(sizes)}: {name} differs by {worst:.2e}"
            )


def check_half_precision(
    layer: nn.Module,
    in_channels: int,
    sizes: Sequence[int] = SIZES,
    *,
    dtype: torch.dtype = torch.bfloat16,
    generator: torch.Generator | None = None,
) -> None:
    """Weights and points in half precision: output and gradients are finite and of that dtype."""
    layer = copy.deepcopy(layer).to(dtype)
    x = torch.randn(sum(sizes), in_channels, generator=generator).to(dtype).requires_grad_()
    y = layer(x, ptr=torch.tensor([0, *sizes]).cumsum(0))
    assert y.dtype == dtype, f"points in {dtype} became {y.dtype}"
    y.square().sum().backward()
    grads = {"x": x.grad} | {name: w.grad for name, w in layer.named_parameters()}
    for name, value in {"the output": y, **grads}.items():
        finite = value is not None and bool(value.isfinite().all())
        assert finite, f"{name} is not finite in {dtype}"


def relative_difference(a: Tensor, b: Tensor, floor: float = 0.0) -> float:
    """Largest |a - b| over largest |b|, or over `floor` if that is larger; 0 for empty tensors."""
    assert a.shape == b.shape, f"shapes differ: {list(a.shape)} and {list(b.shape)}"
    if a.numel() == 0:
        return 0.0
    a, b = a.detach(), b.detach()
    size = max(float(b.abs().max()), floor, torch.finfo(b.dtype).tiny)
    return float((a - b).abs().max()) / size
