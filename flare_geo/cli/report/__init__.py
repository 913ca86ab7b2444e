"""`flare-geo report`: one HTML page that says what a run is and how well it does."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from flare_geo.cli import format
from flare_geo.cli.report import content
from flare_geo.cli.results import case_errors, summarise
from flare_geo.cli.run_folder import Which, choose_device, open_checkpoint, open_data
from flare_geo.cli.verb import Verb
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

    The page needs no other file and no network. It shows the data, the model, learning curves,
    errors, the worst cases, pictures, forces where the fields determine them, timings, versions
    and commands.

    Args:
        run: Folder of the run.
        split: Split whose cases are shown.
        checkpoint: "best" or "last". If not given, "best" where the run has one.
        data: Options of the data set to change, as in `--data.root FOLDER`.
        device: "auto", "cpu" or "cuda".
        out: The page to write; `RUN/report.html` if not given.
        cases: Number of cases to draw, from the best to the worst.

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
    summary = summarise(rows, surrogate, dataset)
    found = content.Findings(run, split, checkpoint, data or {}, surrogate, dataset, rows, summary)
    page = make_page(found, cases)
    with write_aside(path) as aside:
        aside.write_text(page, encoding="utf-8")
    print(f"report: {path} ({len(page.encode()) / 1e6:.1f} MB)")
    return path


def make_page(found: content.Findings, cases: int) -> str:
    """The page as text, from `page.html.j2` with every value escaped."""
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {
        "percent": format.percent,
        "rounded": format.rounded,
        "count": format.count,
        "grouped": "{:,}".format,
    }
    page = templates.get_template("page.html.j2")
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    sections = content.sections(found, cases)
    return page.render(
        found=found, sections=sections, now=now, numeric_columns=format.numeric_columns
    ).lstrip()


VERB = Verb(report, positional=("run",))
