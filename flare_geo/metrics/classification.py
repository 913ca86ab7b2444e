"""How well classes are predicted, one number a cloud; means over clouds are left to the caller."""

import torch
from torch import Tensor
from torch.nn import functional

from flare_geo.ops.numerics import wide


def cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    r"""Cross-entropy :math:`-\log \mathrm{softmax}(\ell)_c` of the true class c of each cloud.

    Args:
        logits: one number for each class.
        label: the true class.

    Shapes:
        - **logits:** `[B, K]`; **label:** `[B]` or `[B, 1]` int64; **returns** `[B]`

    Raises:
        ValueError: if the shapes do not fit or a label is no class.

    Example:
        >>> cross_entropy(torch.zeros(2, 4), torch.tensor([0, 3]))
        tensor([1.3863, 1.3863])
    """
    label = _check(logits, label)
    return functional.cross_entropy(wide(logits), label, reduction="none")


def accuracy(logits: Tensor, label: Tensor) -> Tensor:
    """1 for each cloud whose true class has the largest logit, else 0.

    Of several that are equally large the first one counts.

    Shapes:
        - **logits:** `[B, K]`; **label:** `[B]` or `[B, 1]` int64; **returns** `[B]` float32

    Raises:
        ValueError: if the shapes do not fit or a label is no class.

    Example:
        >>> accuracy(torch.tensor([[0.0, 2.0], [1.0, 0.0]]), torch.tensor([1, 1]))
        tensor([1., 0.])
    """
    label = _check(logits, label)
    return (logits.argmax(dim=1) == label).float()


def _check(logits: Tensor, label: Tensor) -> Tensor:
    b = logits.shape[0]
    if logits.ndim != 2 or label.shape not in ((b,), (b, 1)) or label.dtype != torch.int64:
        raise ValueError(
            "logits must be [B, K] and label [B] or [B, 1] int64, got "
            f"{list(logits.shape)} and {list(label.shape)} {label.dtype}"
        )
    label = label.reshape(b)
    if b and not 0 <= int(label.min()) <= int(label.max()) < logits.shape[1]:
        raise ValueError(
            f"labels must be 0 to {logits.shape[1] - 1}, got {int(label.min())} to "
            f"{int(label.max())}"
        )
    return label
