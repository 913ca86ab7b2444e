"""A look inside a model: where its latents read and write, and how far its layers mix.

Everything here is for one cloud at a time, and finds the :class:`FlareConv` layers of any module.
The mathematics is in `flare_geo.ops.spectrum`.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from flare_geo.nn.flare.conv import FlareConv
from flare_geo.nn.surrogate import Surrogate
from flare_geo.nn.surrogate.run import evaluating
from flare_geo.ops import Layout
from flare_geo.ops.spectrum import decode_weights, encode_weights, mixing_spectrum


class Routing(NamedTuple):
    """How a FlareConv routed one cloud: `q [H, M, D]`, `k [N, H, D]`, the scale of the scores."""

    q: Tensor
    k: Tensor
    scale: float


class LatentWeights(NamedTuple):
    """Where the latents of one head look and write.

    `encode [M, N]` sums to 1 over the points: `1 / N` is to look everywhere alike. `decode [N, M]`
    sums to 1 over the latents: the shares that they have in what a point receives.
    """

    encode: Tensor
    decode: Tensor


@torch.no_grad()
def routings(model: nn.Module, *inputs: Any) -> list[Routing]:
    """Run the model on one cloud and keep how each of its FlareConv layers routed it.

    The model runs in evaluation mode and is left as it was.

    Args:
        model: a :class:`Surrogate`, a :class:`Flare`, or any module with FlareConv layers in it.
        inputs: what it is called with: a `Data` for a surrogate (on any device), else what the
            model takes, such as `x [N, in_channels]`.

    Returns:
        One per call of a layer, in the order of the calls; query and key norms are applied.

    Raises:
        ValueError: the model has no FlareConv, or the input holds several clouds.

    Example:
        >>> from flare_geo.nn import Flare
        >>> q, k, scale = routings(Flare(2, 1), torch.randn(500, 2))[0]
        >>> q.shape, k.shape
        (torch.Size([8, 64, 8]), torch.Size([500, 8, 8]))
    """
    layers = [m for m in model.modules() if isinstance(m, FlareConv)]
    if not layers:
        raise ValueError(f"the {type(model).__name__} has no FlareConv in it to look at")
    found: list[Routing] = []
    look = partial(_look, found)
    hooks = [layer.register_forward_pre_hook(look, with_kwargs=True) for layer in layers]
    try:
        with evaluating(model):
            model.predict(*inputs) if isinstance(model, Surrogate) else model(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def head_of(found: list[Routing], block: int, head: int) -> Routing:
    """One head of one of them, with its axis of length 1 kept; both may count from the end.

    Raises:
        ValueError: there is no such block or head.
    """
    for name, index, size in (("block", block, len(found)), ("head", head, len(found[0].q))):
        if not -size <= index < size:
            raise ValueError(f"{name} must be 0 to {size - 1}, got {index}")
    q, k, scale = found[block]
    at = head % len(q)
    return Routing(q[at : at + 1], k[:, at : at + 1], scale)


def latent_weights(model: nn.Module, *inputs: Any, block: int = -1, head: int = 0) -> LatentWeights:
    """Where each latent of one head looks, and where its message goes.

    Args:
        model: see :func:`routings`.
        inputs: see :func:`routings`.
        block: which FlareConv, from 0; -1 is the last.
        head: which of its heads.

    Raises:
        ValueError: there is no such block or head; or as :func:`routings`.

    Example:
        >>> from flare_geo.nn import Flare
        >>> encode, decode = latent_weights(Flare(2, 1), torch.randn(500, 2), block=0)
        >>> encode.shape, decode.shape
        (torch.Size([64, 500]), torch.Size([500, 64]))
    """
    q, k, scale = head_of(routings(model, *inputs), block, head)
    encode, decode = encode_weights(q, k, scale=scale), decode_weights(q, k, scale=scale)
    return LatentWeights(encode[0], decode[:, 0])


def spectra(model: nn.Module, *inputs: Any) -> list[Tensor]:
    """Eigenvalues of every mixing operator, one tensor `[H, M]` per block, descending.

    See :func:`flare_geo.ops.spectrum.mixing_spectrum`; arguments as :func:`routings`.
    """
    return [mixing_spectrum(q, k, scale=scale) for q, k, scale in routings(model, *inputs)]


def modes_in_use(eigenvalues: Tensor, tolerance: float = 0.01) -> Tensor:
    """How many eigenvalues of each head exceed the tolerance: `[..., M]` to `[...]` int64."""
    return (eigenvalues > tolerance).sum(dim=-1)


def suggest_num_latents(spectra: Iterable[Tensor], tolerance: float = 0.01) -> int:
    """How many latents the mixing that was learned needs.

    The largest number, over all heads and blocks, of eigenvalues above the tolerance, rounded up
    to a multiple of 8 (but not above M while some are idle): every mode that is left out was
    scaled by less than the tolerance. Give it the spectra of several cases, one list after the
    other, to cover them all.

    It says how many latents are enough for *this* operator, not how many would be best to learn
    with: where all M are in use, the spectrum cannot say whether more would help; where it
    returns less than M, train again with that many and compare the errors.

    Args:
        spectra: tensors `[H, M]`, as from :func:`spectra`.
        tolerance: eigenvalue, between 0 and 1, below which a mode does not count.

    Raises:
        ValueError: there is no spectrum, or the tolerance is out of its range.

    Example:
        >>> suggest_num_latents([torch.logspace(0, -6, 64)[None]])
        24
    """
    if not 0 < tolerance < 1:
        raise ValueError(f"tolerance must lie between 0 and 1, got {tolerance}")
    found = [(int(modes_in_use(s, tolerance).max()), s.shape[-1]) for s in spectra]
    if not found:
        raise ValueError("spectra is empty: expected at least one tensor [H, M] of eigenvalues")
    most, latents = max(used for used, _ in found), max(size for _, size in found)
    rounded = 8 * -(-most // 8)
    return rounded if most == latents else min(rounded, latents)


def _look(
    found: list[Routing], layer: FlareConv, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    given = dict(zip(("x", "ptr", "batch"), args)) | kwargs
    ptr, batch = given.get("ptr"), given.get("batch")
    clouds = 1
    if ptr is not None:
        clouds = ptr.num_clouds if isinstance(ptr, Layout) else ptr.numel() - 1
    elif batch is not None and batch.numel():
        clouds = int(batch.max()) + 1
    if clouds != 1:
        raise ValueError(f"expected one cloud, got a batch of {clouds}: pass one case of it")
    q, k = layer.routing(given["x"])
    found.append(Routing(q.detach()[0] if q.ndim == 4 else q.detach(), k.detach(), layer.scale))
