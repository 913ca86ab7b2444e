"""The options that all data sets share, and how constructors hand them on."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeAlias, TypedDict, get_type_hints

from flare_geo.pyg import BaseTransform, Data, Dataset

CaseTransform: TypeAlias = BaseTransform | Callable[[Data], Data]
"""What a data set applies to a case: one of PyG or of `flare_geo.transforms`, or any function."""


class Reading(TypedDict, total=False):
    """The options that every data set takes besides its own, see `PackedDataset`."""

    num_points: int | None
    skip_unsound: bool
    workers: int


class Signed(Dataset):
    """Spells out ``**reading: Unpack[Reading]`` in the signatures of the constructors below it.

    So whoever reads signatures, as ``help()`` and the command line do, sees types and defaults.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        init: Any = cls.__init__
        signature = inspect.signature(init)
        *named, last = signature.parameters.values()
        if "Unpack[Reading]" in str(last.annotation):
            above = inspect.signature(super(cls, cls).__init__).parameters
            hints = get_type_hints(Reading).items()
            options = [above[name].replace(annotation=hint) for name, hint in hints]
            init.__signature__ = signature.replace(parameters=[*named, *options])
