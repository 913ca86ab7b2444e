"""The folder of a run, and how the other verbs open it.

RUN/config.yaml          the whole configuration of the run
RUN/best/, RUN/last/     checkpoints: model.safetensors and config.json
RUN/last.ckpt            state of the training, to resume it
RUN/metrics.csv          one row an epoch; RUN/learning_curve.png; RUN/tensorboard/
RUN/evaluation/          tables;  RUN/pictures/;  RUN/inspect/;  RUN/report.html
"""

from pathlib import Path
from typing import Any, Literal

import yaml
from jsonargparse import ArgumentError, ArgumentParser

from flare_geo.datasets import PackedDataset
from flare_geo.nn import Surrogate

Which = Literal["best", "last"]


def open_checkpoint(run: Path, which: Which | None = None) -> tuple[Surrogate, Which]:
    """The surrogate of a run and which it is: the best where a validation split chose one."""
    if not run.is_dir():
        raise FileNotFoundError(f"no run at {run}; flare-geo train --run {run} makes one")
    if which is None:
        which = "best" if (run / "best").is_dir() else "last"
    return Surrogate.from_pretrained(run / which), which


def open_data(run: Path, split: str, overrides: dict[str, Any] | None = None) -> PackedDataset:
    """The data set of a run, another split of it, with some of its options changed.

    Raises:
        FileNotFoundError: if the run has no `config.yaml`, or the data are not where it says.
        ValueError: if an option is not one of the data set's, or there is no such split.
    """
    path = run / "config.yaml"
    if not path.is_file():
        raise FileNotFoundError(f"no {path}; is {run} the folder of a run?")
    spec = yaml.safe_load(path.read_text())["data"]
    spec["init_args"] = {**spec.get("init_args", {}), **(overrides or {}), "split": split}
    return make_dataset(spec)


def make_dataset(spec: dict[str, Any]) -> PackedDataset:
    """The data set of `{"class_path": ..., "init_args": {...}}`, as a YAML says it.

    Raises:
        ValueError: if an argument is not one of the data set's.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--data", type=PackedDataset)
    try:
        config = parser.parse_object({"data": spec})
    except ArgumentError as error:
        given = {k: v for k, v in spec["init_args"].items() if k not in ("root", "split")}
        text = " ".join(str(error).split())
        raise ValueError(f"the data set cannot be opened with {given}: {text}") from None
    return parser.instantiate(config).data


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
    """What changed options of a data set add to the name of a result file."""
    return "".join(f"_{key}-{value}" for key, value in (overrides or {}).items() if key != "root")


def source_of(dataset: PackedDataset) -> str:
    """`"generated"` or `"published"`: the word that stands in every table and under pictures."""
    return "generated" if dataset.source.get("generated") else "published"
