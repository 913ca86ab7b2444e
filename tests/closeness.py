"""Comparisons whose bounds follow from the dtype and from how much was summed.

    close({"y": y, "dq": dq}, {"y": exact, "dq": exact_dq}, terms=62)

The last bits of a sum depend on the order of its terms: on the width of the vectors of a processor,
on the library, on the number of threads, and in a matrix product on the other rows. So bits are
compared only where the same calls are made on the same shapes with as many threads.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

ROUNDINGS = 8  # what follows upon each other in an attention: products, exp, a quotient, products
Named = Mapping[str, Tensor] | Sequence[Tensor] | Tensor


def bound(dtype: torch.dtype, terms: int = 1, roundings: float = ROUNDINGS) -> float:
    """What rounding may do, over the size of what is summed.

    The errors of `terms` additions, each up to eps / 2 and of either sign, add up as the root of
    their number. Half precision is summed in float32: what is rounded are the operands.

    Args:
        dtype: in which was computed.
        terms: of the longest sum, as the points of a cloud or the channels of a product.
        roundings: how many such sums follow upon each other: more in a gradient or in a model.
    """
    eps = torch.finfo(dtype).eps
    return roundings * eps * (max(terms, 1) ** 0.5 if eps < 1e-6 else 0.5)


def close(
    found: Named,
    expected: Named,
    *,
    terms: int = 1,
    roundings: float = ROUNDINGS,
    dtype: torch.dtype | None = None,
) -> None:
    """Tensors of one computation agree but for rounding; the first that does not is named.

    The error of each is seen against its largest number or, where that is smaller, against the
    root mean square of all: a gradient that is zero is a sum of such numbers that cancel.

    Args:
        found: with their names, or in the order of `expected`.
        expected: in the same dtype or a wider one.
        terms: as for :func:`bound`.
        roundings: as for :func:`bound`.
        dtype: that of the computation; if None, the narrowest that was found.
    """
    found, expected = _named(found), _named(expected)
    assert found.keys() == expected.keys()
    if dtype is None:
        dtype = max((t.dtype for t in found.values()), key=lambda d: torch.finfo(d).eps)
    limit = bound(dtype, terms, roundings)
    wanted = {name: t.detach().double() for name, t in expected.items()}
    every = torch.cat([t[t.isfinite()] for t in wanted.values()] or [torch.zeros(0)])
    usual = float(every.square().mean().sqrt()) if every.numel() else 0.0
    for name, want in wanted.items():
        got = found[name].detach().double()
        assert got.shape == want.shape, f"{name} is {list(got.shape)}, not {list(want.shape)}"
        off = torch.where(got == want, 0.0, (got - want).abs())  # infinities may agree
        if not off.numel():
            continue
        finite = want[want.isfinite()]
        size = max(usual, float(finite.abs().max()) if finite.numel() else 0.0)
        error = float(off.max()) / max(size, 1e-300)
        assert error <= limit, (
            f"{name} is off by {error:.1e} of {size:.1e}; rounding of {terms} terms in {dtype} "
            f"explains {limit:.1e}"
        )


def _named(tensors: Named) -> dict[str, Tensor]:
    if isinstance(tensors, Tensor):
        return {"the result": tensors}
    if isinstance(tensors, Mapping):
        return dict(tensors)
    return {f"tensor {i}": t for i, t in enumerate(tensors)}
