"""The inference version of a training transform: random steps removed."""

from __future__ import annotations

from typing import Any

from flare_geo.pyg import BaseTransform, Compose
from flare_geo.transforms.assemble_features import AssembleFeatures
from flare_geo.transforms.fourier_features import FourierFeatures
from flare_geo.transforms.rotate import Rotate
from flare_geo.transforms.sample_surface import SampleSurface
from flare_geo.transforms.subsample import Subsample
from flare_geo.transforms.unit_box import UnitBox


def for_prediction(transform: BaseTransform) -> Compose:
    """The transform without the parts that draw points or angles at random.

    Sampling would leave points without a prediction, and random rotations are there to vary the
    training data; all else decides what the model is given and must be the same.

    Example:
        >>> from flare_geo.transforms import UnitBox
        >>> for_prediction(Compose([Subsample(100), Rotate(), UnitBox([0, 0], [1, 1])]))
        Compose([
          UnitBox(low=(0.0, 0.0), high=(1.0, 1.0), interval=(0.0, 1.0), keep_aspect=True)
        ])
    """
    parts = transform.transforms if isinstance(transform, Compose) else [transform]
    kept: list[BaseTransform] = []
    for part in parts:
        if isinstance(part, Compose):
            kept += for_prediction(part).transforms
        elif not isinstance(part, (Subsample, SampleSurface)) and not _is_random(part):
            kept.append(part)
    return Compose(kept)


def is_pointwise(transform: Any) -> bool:
    """Whether what a transform makes of a point depends on that point alone.

    It may then be applied to some points of a cloud at a time. Such a transform leaves predictions
    as they are.

    Example:
        >>> from flare_geo.transforms import UnitBox
        >>> is_pointwise(UnitBox([0, 0], [1, 1])), is_pointwise(UnitBox())
        (True, False)
    """
    if isinstance(transform, Compose):
        return all(is_pointwise(part) for part in transform.transforms)
    if isinstance(transform, UnitBox):
        return transform.low is not None
    return isinstance(transform, (AssembleFeatures, FourierFeatures))


def _is_random(part: BaseTransform) -> bool:
    return isinstance(part, Rotate) and not isinstance(part.angle, float)
