"""`flare-geo evaluate`: the errors of a run, case by case and in summary."""

import csv
import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from flare_geo.cli.classes import evaluate_classes
from flare_geo.cli.run import (
    Which,
    check_targets,
    open_checkpoint,
    open_data,
    options_suffix,
    source_of,
)
from flare_geo.datasets import PackedDataset, SequenceDataset
from flare_geo.files import write_aside
from flare_geo.metrics import (
    force_coefficients,
    max_error,
    r2_score,
    relative_l1,
    relative_l2,
    surface_force,
)
from flare_geo.nn import Surrogate
from flare_geo.provenance import provenance
from flare_geo.pyg import Data

METRICS = {
    "rel_l2": relative_l2,
    "rel_l1": relative_l1,
    "max_error": max_error,
    "r2": r2_score,
}


def evaluate(
    run: Path,
    split: str = "test",
    checkpoint: Which | None = None,
    data: dict[str, Any] | None = None,
    device: str = "auto",
    rows: int = 10,
) -> dict[str, Any]:
    """Print and write a table of errors, one row a case, and a summary.

    Of a classifier of sequences it is the accuracy, by class too.

    The table goes to `RUN/evaluation/SPLIT.csv`, the summary with versions, device and git revision
    to `SPLIT.json`. Relative errors are fractions of the field's own norm in that case; the largest
    error is in the field's unit. The line "training mean" is the error of predicting the mean of
    the training targets everywhere.

    Args:
        run: folder of the run.
        split: which split.
        checkpoint: "best" or "last"; the best one there is if not given.
        data: options of the data set to change, as in `--data.root FOLDER`.
        device: "auto", "cpu", "cuda".
        rows: how many of the cases to print; the CSV holds all.

    Returns:
        The summary.
    """
    target = run / "evaluation" / f"{split}{options_suffix(data)}"
    if (run / "config.yaml").is_file():
        dataset = open_data(run, split, data)
        if isinstance(dataset, SequenceDataset):
            return evaluate_classes(run, checkpoint, dataset, choose_device(device), target)
    surrogate, checkpoint = open_checkpoint(run, checkpoint)
    surrogate.to(choose_device(device))
    dataset = open_data(run, split, data)
    table = case_errors(surrogate, dataset)
    summary = summarise(table, surrogate, dataset) | {
        "run": str(run),
        "checkpoint": checkpoint,
        "split": split,
        "data_options": data or {},
        **provenance(surrogate.input_scaler.mean.device),
    }
    with (
        write_aside(target.with_name(target.name + ".csv")) as aside,
        aside.open("w", newline="") as file,
    ):
        columns = dict.fromkeys(name for row in table for name in row)
        writer = csv.DictWriter(file, list(columns))
        writer.writeheader()
        writer.writerows(table)
    with write_aside(target.with_name(target.name + ".json")) as aside:
        aside.write_text(json.dumps(summary, indent=2) + "\n")
    _print(table, summary, surrogate, rows)
    print(f"table: {target}.csv   summary: {target}.json")
    return summary


def case_errors(surrogate: Surrogate, dataset: PackedDataset) -> list[dict[str, Any]]:
    """The errors of every case, one row each.

    `seconds` is the time of the prediction alone. Of several channels each has its own relative L2
    error, `rel_l2 NAME`. Where forces follow from the fields and whole surfaces are predicted,
    `cd` and `cl` come from the prediction, `cd_true` and `cl_true` from the true fields.
    """
    check_targets(surrogate, dataset)
    if len(dataset) == 0:
        raise ValueError(f"{dataset.name}: the split '{dataset.split}' has no cases")
    source = source_of(dataset)
    mean = surrogate.output_scaler.mean.cpu()
    whole = dataset.store.sizes()
    table = []
    for index in tqdm(range(len(dataset)), desc=dataset.split, leave=False, disable=None):
        case = dataset[index]
        started = time.perf_counter()
        data = surrogate.predict(case)
        seconds = time.perf_counter() - started
        row: dict[str, Any] = {
            "case": data.name,
            "index": index,
            "points": data.pos.shape[0],
            "source": source,
            **{name: float(metric(data.pred, data.y)) for name, metric in METRICS.items()},
            "rel_l2_training_mean": float(relative_l2(mean.expand_as(data.y), data.y)),
            "seconds": seconds,
        }
        if len(surrogate.outputs) > 1:
            for i, channel in enumerate(surrogate.outputs):
                column = slice(i, i + 1)
                error = relative_l2(data.pred[:, column], data.y[:, column])
                row[f"rel_l2 {channel.name}"] = float(error)
        if data.pos.shape[0] == whole[index] and "rotation" not in data:
            for end, fields in (("", data.pred), ("_true", data.y)):
                found = coefficients(dataset.on_mesh, data, fields)
                row |= {} if found is None else {f"cd{end}": found[0], f"cl{end}": found[1]}
        table.append(row)
    return table


def coefficients(
    recipe: Mapping[str, Any], case: Data, fields: Tensor
) -> tuple[float, float, bool] | None:
    """Drag and lift coefficient from the fields on a whole surface, and whether friction is in.

    None where no forces follow: no pressure among the fields, no normals or areas.

    Args:
        recipe: `on_mesh` of the data set, or the surrogate's own.
        case: `normal [n, 3]` and `area [n, 1]` as they are for `surface_force`.
        fields: `[n, out]`, the channels of `recipe["outputs"]`.
    """
    rule = recipe.get("forces")
    if rule is None or "normal" not in case or "area" not in case:
        return None
    parts: dict[str, list[Tensor]] = {rule["pressure"]: [], rule["wall_shear"]: []}
    for column, (array, _, factor) in enumerate(recipe["outputs"]):
        parts.get(array, []).append(fields[:, column] / factor)
    pressure, shear = parts[rule["pressure"]], parts[rule["wall_shear"]]
    if not pressure:
        return None
    friction = torch.stack(shear, dim=1) if len(shear) == 3 else None
    force = surface_force(pressure[0], friction, case.normal * case.area)
    drag, lift = force_coefficients(force, rule["dynamic_pressure"], rule["reference_area"])
    return float(drag), float(lift), friction is not None


def ranked(table: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows from the smallest relative L2 error to the largest; what is not finite is last."""
    return sorted(table, key=lambda row: (not math.isfinite(row["rel_l2"]), row["rel_l2"]))


def choose_cases(table: list[dict[str, Any]], count: int = 3) -> dict[str, dict[str, Any]]:
    """Rows to be shown: the best, the worst, and those at even steps of the ranking between them.

    Of one the median is chosen. There are never more than the table has.
    """
    if count < 1:
        raise ValueError(f"cases must be at least 1, got {count}")
    rows, count = ranked(table), min(count, len(table))
    shares = [i / (count - 1) for i in range(count)] if count > 1 else [0.5]
    words = {0.0: "best", 0.5: "median", 1.0: "worst"}
    return {
        words.get(share, f"{100 * share:.0f} % of the cases are better"): rows[
            round(share * (len(rows) - 1))
        ]
        for share in shares
    }


def summarise(
    table: list[dict[str, Any]], surrogate: Surrogate, dataset: PackedDataset
) -> dict[str, Any]:
    """Mean, median and worst of every metric over the cases."""
    summary: dict[str, Any] = {
        "dataset": dataset.name,
        "source": source_of(dataset),
        "cases": len(table),
        "channels": [f.label for f in surrogate.outputs],
    }
    by_channel = [name for name in table[0] if name.startswith("rel_l2 ")]
    for name in (*METRICS, *by_channel, "rel_l2_training_mean"):
        values = torch.tensor([row[name] for row in table], dtype=torch.float64)
        worst: Tensor = values.min() if name == "r2" else values.max()
        summary[name] = {
            "mean": float(values.mean()),
            "median": float(values.quantile(0.5)),
            "worst": float(worst),
        }
    return summary


def choose_device(name: str) -> torch.device:
    """The device of a name; "auto" is the GPU where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"device must be auto, cpu or cuda, got '{name}'") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("device cuda was asked for, but torch sees no GPU")
    return device


def _print(
    table: list[dict[str, Any]], summary: dict[str, Any], surrogate: Surrogate, rows: int
) -> None:
    unit = "" if surrogate.outputs[0].unit == "1" else f" [{surrogate.outputs[0].unit}]"
    generated = ", generated data" if summary["source"] == "generated" else ""
    print(
        f"{summary['dataset']}{generated}: {summary['cases']} cases of split {summary['split']}, "
        f"{', '.join(summary['channels'])}"
    )
    width = max([8, *(len(str(row["case"])) for row in table[:rows])])
    head = f"{'case':{width}}  {'points':>8}  {'rel. L2':>9}  {'rel. L1':>9}  "
    print(head + f"{f'max{unit}':>12}  {'R2':>8}")
    for row in table[:rows]:
        print(
            f"{row['case']:{width}}  {row['points']:8d}  {row['rel_l2']:9.5f}  "
            f"{row['rel_l1']:9.5f}  {row['max_error']:12.5g}  {row['r2']:8.5f}"
        )
    if len(table) > rows:
        print(f"... {len(table) - rows} more in the CSV")
    for kind in ("mean", "median", "worst"):
        print(
            f"{kind:{width}}  {'':8}  {summary['rel_l2'][kind]:9.5f}  "
            f"{summary['rel_l1'][kind]:9.5f}  {summary['max_error'][kind]:12.5g}  "
            f"{summary['r2'][kind]:8.5f}"
        )
    for name in (n for n in summary if n.startswith("rel_l2 ")):
        print(f"{name.removeprefix('rel_l2 ')} alone: mean relative L2 {summary[name]['mean']:.5f}")
    baseline = summary["rel_l2_training_mean"]["mean"]
    print(
        f"predicting the training mean gives {baseline:.5f} relative L2; "
        f"the surrogate has {summary['rel_l2']['mean'] / baseline:.3f} of that"
    )
