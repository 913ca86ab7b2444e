"""The results of a run on a split: errors of every case, their summary, their ranking, forces."""

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

from flare_geo.cli.run_folder import check_targets, source_of
from flare_geo.datasets import PackedDataset
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
from flare_geo.pyg import Data

METRICS = {
    "rel_l2": relative_l2,
    "rel_l1": relative_l1,
    "max_error": max_error,
    "r2": r2_score,
}


def case_errors(surrogate: Surrogate, dataset: PackedDataset) -> list[dict[str, Any]]:
    """The errors of every case, one row per case.

    `seconds` is the time of the prediction alone. With several channels each one has its own
    relative L2 error, `rel_l2 NAME`. Where the fields determine forces and whole surfaces are
    predicted, `cd` and `cl` come from the prediction, `cd_true` and `cl_true` from the true fields.

    Raises:
        ValueError: the split has no cases, or the checkpoint predicts other channels.
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
    """Drag and lift coefficient of the fields on a whole surface, and whether friction is included.

    None where the fields determine no forces: there is no pressure, or no normals or areas.

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
    """The rows by relative L2 error, the smallest first; errors that are not finite come last."""
    return sorted(table, key=lambda row: (not math.isfinite(row["rel_l2"]), row["rel_l2"]))


def choose_cases(table: list[dict[str, Any]], count: int = 3) -> dict[str, dict[str, Any]]:
    """Rows to show: the best, the worst, and those at even steps of the ranking between them.

    A single one is the median. There are never more than the table has.
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


def write_results(target: Path, table: list[dict[str, Any]], summary: dict[str, Any]) -> None:
    """Write `TARGET.csv` with a row per case and `TARGET.json` with the summary."""
    columns = dict.fromkeys(name for row in table for name in row)
    with (
        write_aside(target.with_name(target.name + ".csv")) as aside,
        aside.open("w", newline="") as file,
    ):
        writer = csv.DictWriter(file, list(columns))
        writer.writeheader()
        writer.writerows(table)
    with write_aside(target.with_name(target.name + ".json")) as aside:
        aside.write_text(json.dumps(summary, indent=2) + "\n")
