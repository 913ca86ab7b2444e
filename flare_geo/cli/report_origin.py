"""What a report says of where a run comes from: training, data, model, versions, commands."""

import copy
import inspect
import json
import shlex
from statistics import median
from typing import Any

from flare_geo.cli.evaluate import choose_cases
from flare_geo.cli.findings import Findings
from flare_geo.cli.page_html import Html, element, figure_or_reason, folded, joined, table
from flare_geo.cli.wording import as_text, count, duration, figures, rounded
from flare_geo.datasets import DATASETS, PackedDataset
from flare_geo.datasets.store import PackedStore
from flare_geo.provenance import provenance
from flare_geo.viz.charts.curves import plot_learning_curves, read_metrics

UNTOLD = ("generated", "sha256", "tools")  # of what is said about the source


def training(found: Findings) -> Html:
    """The learning curves."""
    path = found.run / "metrics.csv"
    return figure_or_reason(
        lambda: plot_learning_curves(path),
        "learning curves: relative L2 error and learning rate over the epochs",
        "Errors while training, and the learning rate. "
        "A validation error is there where the set has a validation split.",
    )


def inside(found: Findings) -> Html:
    """Spectra of the mixing operators for the median case, where the model has any."""
    try:
        from flare_geo.nn.explain import spectra, suggest_num_latents
        from flare_geo.viz.charts.spectra import plot_spectra
    except ImportError:
        return Html("")
    row = choose_cases(found.rows, 1)["median"]
    try:
        values = [v.cpu() for v in spectra(found.surrogate, found.dataset[row["index"]])]
    except ValueError:  # a model of another kind
        return Html("")
    have, enough = values[0].shape[-1], suggest_num_latents(values)
    verdict = f"{enough} would be enough" if enough < have else "all of them are in use"
    return figure_or_reason(
        lambda: plot_spectra(values),
        "eigenvalues of the mixing operator of every block and head",
        f"Eigenvalues of the operators that mix the points, of every block and head, for "
        f"{row['case']}. Of {have} latents a head, {verdict} where modes scaled by less than 1 % "
        "do not count.",
    )


def data(found: Findings) -> Html:
    """Counts of the splits, channels with units, and where the data come from."""
    dataset, source = found.dataset, found.dataset.source
    counts = []
    for split in dataset.splits:
        sizes = _packed_sizes(dataset, split)
        if sizes:
            span = f"{min(sizes):,} to {max(sizes):,}" if len(set(sizes)) > 1 else f"{sizes[0]:,}"
            counts.append([split, f"{len(sizes):,}", span, f"{sum(sizes):,}"])
        else:
            counts.append([split, "-", "not on this machine, or empty", "-"])
    meaning = {(k, c.name): c.meaning for k, cs in dataset.channels.items() for c in cs}
    channels = [
        [f.name, role, "-" if f.unit == "1" else f.unit, meaning.get((f.field, f.name), f.field)]
        + [figures(float(s)) for s in (scaler.mean[i], scaler.std[i])]
        for role, fields, scaler in (
            ("input", found.surrogate.inputs, found.surrogate.input_scaler),
            ("target", found.surrogate.outputs, found.surrogate.output_scaler),
        )
        for i, f in enumerate(fields)
    ]
    about = [[k, as_text(v)] for k, v in source.items() if k not in UNTOLD]
    lead = "generated, not measured or published" if found.generated else "files as they were given"
    drawn = dataset.num_points
    return joined(
        [
            table(["split", "cases", "points a case", "points in all"], counts),
            element("p", f"Each case is seen at {drawn:,} points drawn from it.") if drawn else "",
            table(
                ["channel", "role", "unit", "meaning", "mean", "deviation"],
                channels,
                "What the surrogate reads and predicts; mean and deviation are those it scales by.",
            ),
            table(["source", lead], about) if about else element("p", f"Source: {lead}."),
        ]
    )


def model(found: Findings) -> Html:
    """What was trained, with how many parameters."""
    model = found.surrogate.model
    name = type(model).__name__
    rows = [[k, as_text(v)] for k, v in getattr(model, "config", {}).items()]
    transform = found.surrogate.info.get("transform")
    return joined(
        [
            element("p", f"{name} with {found.parameters:,} parameters."),
            folded("its arguments", table(["argument", "value"], rows)) if rows else "",
            folded("transforms of the data", element("pre", json.dumps(transform, indent=2)))
            if transform
            else "",
        ]
    )


def timings(found: Findings) -> Html:
    """Seconds of the training, as it noted them, and of predictions, as measured here."""
    rows = []
    try:
        history = read_metrics(found.run / "metrics.csv")
        epochs, seconds = len(history["epoch"]), history["seconds"][-1]
        device = found.surrogate.info.get("provenance", {}).get("device", "unknown")
        rows.append([f"training, {count(epochs, 'epoch')}", duration(seconds), device])
        rows.append(["training, an epoch", duration(seconds / epochs), device])
    except (OSError, KeyError, IndexError, ZeroDivisionError):
        pass
    here = str(provenance(found.surrogate.input_scaler.mean.device)["device"])
    each = median(row["seconds"] for row in found.rows)
    rows.append(["prediction of a case, median", duration(each), here])
    rows.append(["points predicted a second, median", rounded(found.points_per_second), here])
    return table(["what", "measured", "device"], rows)


def versions(found: Findings) -> Html:
    """What the checkpoint was made with and what this page."""
    trained = found.surrogate.info.get("provenance", {})
    here = provenance(found.surrogate.input_scaler.mean.device)
    rows = [[k, as_text(trained.get(k)), as_text(here.get(k))] for k in here | trained]
    head = ["", f"checkpoint “{found.checkpoint}”", "this page"]
    return table(head, rows)


def commands(found: Findings) -> Html:
    """How to repeat it all, and the whole configuration."""
    path = found.run / "config.yaml"
    text = path.read_text(encoding="utf-8")
    name, run = found.dataset.name, str(found.run)
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
    return joined(
        [
            element("pre", "\n".join(lines)),
            folded("the whole configuration, config.yaml", element("pre", text)),
        ]
    )


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
    """Points of every case of a split, without packing it for the first time."""
    if split == dataset.split:
        return dataset.store.sizes()
    other = copy.copy(dataset)
    other.split = split
    try:
        return PackedStore(other.path).sizes()
    except (OSError, ValueError, KeyError):
        return []
