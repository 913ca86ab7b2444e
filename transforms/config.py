"""Transforms written down as JSON, and read again."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from flare_geo.arguments import as_json
from flare_geo.pyg import BaseTransform, Compose
from flare_geo.transforms.assemble_features import AssembleFeatures
from flare_geo.transforms.base import Transform
from flare_geo.transforms.curvature import Curvature
from flare_geo.transforms.fourier_features import FourierFeatures
from flare_geo.transforms.normals import Normals
from flare_geo.transforms.rotate import Rotate
from flare_geo.transforms.sample_surface import SampleSurface
from flare_geo.transforms.signed_distance import SignedDistance
from flare_geo.transforms.space_filling_order import SpaceFillingOrder
from flare_geo.transforms.subsample import Subsample
from flare_geo.transforms.unit_box import UnitBox

TRANSFORMS: dict[str, type[Transform]] = {
    "AssembleFeatures": AssembleFeatures,
    "Curvature": Curvature,
    "FourierFeatures": FourierFeatures,
    "Normals": Normals,
    "Rotate": Rotate,
    "SampleSurface": SampleSurface,
    "SignedDistance": SignedDistance,
    "SpaceFillingOrder": SpaceFillingOrder,
    "Subsample": Subsample,
    "UnitBox": UnitBox,
}


def to_config(transform: BaseTransform) -> dict[str, Any]:
    """A transform as JSON values, bounds it was fitted to included.

    Args:
        transform: One of :data:`TRANSFORMS`, or a ``Compose`` of such.

    Raises:
        ValueError: any other transform; what a checkpoint is to hold must be readable anywhere.

    Example:
        >>> to_config(Subsample(100, seed=0))
        {'name': 'Subsample', 'arguments': {'num_points': 100, 'seed': 0}}
        >>> from_config(to_config(Subsample(100, seed=0)))
        Subsample(num_points=100, seed=0)
    """
    if isinstance(transform, Compose):
        return {"name": "Compose", "transforms": [to_config(t) for t in transform.transforms]}
    name = type(transform).__name__
    if not isinstance(transform, Transform) or TRANSFORMS.get(name) is not type(transform):
        raise ValueError(f"{name} cannot be written down, only Compose, {', '.join(TRANSFORMS)}")
    return {"name": name, "arguments": as_json(transform.arguments, name)}


def from_config(config: Mapping[str, Any]) -> BaseTransform:
    """The transform that :func:`to_config` wrote down.

    Only the classes in :data:`TRANSFORMS` are ever made; nothing is imported by name.

    Raises:
        ValueError: a transform or an argument that does not exist; says which do.
    """
    if not isinstance(config, Mapping) or not isinstance(config.get("name"), str):
        raise ValueError(f"expected {{'name': ..., 'arguments': ...}}, got {config!r}")
    name = config["name"]
    if name == "Compose":
        parts = config.get("transforms")
        if not isinstance(parts, list):
            raise ValueError(f"Compose: expected a list under 'transforms', got {parts!r}")
        return Compose([from_config(part) for part in parts])
    if name not in TRANSFORMS:
        raise ValueError(f"there is no transform '{name}', only Compose, {', '.join(TRANSFORMS)}")
    arguments = config.get("arguments", {})
    known = inspect.signature(TRANSFORMS[name]).parameters
    if not isinstance(arguments, Mapping) or not arguments.keys() <= known.keys():
        raise ValueError(f"{name} takes {', '.join(known) or 'no arguments'}, got {arguments!r}")
    missing = [k for k, p in known.items() if p.default is p.empty and k not in arguments]
    if missing:
        raise ValueError(f"{name}: the argument '{missing[0]}' is missing, got {arguments!r}")
    try:
        return TRANSFORMS[name](**arguments)
    except TypeError as error:  # a value of a kind no constructor is written for
        raise ValueError(f"{name} cannot be made from {dict(arguments)!r} ({error})") from None
