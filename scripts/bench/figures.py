"""Pictures of what the benchmarks measured, from their JSON alone.

    python scripts/bench/figures.py FOLDER

Looks for bare.json, mixer.json, model.json, model_compiled.json, ragged.json and stream.json in the
folder, and writes a .png beside each: time and peak memory of a mixer over points on log axes (the
paper's figure), how many times faster than the plain way each model is, and time and resident
memory of predictions from file to file. Device, versions and revision
stand at the foot of each picture.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flare_geo.viz.charts.axes import Chart, log_axes
from flare_geo.viz.charts.points import fitted_slope
from flare_geo.viz.render import theme

Row = dict[str, Any]
MIXERS = {"two sdpa": 0, "flare auto": 1, "physics": 2, "softmax": 3, "linear": 4}
LINES = ("-", "--", ":", "-.")  # one a number of latents
PLAIN = ("plain", "padded")  # what the models are compared with
BAR = 0.24  # inches


def foot(result: Row) -> str:
    """Where the numbers come from."""
    words = [result["device"], f"torch {result['torch']}"]
    words += [f"triton {result['triton']}"] if result.get("triton") else []
    more = [f"revision {result['git_revision']}", result["data"]]
    return ", ".join(words) + "\n" + ", ".join(more)


def series_of(rows: Sequence[Row], value: str) -> dict[tuple[str, int], list[tuple[int, float]]]:
    """Way and latents to (N, value), of forward with backward, what was measured of it."""
    found: dict[tuple[str, int], list[tuple[int, float]]] = {}
    for row in rows:
        if row.get("pass") == "forward+backward" and row.get(value) and "seconds" in row:
            alone = row["way"] in ("softmax", "linear")  # they know no latents
            key = (row["way"], 0 if alone else row["M"])
            found.setdefault(key, []).append((row["N"], row[value]))
    return {key: sorted(pairs) for key, pairs in sorted(found.items())}


def mixer_figure(result: Row, width: int, path: Path) -> None:
    """Time, and peak memory where it was measured, over points; a colour a way, a dash an M."""
    rows = [row for row in result["rows"] if row.get("D") == width]
    panels = [("seconds", 1e3, "time, forward and backward [ms]")]
    if any(row.get("peak_bytes") for row in rows):
        panels.append(("peak_bytes", 1e-9, "peak memory above the inputs [GB]"))
    first = next(row for row in rows if "seconds" in row)
    kind = "attention alone" if first["mixer"] == "bare" else "projections and mixer"
    title = f"One layer: {kind}, H = {first['H']}, D = {width}, {first['dtype']}"
    inches, count = (2.2 + 3.9 * len(panels), 4.0), len(panels)
    chart = Chart(inches, count, count, path=path, title=title, note=foot(result))
    latents = sorted({row["M"] for row in rows if "M" in row})
    extra = sorted({row["way"] for row in rows if "seconds" in row} - MIXERS.keys())
    colors = MIXERS | {way: 5 + i for i, way in enumerate(extra)}
    for axes, (value, unit, label) in zip(chart.axes, panels, strict=True):
        drawn = []
        for (way, m), pairs in series_of(rows, value).items():
            x, y = np.array(pairs, dtype=float).T
            words = f"{way}, M = {m}" if m else way
            large = x >= 1e5
            slope = fitted_slope(x[large], y[large]) if value == "seconds" else np.nan
            words += f", slope {slope:.2f}" if np.isfinite(slope) else ""
            style = LINES[latents.index(m) % len(LINES)] if m else "-"
            color = theme.SERIES[colors[way] % len(theme.SERIES)]
            axes.plot(x, y * unit, style, marker="o", markersize=3, color=color, linewidth=1.3,
                      label=words)  # fmt: skip
            drawn.append((x, y * unit))
        log_axes(axes, *(np.concatenate(both) for both in zip(*drawn, strict=True)))
        chart.label(axes, "points", label)
    font = {"family": theme.FONT, "size": theme.SMALL_SIZE}
    chart.axes[-1].legend(
        *chart.axes[0].get_legend_handles_labels(),  # with the slopes
        loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, labelcolor=theme.INK, prop=font,
        handlelength=3,
    )  # fmt: skip
    chart.finished()


def model_figure(result: Row, path: Path) -> None:
    """A bar a way, configuration and pass: how many times as fast as the plain way."""
    rows = [r for r in result["rows"] if "speedup" in r and r["way"] not in PLAIN]
    if not rows:
        print(f"{path.stem}: nothing to draw, no way was compared with the plain one")
        return
    rows = rows[::-1]  # the first on top
    names = [f"{r.get('config') or r['sizes']}, {r['pass']}: {r['way']}" for r in rows]
    title = "Packed against padded" if "sizes" in rows[0] else "Whole models"
    inches = (8.0, 1.1 + BAR * len(rows))
    chart = Chart(inches, path=path, title=title, note=foot(result))
    axes = chart.axes[0]
    kinds = {"inference": theme.SERIES[4], "training step": theme.SERIES[0]}
    values = [row["speedup"] for row in rows]
    axes.barh(range(len(rows)), values, color=[kinds[r["pass"]] for r in rows], height=0.7)
    axes.set_yticks(range(len(rows)), names)
    axes.axvline(1, color=theme.INK, linewidth=0.9)
    axes.grid(visible=False)
    axes.set_xlim(0, 1.7 * max(values))
    for at, row in enumerate(rows):
        words = f" {row['speedup']:.2f} x, {1e3 * row['seconds']:,.4g} ms"
        memory = row.get("memory_ratio")
        words += f", memory x {memory:.2f}" if memory else ""
        axes.text(row["speedup"], at, words, va="center", size=theme.SMALL_SIZE, color=theme.INK,
                  family=theme.FONT)  # fmt: skip
    chart.label(axes, "times as fast as the plain way, same weights, same process")
    chart.finished()


def stream_figure(result: Row, path: Path) -> None:
    """Time and resident memory of predictions from file to file, over points."""
    rows = [row for row in result["rows"] if "seconds" in row]
    millions = np.array([row["points"] / 1e6 for row in rows])
    seconds = np.array([row["seconds"] for row in rows])
    memory = np.array([row["peak_resident_bytes"] / 2**30 for row in rows])
    config = result["config"]
    what = f"{config['layers']} blocks, C = {config['channels']}, M = {config['latents']}"
    title = f"From file to file: {what}, {config['chunk_size']:,} points at a time"
    chart = Chart((9.0, 3.8), 2, 2, path=path, title=title, note=foot(result))
    left, right = chart.axes
    left.plot(millions, seconds, "o-", color=theme.SERIES[0])
    log_axes(left, millions, seconds)
    chart.label(left, "million points", "seconds")
    chart.head(left, f"time grows as N^{fitted_slope(millions, seconds):.2f}")
    right.plot(millions, memory, "o-", color=theme.SERIES[0])
    right.set_ylim(0, 1.3 * memory.max())
    chart.label(right, "million points", "GiB")
    chart.head(right, "largest resident memory of the process")
    chart.finished()


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="where the JSON is")
    options = parser.parse_args(argv)
    written = 0
    for name in ("bare", "mixer", "model", "model_compiled", "ragged", "stream"):
        source = options.folder / f"{name}.json"
        if not source.is_file():
            continue
        result = json.loads(source.read_text())
        if name not in ("bare", "mixer"):
            draw = stream_figure if name == "stream" else model_figure
            draw(result, source.with_suffix(".png"))
            written += 1
            continue
        for width in sorted({row["D"] for row in result["rows"] if "seconds" in row}):
            mixer_figure(result, width, options.folder / f"{name}_d{width}.png")
            written += 1
    if not written:
        print(f"no JSON of a benchmark in {options.folder}: run mixer.py, model.py or ragged.py")
    return int(not written)


if __name__ == "__main__":
    raise SystemExit(main())
