"""The table of the backends, from the rows that `backends.py` measured, into a README."""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from timing import Row

from flare_geo.files import write_aside

PASSES = ("forward", "forward+backward")


def fastest_first(rows: Sequence[Row]) -> dict[tuple[Any, ...], dict[str, float]]:
    """Case and pass to the seconds of each backend, the fastest first."""
    found: dict[tuple[Any, ...], dict[str, float]] = {}
    for row in rows:
        if "way" in row:
            key = tuple(row[name] for name in ("clouds", "M", "D", "auto", "pass"))
            found.setdefault(key, {}).update({row["way"]: row.get("seconds", math.inf)})
    return {key: dict(sorted(each.items(), key=lambda x: x[1])) for key, each in found.items()}


def table(content: Row, backends: Sequence[str]) -> str:
    """The timed rows of a result as Markdown, a column a backend that was timed."""
    found = fastest_first(content["rows"])
    names = [name for name in backends if any(name in each for each in found.values())]
    lines = [f"| clouds | M | D | {' | '.join(f'`{n}`' for n in names)} | `auto` |"]
    lines.append("|---" * (len(names) + 4) + "|")
    for clouds, latents, width, auto in dict.fromkeys(key[:-1] for key in found):
        cells: dict[str, list[str]] = {name: [] for name in names}
        for kind in PASSES:
            each = found[clouds, latents, width, auto, kind]
            for name in names:
                seconds = each.get(name, math.inf)
                words = f"{1e3 * seconds:,.{1 if seconds > 0.01 else 3}f}"
                words = f"**{words}**" if name == next(iter(each)) else words
                cells[name].append(words if seconds < math.inf else "-")
        times = " | ".join(" / ".join(cells[name]) for name in names)
        lines.append(f"| {clouds} | {latents} | {width} | {times} | `{auto[6:]}` |")
    where = f"{content['device']}, {content['threads']} threads, torch {content['torch']}"
    how = f"{content['config']['dtype']}, H = {content['config']['heads']}"
    head = "Milliseconds of forward / forward and backward, the fastest bold"
    return f"{head}. {where}, revision {content['git_revision']}; {how}.\n\n" + "\n".join(lines)


def write_table(readme: Path, kind: str, words: str) -> None:
    """Put words between the markers of a kind of device.

    Raises:
        ValueError: if the file has no such markers.
    """
    pattern = re.compile(rf"(<!-- backends: {kind} -->\n).*?(<!-- end -->)", re.DOTALL)
    text, times = pattern.subn(lambda m: f"{m[1]}{words}\n{m[2]}", readme.read_text(), count=1)
    if not times:
        raise ValueError(f"{readme} needs a line '<!-- backends: {kind} -->', then '<!-- end -->'")
    with write_aside(readme) as aside:
        aside.write_text(text)
