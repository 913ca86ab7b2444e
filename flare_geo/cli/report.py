"""`flare-geo report`: one HTML page that says what a run is and how well it does."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flare_geo.cli import report_origin as origin
from flare_geo.cli import report_results as results
from flare_geo.cli.evaluate import case_errors, choose_device, summarise
from flare_geo.cli.findings import Findings
from flare_geo.cli.page_html import Html, document, element, joined, tiles
from flare_geo.cli.run import Which, open_checkpoint, open_data
from flare_geo.cli.wording import count, percent, rounded
from flare_geo.files import write_aside


def report(
    run: Path,
    split: str = "test",
    checkpoint: Which | None = None,
    data: dict[str, Any] | None = None,
    device: str = "auto",
    out: Path | None = None,
    cases: int = 3,
) -> Path:
    """Write one HTML page with everything about a run, to be sent to a colleague.

    It needs nothing beside it and no network: data, model, learning curves, errors, the worst
    cases, pictures, forces where they follow from the fields, timings, versions, commands.

    Args:
        run: folder of the run.
        split: which split.
        checkpoint: "best" or "last"; the best one there is if not given.
        data: options of the data set to change, as in `--data.root FOLDER`.
        device: "auto", "cpu", "cuda".
        out: the page; `RUN/report.html` if not given.
        cases: how many cases are drawn, from the best to the worst.

    Returns:
        Path of the page.
    """
    path = out or run / "report.html"
    if path.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"out must end in .html, got '{path.name}'")
    if cases < 1:
        raise ValueError(f"cases must be at least 1, got {cases}")
    surrogate, checkpoint = open_checkpoint(run, checkpoint)
    surrogate.to(choose_device(device))
    dataset = open_data(run, split, data)
    rows = case_errors(surrogate, dataset)
    found = Findings(
        run,
        split,
        checkpoint,
        data or {},
        surrogate,
        dataset,
        rows,
        summarise(rows, surrogate, dataset),
    )
    page = make_page(found, cases)
    with write_aside(path) as aside:
        aside.write_text(page, encoding="utf-8")
    print(f"report: {path} ({len(page.encode()) / 1e6:.1f} MB)")
    return path


def make_page(found: Findings, cases: int) -> str:
    """The page as text."""
    sections = [
        ("Errors", results.errors(found)),
        ("Cases", results.pictures(found, cases)),
        ("Forces", results.forces(found)),
        ("Training", origin.training(found)),
        ("Inside the model", origin.inside(found)),
        ("Data", origin.data(found)),
        ("Model", origin.model(found)),
        ("Timings", origin.timings(found)),
        ("Versions", origin.versions(found)),
        ("Do it again", origin.commands(found)),
    ]
    names = ", ".join(f.name for f in found.surrogate.outputs)
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return document(
        f"{names} on {found.dataset.name}{', generated data' if found.generated else ''}",
        _header(found, names, now),
        [(name, content) for name, content in sections if content],
        element("p", f"Written by flare-geo report, {now}. This page needs no network."),
    )


def _header(found: Findings, names: str, now: str) -> Html:
    s, where = found.summary, found.dataset.source
    mean, baseline = s["rel_l2"]["mean"], s["rel_l2_training_mean"]["mean"]
    warning: Html | str = ""
    if found.generated:
        text = f" by {where['generator']}" if where.get("generator") else ""
        warning = element(
            "p",
            element("strong", "Generated data."),
            f" These cases were generated{text}; they are neither measurements nor a published "
            "data set, and errors on them are no results on one.",
            class_="mark",
        )
    elif found.surrogate.info.get("dataset", {}).get("source", {}).get("generated"):
        warning = element(
            "p",
            element("strong", "Trained on generated data,"),
            " which are not those of this page.",
            class_="mark",
        )
    known = " It was trained on these cases." if found.split == "train" else ""
    speed = found.points_per_second
    return joined(
        [
            element(
                "p", f"flare_geo report · run {found.run.resolve().name} · {now}", class_="eyebrow"
            ),
            element("h1", f"{names} on {found.dataset.name}"),
            warning,
            element(
                "p",
                f"On {count(len(found.rows), 'case')} of the {found.split} split the surrogate "
                f"(checkpoint “{found.checkpoint}”) is off by {percent(mean)} on average, in the "
                f"relative L2 norm.{known} Predicting the mean of the training targets everywhere "
                f"would be off by {percent(baseline)}.",
            ),
            tiles(
                [
                    ("mean relative L2 error", percent(mean)),
                    ("worst case", percent(s["rel_l2"]["worst"])),
                    ("of the error of the training mean", _ratio(mean, baseline)),
                    ("parameters", f"{found.parameters:,}"),
                    ("points predicted a second", rounded(speed)),
                ]
            ),
        ]
    )


def _ratio(value: float, beside: float) -> str:
    return percent(value / beside) if beside > 0 else "-"
