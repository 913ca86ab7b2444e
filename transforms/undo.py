"""The way back through one transform or several."""

from __future__ import annotations

from flare_geo.pyg import BaseTransform, Compose, Data
from flare_geo.transforms.base import Transform


def undo(transform: BaseTransform, data: Data) -> Data:
    """Bring data, or a prediction made from them, back to how they were before a transform.

    A ``Compose`` is undone from its last transform to its first.

    Raises:
        ValueError: a transform that cannot be undone is among them.

    Example:
        >>> from flare_geo.transforms import Rotate, UnitBox
        >>> way, data = Compose([Rotate(), UnitBox()]), Data(pos=torch.rand(50, 3))
        >>> torch.allclose(undo(way, way(data)).pos, data.pos, atol=1e-6)
        True
    """
    if isinstance(transform, Compose):
        for part in reversed(transform.transforms):
            data = undo(part, data)
        return data
    if not isinstance(transform, Transform):
        raise ValueError(f"{type(transform).__name__} cannot be undone: it has no inverse")
    return transform.inverse(data)
