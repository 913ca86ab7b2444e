"""What a report says of the errors of a run: tables, cases, forces."""

import numpy as np

from flare_geo.cli.evaluate import choose_cases, coefficients, ranked
from flare_geo.cli.findings import Findings
from flare_geo.cli.page_html import Html, element, figure_or_reason, folded, joined, table
from flare_geo.cli.wording import figures, percent
from flare_geo.pyg import Data
from flare_geo.viz import (
    plot_comparison,
    plot_error_against_size,
    plot_error_histogram,
    plot_parity,
)

WORST = 10  # cases in the list
MOST_CHANNELS = 6  # that are drawn of a case
ERROR = "relative L2 error [%]"


def errors(found: Findings) -> Html:
    """The table of errors, how they spread, and the worst cases."""
    s, unit = found.summary, _unit(found)
    one = len(found.surrogate.outputs) == 1
    kinds = ("mean", "median", "worst")
    lines = [["relative L2", *(percent(s["rel_l2"][k]) for k in kinds)]]
    lines += [
        [f"relative L2, {name.removeprefix('rel_l2 ')}", *(percent(s[name][k]) for k in kinds)]
        for name in s
        if name.startswith("rel_l2 ")
    ]
    lines += [
        ["relative L1", *(percent(s["rel_l1"][k]) for k in kinds)],
        [f"largest error{unit}", *(figures(s["max_error"][k]) for k in kinds)],
        ["R2", *(figures(s["r2"][k]) for k in kinds)],
        [
            "relative L2 of the training mean",
            *(percent(s["rel_l2_training_mean"][k]) for k in kinds),
        ],
    ]
    about = "Of each case over all its points; then over the cases."
    about += "" if one else " All channels together, unless one is named."
    names = [str(row["case"]) for row in found.rows]
    errors = [100 * row["rel_l2"] for row in found.rows]
    sizes = [row["points"] for row in found.rows]
    worst = ranked(found.rows)[::-1][:WORST]
    parts = [
        table(["error", "mean", "median", "worst"], lines, about),
        figure_or_reason(
            lambda: plot_error_histogram(errors, label=ERROR, note=found.note),
            f"histogram of the relative L2 error of {len(errors)} cases",
            "How many cases have which error; a tick for each case.",
        ),
    ]
    if len(set(sizes)) > 1:
        parts.append(
            figure_or_reason(
                lambda: plot_error_against_size(
                    sizes, errors, names=names, label=ERROR, note=found.note
                ),
                "relative L2 error of each case against the number of its points",
                "Error against the size of the mesh; the worst case is named.",
            )
        )
    else:
        parts.append(element("p", f"All cases have {sizes[0]:,} points.", class_="soft"))
    parts += [
        element("h3", f"The {WORST} worst cases" if len(names) > WORST else "The worst first"),
        table(
            ["case", "points", "relative L2", "relative L1", f"largest error{unit}", "R2"],
            [
                [
                    row["case"],
                    f"{row['points']:,}",
                    percent(row["rel_l2"]),
                    percent(row["rel_l1"]),
                    figures(row["max_error"]),
                    figures(row["r2"]),
                ]
                for row in worst
            ],
        ),
    ]
    return joined(parts)


def pictures(found: Findings, count: int) -> Html:
    """Truth, prediction and error of some cases, from the best to the worst."""
    parts: list[Html] = []
    fields = found.surrogate.outputs
    for word, row in choose_cases(found.rows, count).items():
        case: Data = found.surrogate.predict(found.dataset[row["index"]])
        error = percent(row["rel_l2"])

        def draw(channel: int, case: Data = case) -> np.ndarray:
            truth, prediction = case.y[:, channel], case.pred[:, channel]
            return plot_comparison(
                case, truth, prediction, label=fields[channel].label, note=found.note
            )

        drawn = [
            figure_or_reason(
                lambda i=i: draw(i),  # type: ignore[misc]
                f"{word}: {row['case']}, truth, prediction and error of {field.label}",
                f"{field.label}: truth, prediction, and prediction − truth.",
            )
            for i, field in enumerate(fields[:MOST_CHANNELS])
        ]
        parts += [
            element("h3", f"{word[0].upper()}{word[1:]}: {row['case']}, {error}"),
            drawn[0],
        ]
        if len(drawn) > 1:
            parts.append(folded("the other channels", *drawn[1:]))
    if len(fields) > MOST_CHANNELS:
        text = f"The first {MOST_CHANNELS} of {len(fields)} channels are drawn; flare-geo render "
        parts.append(element("p", f"{text}--channel draws any.", class_="soft"))
    return joined(parts)


def forces(found: Findings) -> Html:
    """Drag and lift, predicted against true; nothing where they do not follow from the fields."""
    rows = [row for row in found.rows if "cd" in row]
    if not rows:
        return Html("")
    case = found.dataset[rows[0]["index"]]
    whole = (coefficients(found.dataset.on_mesh, case, case.y) or (0, 0, False))[2]
    what = "pressure and friction" if whole else "the pressure alone, without friction"
    pairs = {
        name: tuple([row[key] for row in rows] for key in (f"{key}_true", key))
        for name, key in (("Cd", "cd"), ("Cl", "cl"))
    }
    return joined(
        [
            figure_or_reason(
                lambda: plot_parity(pairs, note=found.note),  # type: ignore[arg-type]
                f"predicted against true drag and lift coefficients of {len(rows)} cases",
                f"Drag and lift coefficient from {what}: integrals of the predicted and of the "
                "true fields over the surface. Cases on the line are right.",
            ),
            folded(
                "the numbers",
                table(
                    ["case", "Cd true", "Cd predicted", "Cl true", "Cl predicted"],
                    [
                        [r["case"], *(f"{r[k]:.4f}" for k in ("cd_true", "cd", "cl_true", "cl"))]
                        for r in rows
                    ],
                ),
            ),
        ]
    )


def _unit(found: Findings) -> str:
    units = {f.unit for f in found.surrogate.outputs}
    unit = units.pop() if len(units) == 1 else "1"
    return "" if unit == "1" else f" [{unit}]"
