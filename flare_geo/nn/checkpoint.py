"""Checkpoints: a folder with `model.safetensors` and `config.json`, never a pickle."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from flare_geo import __version__
from flare_geo.files import write_aside
from flare_geo.provenance import provenance

FORMAT = 1
WEIGHTS, CONFIG = "model.safetensors", "config.json"


def write_checkpoint(folder: str | Path, module: nn.Module, config: dict[str, Any]) -> Path:
    """Write weights and configuration into `folder`, aside first, then renamed.

    Args:
        folder: made if missing.
        module: whose `state_dict` is kept.
        config: what JSON can hold; `format` and `provenance` stand before it unless it has them.

    Raises:
        OSError: if the disk is full; a former checkpoint in the folder stays whole.
    """
    folder = Path(folder)
    state = module.state_dict()
    device = next(iter(state.values())).device if state else "cpu"
    config = {"format": FORMAT, "provenance": provenance(device), **config}
    weights = {  # copies: the format has no tensor with two names, as shared modules have
        k: v.detach().to("cpu", copy=True).contiguous() for k, v in state.items()
    }
    with write_aside(folder / WEIGHTS) as w, write_aside(folder / CONFIG) as c:
        w.write_bytes(save(weights))  # a full disk is an OSError this way
        c.write_text(json.dumps(config, indent=2) + "\n")
    return folder


def read_checkpoint(folder: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Configuration, less `format`, and weights. Nothing in the folder is run as code.

    Raises:
        FileNotFoundError: if there is no checkpoint in the folder.
        ValueError: if it is damaged, or newer than this package.
    """
    folder = Path(folder)
    for name in (WEIGHTS, CONFIG):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"no checkpoint in {folder}: it has no {name}")
    try:
        config = json.loads((folder / CONFIG).read_text())
        weights = load_file(folder / WEIGHTS)
    except (json.JSONDecodeError, SafetensorError) as error:
        raise ValueError(f"the checkpoint in {folder} is damaged: {error}") from error
    if (found := config.pop("format", None)) != FORMAT:
        raise ValueError(
            f"the checkpoint in {folder} has format {found}, "
            f"flare_geo {__version__} reads format {FORMAT}"
        )
    return config, weights


def load_weights(module: nn.Module, weights: dict[str, Tensor], folder: str | Path) -> None:
    """Put the weights of the checkpoint in `folder` into a module.

    Raises:
        ValueError: if they have other names or shapes than the module.
    """
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        line = str(error).splitlines()[1].strip()
        raise ValueError(f"the checkpoint in {folder} does not fit its model: {line}") from error
