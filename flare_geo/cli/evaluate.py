"""`flare-geo evaluate`: the errors of a run, case by case and in summary."""

from pathlib import Path
from typing import Any

from flare_geo.cli.classify import evaluate_classes
from flare_geo.cli.results import case_errors, summarise, write_results
from flare_geo.cli.run_folder import (
    Which,
    choose_device,
    open_checkpoint,
    open_data,
    options_suffix,
)
from flare_geo.cli.verb import Verb
from flare_geo.datasets import SequenceDataset
from flare_geo.nn import Surrogate
from flare_geo.provenance import provenance


def evaluate(
    run: Path,
    split: str = "test",
    checkpoint: Which | None = None,
    data: dict[str, Any] | None = None,
    device: str = "auto",
    rows: int = 10,
) -> dict[str, Any]:
    """Print and write a table of errors, one row per case, and a summary.

    For a classifier of sequences the table holds the classes and the summary the accuracy.

    The table goes to `RUN/evaluation/SPLIT.csv`, the summary with versions, device and git revision
    to `SPLIT.json`. Relative errors are fractions of the norm of the true field in that case; the
    largest error is in the unit of the field. "rel_l2_training_mean" is the error of predicting
    the mean of the training targets everywhere.

    Args:
        run: Folder of the run.
        split: Split to evaluate on.
        checkpoint: "best" or "last". If not given, "best" where the run has one.
        data: Options of the data set to change, as in `--data.root FOLDER`.
        device: "auto", "cpu" or "cuda".
        rows: Number of cases to print; the CSV holds all of them.

    Returns:
        The summary.
    """
    target = run / "evaluation" / f"{split}{options_suffix(data)}"
    dataset = open_data(run, split, data)
    if isinstance(dataset, SequenceDataset):
        return evaluate_classes(run, checkpoint, dataset, choose_device(device), target)
    surrogate, checkpoint = open_checkpoint(run, checkpoint)
    surrogate.to(choose_device(device))
    table = case_errors(surrogate, dataset)
    summary = summarise(table, surrogate, dataset) | {
        "run": str(run),
        "checkpoint": checkpoint,
        "split": split,
        "data_options": data or {},
        **provenance(surrogate.input_scaler.mean.device),
    }
    write_results(target, table, summary)
    _print(table, summary, surrogate, rows)
    print(f"table: {target}.csv   summary: {target}.json")
    return summary


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


VERB = Verb(evaluate, positional=("run",))
