"""The model of a surrogate in its checkpoint: written down as JSON, and built again."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import nn

from flare_geo.arguments import as_json
from flare_geo.nn.model import PointModel
from flare_geo.nn.models import MODELS


def architecture_of(model: nn.Module) -> dict[str, Any]:
    """The class of a model and its arguments; the arguments are None where JSON cannot hold them,
    or the model does not remember them.
    """
    name, arguments = type(model).__name__, None
    with suppress(ValueError):
        config = getattr(model, "config", None)
        arguments = None if config is None else as_json(config, name)
    return {"class": name, "arguments": arguments}


def build_model(
    architecture: dict[str, Any], model: nn.Module | type[nn.Module] | None, folder: str | Path
) -> nn.Module:
    """The model that a checkpoint describes, with new weights. Nothing is imported by its name.

    Args:
        architecture: from :func:`architecture_of`.
        model: your own class, or an instance of it; None if the class is one of `MODELS`.
        folder: where the checkpoint lies, for messages.

    Raises:
        ValueError: the class is unknown, or its arguments are.
    """
    if isinstance(model, nn.Module):
        return model
    name, arguments = architecture["class"], architecture["arguments"]
    cls = MODELS.get(name) if model is None else model
    if cls is None:
        raise ValueError(
            f"the checkpoint in {folder} holds a model of class '{name}', which is not one of "
            f"{', '.join(MODELS)}: pass model={name}, your class, or an instance of it"
        )
    if arguments is None:
        raise ValueError(
            f"the checkpoint in {folder} does not hold the arguments of its {name}: pass "
            f"model={cls.__name__}(...), an instance"
        )
    try:
        return cls.from_config(arguments) if issubclass(cls, PointModel) else cls(**arguments)
    except TypeError as error:
        raise ValueError(
            f"the checkpoint in {folder} holds a {name}, which {cls.__name__} does not fit: {error}"
        ) from error
