"""Errors of one prediction per cloud, over all its points and channels.

Sums are taken in float64 (float32 on devices that have nothing wider), so a cloud of millions of
points loses nothing. A cloud without points has error 0.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from flare_geo.ops import Layout, make_layout
from flare_geo.ops.numerics import wide_dtype


def relative_l2(
    pred: Tensor,
    target: Tensor,
    ptr: Tensor | Layout | None = None,
    *,
    total: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    r"""Relative L2 error :math:`\|p - t\|_2 / \|t\|_2` of each cloud, the loss and metric of FLARE.

    Args:
        pred: predicted values, in physical units.
        target: true values.
        ptr: offsets of the clouds, None for one.
        total: where only some points of each cloud are here: makes of sums over these the sums
            over all, as :func:`flare_geo.distributed.sum_across` does.

    Shapes:
        - **pred, target:** `[N, C]`; **ptr:** `[B+1]`; **total:** `[2, B]` to `[2, B]`;
          **returns** `[B]`

    Raises:
        ValueError: if the shapes differ or `ptr` does not fit.

    Example:
        >>> relative_l2(torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0], [1.0]]))
        tensor([0.7071])
    """
    layout = _check(pred, target, ptr)
    error, size = _wide(pred) - _wide(target), _wide(target)
    sums = torch.stack([_sum(error.square(), layout), _sum(size.square(), layout)])  # [2, B]
    over, under = sums if total is None else total(sums)
    return _root(over / _positive(under)).to(wide_dtype(pred.dtype))


def relative_l1(pred: Tensor, target: Tensor, ptr: Tensor | Layout | None = None) -> Tensor:
    r"""Relative L1 error :math:`\|p - t\|_1 / \|t\|_1` of each cloud.

    Shapes:
        - **pred, target:** `[N, C]`; **ptr:** `[B+1]`; **returns** `[B]`
    """
    layout = _check(pred, target, ptr)
    error, size = _wide(pred) - _wide(target), _wide(target)
    ratio = _sum(error.abs(), layout) / _positive(_sum(size.abs(), layout))
    return ratio.to(wide_dtype(pred.dtype))


def max_error(pred: Tensor, target: Tensor, ptr: Tensor | Layout | None = None) -> Tensor:
    r"""Largest absolute error of each cloud, in the unit of the field.

    Shapes:
        - **pred, target:** `[N, C]`; **ptr:** `[B+1]`; **returns** `[B]`
    """
    layout = _check(pred, target, ptr)
    error = (_wide(pred) - _wide(target)).abs().amax(dim=1)
    result = error.new_zeros(layout.num_clouds).scatter_reduce(0, layout.batch, error, "amax")
    return result.to(wide_dtype(pred.dtype))


def r2_score(pred: Tensor, target: Tensor, ptr: Tensor | Layout | None = None) -> Tensor:
    r"""Coefficient of determination of each cloud,
    :math:`1 - \sum (p - t)^2 / \sum (t - \bar t)^2`, with the mean of each channel of the cloud.

    Shapes:
        - **pred, target:** `[N, C]`; **ptr:** `[B+1]`; **returns** `[B]`
    """
    layout = _check(pred, target, ptr)
    target = _wide(target)
    sums = target.new_zeros(layout.num_clouds, target.shape[1])
    sums = sums.index_add(0, layout.batch, target)  # [B, C]
    counts = layout.ptr.diff().clamp(min=1).unsqueeze(-1)
    spread = target - (sums / counts)[layout.batch]
    error = _wide(pred) - target
    ratio = _sum(error.square(), layout) / _positive(_sum(spread.square(), layout))
    return (1 - ratio).to(wide_dtype(pred.dtype))


def _check(pred: Tensor, target: Tensor, ptr: Tensor | Layout | None) -> Layout:
    if pred.ndim != 2 or pred.shape != target.shape:
        raise ValueError(
            f"prediction and target must both be [N, C], got {list(pred.shape)} and "
            f"{list(target.shape)}"
        )
    return make_layout(ptr, pred.shape[0], pred.device)


def _sum(values: Tensor, layout: Layout) -> Tensor:
    """`[N, C]` to the sum over points and channels of each cloud, `[B]`."""
    points = values.sum(dim=1)
    return torch.segment_reduce(points, "sum", offsets=layout.ptr, axis=0, initial=0)


def _positive(denominator: Tensor) -> Tensor:
    return denominator.clamp(min=torch.finfo(denominator.dtype).tiny)


def _root(x: Tensor) -> Tensor:
    """Square root whose gradient at 0 is 0 and not infinite: a perfect prediction is allowed."""
    zero = x == 0
    return torch.where(zero, x, torch.where(zero, torch.ones_like(x), x).sqrt())


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.device.type == "mps" else x.double()
