"""`flare-geo render`: truth, prediction and error of a run, drawn on the meshes."""

from pathlib import Path
from typing import Any

from flare_geo.cli.pictures import Pictures
from flare_geo.cli.results import case_errors, choose_cases
from flare_geo.cli.run_folder import (
    Which,
    choose_device,
    open_checkpoint,
    open_data,
    options_suffix,
    source_of,
)
from flare_geo.cli.verb import Verb
from flare_geo.pyg import Data
from flare_geo.viz import Comparison, plot_comparison_grid, write_comparison_html


def render(
    run: Path,
    split: str = "test",
    cases: list[str] | None = None,
    channel: int = 0,
    out: Path | None = None,
    html: Path | None = None,
    checkpoint: Which | None = None,
    data: dict[str, Any] | None = None,
    device: str = "auto",
) -> Path:
    """Draw truth, prediction and error on the mesh, off screen, to a PNG.

    Without `cases` it shows the best, the median and the worst case of the split.

    Args:
        run: Folder of the run.
        split: Split to draw cases of.
        cases: Names of the cases to draw, as in the table of `flare-geo evaluate`.
        channel: Output channel to draw, from 0.
        out: The PNG. If not given, `RUN/pictures/SPLIT.png`.
        html: Folder that gets a page for each of the cases, which turns in a browser.
        checkpoint: "best" or "last". If not given, "best" where the run has one.
        data: Options of the data set to change, as in `--data.root FOLDER`.
        device: "auto", "cpu" or "cuda".

    Returns:
        Path of the picture.

    Raises:
        ValueError: there is no such case or channel, or a picture failed.
    """
    surrogate, _ = open_checkpoint(run, checkpoint)
    surrogate.to(choose_device(device))
    dataset = open_data(run, split, data)
    if not 0 <= channel < len(surrogate.outputs):
        raise ValueError(f"channel must be 0 to {len(surrogate.outputs) - 1}, got {channel}")
    field = surrogate.outputs[channel]
    rows = case_errors(surrogate, dataset)
    if cases is None:
        chosen = choose_cases(rows)
    else:
        named = {row["case"]: row for row in rows}
        missing = [name for name in cases if name not in named]
        if missing:
            raise ValueError(
                f"{dataset.name} has no case '{missing[0]}' in split {split}; "
                f"its cases are {rows[0]['case']} to {rows[-1]['case']}"
            )
        chosen = {name: named[name] for name in cases}

    def comparison(label: str, row: dict[str, Any]) -> Comparison:
        case: Data = surrogate.predict(dataset[row["index"]])
        title = label if label == row["case"] else f"{label}: {row['case']}"
        return Comparison(case, case.y[:, channel], case.pred[:, channel], title)

    path = out or run / "pictures" / f"{split}{options_suffix(data)}.png"
    note = "generated data" if source_of(dataset) == "generated" else None
    drawn = {row["case"]: comparison(label, row) for label, row in chosen.items()}
    pictures = Pictures()
    with pictures.drawing("picture", path):
        plot_comparison_grid(
            list(drawn.values()),
            label=field.label,
            path=path,
            title=f"{dataset.name}, {split} split ({len(rows)} cases)",
            note=note,
        )
    if html is not None:
        for name, one in drawn.items():
            page = html / f"{Path(name).name}.html"
            fields = (one.data, one.truth, one.prediction)
            with pictures.drawing("page", page):
                write_comparison_html(*fields, page, label=field.label, title=name, note=note)
    pictures.finish()
    return path


VERB = Verb(render, positional=("run",))
