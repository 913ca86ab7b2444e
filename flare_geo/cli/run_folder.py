"""The folder of a run, and how the other verbs open it.

RUN/config.yaml          the whole configuration of the run
RUN/best/, RUN/last/     checkpoints: model.safetensors and config.json
RUN/last.ckpt            the state of the training, from which it resumes
RUN/metrics.csv          one row per epoch; RUN/learning_curve.png; RUN/tensorboard/
RUN/evaluation/          tables;  RUN/pictures/;  RUN/inspect/;  RUN/report.html
"""

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, cast

import torch
import yaml
from jsonargparse import ArgumentError, ArgumentParser

from flare_geo.datasets import PackedDataset
from flare_geo.nn import PointModel, Surrogate

Which = Literal["best", "last"]


def choose_checkpoint(run: Path, which: Which | None = None) -> Which:
    """The checkpoint that was asked for, else the best one where a validation split chose one.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    if not run.is_dir():
        raise FileNotFoundError(f"no run at {run}; flare-geo train --run {run} makes one")
    return which or ("best" if (run / "best").is_dir() else "last")


def open_checkpoint(run: Path, which: Which | None = None) -> tuple[Surrogate, Which]:
    """The surrogate of a run, and which checkpoint it is.

    A model that is not part of flare_geo is imported by the class path in `RUN/config.yaml`, and
    a line on standard error says what is imported.

    Raises:
        FileNotFoundError: there is no run, or no such checkpoint in it.
        ValueError: the checkpoint is damaged, or its class cannot be imported or is no PointModel.
    """
    which = choose_checkpoint(run, which)
    spec = _configuration(run).get("model") if (run / "config.yaml").is_file() else None
    path = spec.get("class_path", "") if isinstance(spec, dict) else ""
    if path.endswith(".SequenceClassifier"):
        raise ValueError(
            f"{run} is the run of a classifier of sequences, without fields on points: "
            f"flare-geo evaluate {run} has its accuracy"
        )
    if not isinstance(spec, dict) or path.split(".")[0] in ("flare_geo", ""):
        return Surrogate.from_pretrained(run / which), which
    _import_model(path, run / "config.yaml")
    widths = _widths(run / which)
    try:
        model = _made("model", Callable[[int, int], PointModel], spec)(*widths)
    except (ArgumentError, TypeError) as error:
        text = " ".join(str(error).split())
        raise ValueError(f"{path} cannot be made as {run / 'config.yaml'} says: {text}") from error
    return Surrogate.from_pretrained(run / which, model=model), which


def _import_model(path: str, named_in: Path) -> None:
    """Import a class, say so, and check that it is a PointModel."""
    module, _, name = path.rpartition(".")
    try:
        cls = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{named_in} names the model {path}, which cannot be imported ({error}): is its folder "
            "on PYTHONPATH?"
        ) from error
    if not (isinstance(cls, type) and issubclass(cls, PointModel)):
        raise ValueError(
            f"{named_in} names the model {path}, which is not a subclass of flare_geo.nn.PointModel"
        )
    print(f"{source_line(cls)}, named in {named_in}", file=sys.stderr)


def source_line(cls: type) -> str:
    """What is imported for a class that is not part of flare_geo, and from which file."""
    file = getattr(sys.modules[cls.__module__], "__file__", None)
    return f"model {cls.__module__}.{cls.__qualname__}, imported from {file}"


def _widths(folder: Path) -> tuple[int, int]:
    """The numbers of input and output channels of a checkpoint."""
    try:
        config = json.loads((folder / "config.json").read_text())
        return len(config["inputs"]), len(config["outputs"])
    except FileNotFoundError:
        raise FileNotFoundError(f"no checkpoint in {folder}: it has no config.json") from None
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"the checkpoint in {folder} is damaged: {error}") from error


def open_data(run: Path, split: str, overrides: dict[str, Any] | None = None) -> PackedDataset:
    """The data set of a run: a split of it, with some of its options changed.

    Raises:
        FileNotFoundError: there is no run, it has no `config.yaml`, or the data are not there.
        ValueError: an option is not one of the data set's, or there is no such split.
    """
    choose_checkpoint(run)
    spec = _configuration(run)["data"]
    spec["init_args"] = {**spec.get("init_args", {}), **(overrides or {}), "split": split}
    return make_dataset(spec)


def _configuration(run: Path) -> dict[str, Any]:
    path = run / "config.yaml"
    if not path.is_file():
        raise FileNotFoundError(f"no {path}; is {run} the folder of a run?")
    config: dict[str, Any] = yaml.safe_load(path.read_text())
    return config


def make_dataset(spec: dict[str, Any]) -> PackedDataset:
    """The data set of `{"class_path": ..., "init_args": {...}}`, as a YAML file names it.

    Raises:
        ValueError: if an argument is not one of the data set's.
    """
    try:
        return cast(PackedDataset, _made("data", PackedDataset, spec))
    except ArgumentError as error:
        given = {k: v for k, v in spec["init_args"].items() if k not in ("root", "split")}
        text = " ".join(str(error).split())
        raise ValueError(f"the data set cannot be opened with {given}: {text}") from None


def _made(name: str, kind: Any, spec: dict[str, Any]) -> Any:
    """What a YAML file describes, made as train makes it: enums, paths, modules, `**kwargs`."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument(f"--{name}", type=kind)
    return parser.instantiate(parser.parse_object({name: spec}))[name]


def choose_device(name: str) -> torch.device:
    """The device of that name; "auto" is the GPU where there is one.

    Raises:
        ValueError: there is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"device must be auto, cpu or cuda, got '{name}'") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("device cuda was asked for, but torch sees no GPU")
    return device


def check_targets(surrogate: Surrogate, dataset: PackedDataset) -> None:
    """Raise a ValueError when a checkpoint predicts other channels than the data have."""
    has = [c.name for c in dataset.channels["y"]]
    predicts = [f.name for f in surrogate.outputs]
    if has != predicts:
        raise ValueError(
            f"the checkpoint predicts {len(predicts)} channels ({', '.join(predicts)}), "
            f"{dataset.name} has {len(has)} ({', '.join(has)})"
        )


def options_suffix(overrides: dict[str, Any] | None) -> str:
    """The ending that changed options of a data set give to the name of a result file."""
    return "".join(f"_{key}-{value}" for key, value in (overrides or {}).items() if key != "root")


def source_of(dataset: PackedDataset) -> str:
    """`"generated"` or `"published"`: the word in every table and under every picture."""
    return "generated" if dataset.source.get("generated") else "published"
