"""What stands in a report: the values of its tables, its pictures, its commands."""

import copy
import inspect
import json
import shlex
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from flare_geo.cli.format import as_text, count, duration, figures, percent, rounded
from flare_geo.cli.report.images import Figure, draw_figure
from flare_geo.cli.results import choose_cases, coefficients, ranked
from flare_geo.cli.run_folder import Which
from flare_geo.datasets import DATASETS, PackedDataset
from flare_geo.datasets.store import PackedStore
from flare_geo.nn import Surrogate
from flare_geo.nn.explain import spectra, suggest_num_latents
from flare_geo.provenance import provenance
from flare_geo.viz import (
    plot_comparison,
    plot_error_against_size,
    plot_error_histogram,
    plot_learning_curves,
    plot_parity,
    plot_spectra,
)
from flare_geo.viz.charts.curves import read_metrics

WORST = 10  # cases in the list of the worst
MOST_CHANNELS = 6  # drawn per case
ERROR = "relative L2 error [%]"
KINDS = ("mean", "median", "worst")
NOT_SHOWN = ("generated", "sha256", "tools")  # of the source of the data

Rows = list[list[str]]


class Findings(NamedTuple):
    """What a report is made of; `rows` and `summary` are those of `flare-geo evaluate`."""

    run: Path
    split: str
    checkpoint: Which
    options: dict[str, Any]
    surrogate: Surrogate
    dataset: PackedDataset
    rows: list[dict[str, Any]]
    summary: dict[str, Any]

    @property
    def generated(self) -> bool:
        """Whether these data were generated, not measured or published."""
        return bool(self.summary["source"] == "generated")

    @property
    def trained_on_generated(self) -> bool:
        """Whether the data of the training were generated."""
        source = self.surrogate.info.get("dataset", {}).get("source", {})
        return bool(source.get("generated"))

    @property
    def note(self) -> str | None:
        """The note under every picture."""
        return "generated data" if self.generated else None

    @property
    def parameters(self) -> int:
        """The number of parameters of the model."""
        return sum(p.numel() for p in self.surrogate.parameters())

    @property
    def points_per_second(self) -> float:
        """The speed of predictions, the median over the cases."""
        return median(row["points"] / row["seconds"] for row in self.rows)


def sections(found: Findings, cases: int) -> dict[str, Any]:
    """Title and content of every section that has any; `page.html.j2` writes it."""
    parts = {
        "Errors": _errors(found),
        "Cases": _cases(found, cases),
        "Forces": _forces(found),
        "Training": _training(found),
        "Inside the model": _inside(found),
        "Data": _data(found),
        "Model": _model(found),
        "Timings": _timings(found),
        "Versions": _versions(found),
        "Do it again": _commands(found),
    }
    return {title: part for title, part in parts.items() if part is not None}


def _errors(found: Findings) -> dict[str, Any]:
    """The table of errors, how they spread, and the worst cases."""
    s, units = found.summary, {f.unit for f in found.surrogate.outputs}
    unit = "" if len(units) > 1 or units == {"1"} else f" [{units.pop()}]"
    by_channel = {f"relative L2, {k.removeprefix('rel_l2 ')}": k for k in s if k[:7] == "rel_l2 "}
    lines = {
        "relative L2": ("rel_l2", percent),
        **{label: (name, percent) for label, name in by_channel.items()},
        "relative L1": ("rel_l1", percent),
        f"largest error{unit}": ("max_error", figures),
        "R2": ("r2", figures),
        "relative L2 of the training mean": ("rel_l2_training_mean", percent),
    }
    names = [str(row["case"]) for row in found.rows]
    errors = [100 * row["rel_l2"] for row in found.rows]
    sizes = [row["points"] for row in found.rows]
    return {
        "unit": unit,
        "rows": [
            [k, *(word(s[name][kind]) for kind in KINDS)] for k, (name, word) in lines.items()
        ],
        "histogram": draw_figure(
            lambda: plot_error_histogram(errors, label=ERROR, note=found.note),
            f"histogram of the relative L2 error of {len(errors)} cases",
        ),
        "against_size": len(set(sizes)) > 1
        and draw_figure(
            lambda: plot_error_against_size(
                sizes, errors, names=names, label=ERROR, note=found.note
            ),
            "relative L2 error of each case against the number of its points",
        ),
        "worst": [
            [row["case"], f"{row['points']:,}"]
            + [percent(row[k]) for k in ("rel_l2", "rel_l1")]
            + [figures(row[k]) for k in ("max_error", "r2")]
            for row in ranked(found.rows)[::-1][:WORST]
        ],
    }


def _cases(found: Findings, number: int) -> list[dict[str, Any]]:
    """Truth, prediction and error of some cases, from the best to the worst."""
    shown = []
    for rank, row in choose_cases(found.rows, number).items():
        case = found.surrogate.predict(found.dataset[row["index"]])

        def draw(channel: int, label: str, case: Any = case) -> np.ndarray:
            fields = (case.y[:, channel], case.pred[:, channel])
            return plot_comparison(case, *fields, label=label, note=found.note)

        pictures = [
            (
                field,
                draw_figure(
                    lambda i=i, label=field.label: draw(i, label),  # type: ignore[misc]
                    f"{rank}: {row['case']}, truth, prediction and error of {field.label}",
                ),
            )
            for i, field in enumerate(found.surrogate.outputs[:MOST_CHANNELS])
        ]
        shown.append({"rank": rank, "row": row, "figures": pictures})
    return shown


def _forces(found: Findings) -> dict[str, Any] | None:
    """Drag and lift, predicted against true; None where the fields do not determine them."""
    rows = [row for row in found.rows if "cd" in row]
    if not rows:
        return None
    case = found.dataset[rows[0]["index"]]
    friction = (coefficients(found.dataset.on_mesh, case, case.y) or (0, 0, False))[2]
    pairs = {
        name: tuple([row[key] for row in rows] for key in (f"{key}_true", key))
        for name, key in (("Cd", "cd"), ("Cl", "cl"))
    }
    keys = ("cd_true", "cd", "cl_true", "cl")
    return {
        "source": "pressure and friction" if friction else "the pressure alone, without friction",
        "figure": draw_figure(
            lambda: plot_parity(pairs, note=found.note),  # type: ignore[arg-type]
            f"predicted against true drag and lift coefficients of {len(rows)} cases",
        ),
        "rows": [[row["case"], *(f"{row[key]:.4f}" for key in keys)] for row in rows],
    }


def _training(found: Findings) -> Figure:
    return draw_figure(
        lambda: plot_learning_curves(found.run / "metrics.csv"),
        "learning curves: relative L2 error and learning rate over the epochs",
    )


def _inside(found: Findings) -> dict[str, Any] | None:
    """Spectra of the mixing operators on the median case; None where the model has none."""
    row = choose_cases(found.rows, 1)["median"]
    try:
        values = [v.cpu() for v in spectra(found.surrogate, found.dataset[row["index"]])]
    except ValueError:
        return None
    return {
        "case": row["case"],
        "latents": values[0].shape[-1],
        "enough": suggest_num_latents(values),
        "figure": draw_figure(
            lambda: plot_spectra(values),
            "eigenvalues of the mixing operator of every block and head",
        ),
    }


def _data(found: Findings) -> dict[str, Rows]:
    """Counts of the splits, channels with units, and where the data come from."""
    dataset, splits = found.dataset, []
    for split in dataset.splits:
        sizes = _packed_sizes(dataset, split)
        if sizes:
            span = f"{min(sizes):,} to {max(sizes):,}" if len(set(sizes)) > 1 else f"{sizes[0]:,}"
            splits.append([split, f"{len(sizes):,}", span, f"{sum(sizes):,}"])
        else:
            splits.append([split, "-", "not on this machine, or empty", "-"])
    meaning = {(k, c.name): c.meaning for k, cs in dataset.channels.items() for c in cs}
    s = found.surrogate
    return {
        "splits": splits,
        "channels": [
            [
                f.name,
                role,
                "-" if f.unit == "1" else f.unit,
                meaning.get((f.field, f.name), f.field),
            ]
            + [figures(float(value)) for value in (scaler.mean[i], scaler.std[i])]
            for role, fields, scaler in (
                ("input", s.inputs, s.input_scaler),
                ("target", s.outputs, s.output_scaler),
            )
            for i, f in enumerate(fields)
        ],
        "source": [[k, as_text(v)] for k, v in dataset.source.items() if k not in NOT_SHOWN],
    }


def _model(found: Findings) -> dict[str, Any]:
    model, transform = found.surrogate.model, found.surrogate.info.get("transform")
    arguments = getattr(model, "config", None) or {}
    return {
        "name": type(model).__name__,
        "arguments": [[name, as_text(value)] for name, value in arguments.items()],
        "transform": transform and json.dumps(transform, indent=2),
    }


def _timings(found: Findings) -> Rows:
    """Seconds of the training, as its table says, and of predictions, as measured now."""
    rows = []
    try:
        history = read_metrics(found.run / "metrics.csv")
        epochs, seconds = len(history["epoch"]), history["seconds"][-1]
        device = found.surrogate.info.get("provenance", {}).get("device", "unknown")
        rows.append([f"training, {count(epochs, 'epoch')}", duration(seconds), device])
        rows.append(["training, per epoch", duration(seconds / epochs), device])
    except (OSError, KeyError, IndexError, ZeroDivisionError):
        pass
    here = str(provenance(found.surrogate.input_scaler.mean.device)["device"])
    each = median(row["seconds"] for row in found.rows)
    rows.append(["prediction of a case, median", duration(each), here])
    rows.append(["points predicted per second, median", rounded(found.points_per_second), here])
    return rows


def _versions(found: Findings) -> Rows:
    """What the checkpoint was made with, and what this page."""
    trained = found.surrogate.info.get("provenance", {})
    here = provenance(found.surrogate.input_scaler.mean.device)
    return [[k, as_text(trained.get(k)), as_text(here.get(k))] for k in here | trained]


def _commands(found: Findings) -> dict[str, str]:
    """How to repeat everything, and the whole configuration."""
    path, name, run = found.run / "config.yaml", found.dataset.name, str(found.run)
    lines = []
    if found.generated and name in DATASETS:
        takes = inspect.signature(DATASETS[name].generate).parameters
        known = {k: v for k, v in found.dataset.source.items() if k in takes}
        lines += ["# the data, with the options that are on record"]
        lines += [_command("data", "generate", name, "--root", found.dataset.root, *_flags(known))]
    which = ["--split", found.split, "--checkpoint", found.checkpoint]
    which += _flags({f"data.{k}": v for k, v in found.options.items()})
    lines += [
        "# the run, into a new folder",
        _command("train", "--config", str(path), "--run", f"{run}_again"),
        "# its errors, and this page",
        _command("evaluate", run, *which),
        _command("report", run, *which),
    ]
    return {"lines": "\n".join(lines), "config": path.read_text(encoding="utf-8")}


def _command(*words: str) -> str:
    return shlex.join(["flare-geo", *words])


def _flags(options: dict[str, Any]) -> list[str]:
    pairs = (
        (f"--{k}", v if isinstance(v, str) else json.dumps(v))
        for k, v in options.items()
        if not isinstance(v, dict)
    )
    return [word for pair in pairs for word in pair]


def _packed_sizes(dataset: PackedDataset, split: str) -> list[int]:
    """The number of points of every case of a split; none if it was never packed."""
    if split == dataset.split:
        return dataset.store.sizes()
    other = copy.copy(dataset)
    other.split = split
    try:
        return PackedStore(other.path).sizes()
    except (OSError, ValueError, KeyError):
        return []
