"""How a thing was made: one memory of constructor arguments, for models, transforms, data sets."""

import functools
import inspect
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


def remembers_arguments(cls: type[T]) -> type[T]:
    """Class decorator: `self.config` holds the arguments of the constructor, defaults included.

    It is there before the constructor runs. Subclasses remember, too, without a decorator of their
    own; where one constructor calls another, the arguments are those of the outermost.

    Example:
        >>> @remembers_arguments
        ... class Scale:
        ...     def __init__(self, factor: float, *, axis: int = 0): ...
        >>> Scale(2.0).config
        {'factor': 2.0, 'axis': 0}
    """

    def extend(sub: type[Any], **kwargs: Any) -> None:
        super(cls, sub).__init_subclass__(**kwargs)
        _remember(sub)

    _remember(cls)
    cls.__init_subclass__ = classmethod(extend)  # type: ignore[assignment]
    return cls


def as_json(config: Mapping[str, Any], owner: str) -> dict[str, Any]:
    """A copy of remembered arguments as JSON reads them back: tuples are lists.

    Args:
        config: what :func:`remembers_arguments` kept.
        owner: whose arguments they are, for the message.

    Raises:
        ValueError: an argument that JSON cannot hold; says which.
    """
    written = {}
    for name, value in config.items():
        try:
            written[name] = json.loads(json.dumps(value))
        except (TypeError, ValueError):
            kind = type(value).__name__
            raise ValueError(
                f"{owner} cannot be written down: its argument '{name}' is of class {kind}, "
                "expected numbers, strings, lists and dictionaries"
            ) from None
    return written


def _remember(cls: type[Any]) -> None:
    if "__init__" in vars(cls):
        cls.__init__ = _remembering(cls.__init__)


def _remembering(init: Callable[..., None]) -> Callable[..., None]:
    signature = inspect.signature(init)
    spread = [p.name for p in signature.parameters.values() if p.kind is p.VAR_KEYWORD]

    @functools.wraps(init)
    def remembering(self: Any, *args: Any, **kwargs: Any) -> None:
        if "config" not in vars(self):
            with suppress(TypeError):  # which the call itself says better
                bound = signature.bind(self, *args, **kwargs)
                bound.apply_defaults()
                _, *given = bound.arguments.items()
                config = dict(given)
                for name in spread:
                    config.update(config.pop(name))
                vars(self)["config"] = config
        init(self, *args, **kwargs)

    return remembering
