"""One mixer against points, latents and the other mixers: time and peak memory.

    python scripts/bench/mixer.py --out mixer.json               # layers: projections and mixer
    python scripts/bench/mixer.py --bare --out bare.json         # the attention on given q, k, v

The layers are those of the paper's figure of time and memory: C = 128, H = 8, K/V chains of depth
3; against FLARE by two SDPA calls, softmax attention, Transolver's physics attention (M slices)
and linear attention. `--bare` leaves the projections out and compares `flare_attention` with two
SDPA calls at D = 8 and 16. Before anything is timed, outputs and gradients are compared with
`backend="reference"` in float64. All ways of one size run in turns in one process.
"""

import argparse
from collections.abc import Sequence
from typing import Any

import timing
import torch
from mixer_problem import BASELINE, Case, Problem
from timing import Record, Row, Way

LATENTS = [128, 64, 512, 2048]  # the one of the targets first
SIZES = {
    "cpu": [1_000, 10_000, 100_000],
    "cuda": [1_000, 10_000, 100_000, 300_000, 1_000_000, 4_000_000],
}
CHECKED = {"cpu": 2_000, "cuda": 20_000}  # points at which outputs and gradients are checked
SCORES = 2**27  # H M N of a check at most: its float64 scores are 1 GB
OTHERS = ("softmax", "physics", "linear")  # not FLARE: nothing to compare them with


def check(case: Case, points: int, ways: Sequence[str]) -> list[Row]:
    """Errors of output and gradients against float64; a row a way that is FLARE."""
    points = max(1, min(points, SCORES // (case.heads * case.latents)))
    try:
        problem = Problem(case, points, [w for w in ways if w not in OTHERS])
        true = problem.exact()
    except Exception as error:
        found = timing.failed(error)
        timing.free(case.device)
        if found["failed"] == timing.OUT_OF_MEMORY and points > 100:
            return check(case, points // 4, ways)
        return [{"check": w, **case.words, "N": points, **found} for w in ways if w not in OTHERS]
    rows = []
    usual = 0.0  # errors of two SDPA calls, which come first
    for name in problem.ways:
        row: Row = {"check": name, **case.words, "N": points}
        rows.append(row)
        try:
            found = problem.gradients(name)
        except Exception as error:
            row |= timing.failed(error)
            continue
        each = [timing.relative_error([a], [b]) for a, b in zip(found, true, strict=True)]
        row["errors"] = {
            "output": each[0],
            "gradient": timing.relative_error(found[1:], true[1:]),
            "worst gradient": max(each[1:]),
        }
        usual = max(row["errors"].values()) if name == BASELINE else usual
        row |= timing.verdict(row["errors"], case.dtype, usual)
    return rows


def difference(problem: Problem, name: str) -> Row:
    """How far a way is from two SDPA calls in the same precision, at the size that is timed."""
    try:
        ours, theirs = problem.gradients(name), problem.gradients(BASELINE)
        return {
            "output vs two sdpa": timing.relative_error(ours[:1], theirs[:1]),
            "gradient vs two sdpa": timing.relative_error(ours[1:], theirs[1:]),
        }
    except Exception as error:
        return {"failed": timing.failed(error)["failed"]}


class Sweep:
    """Timings over N; leaves out what would take longer than allowed, by the size before it."""

    def __init__(self, record: Record, clock: timing.Clock, options: argparse.Namespace) -> None:
        self.record, self.clock, self.options = record, clock, options
        self.seen: dict[tuple[Any, ...], tuple[int, float | None]] = {}

    def run(self, case: Case, points: int, ways: Sequence[str]) -> None:
        """Time forward, and forward with backward, of all ways at one size."""
        for direction in ("forward", "forward+backward"):
            keys = {name: (*case.words.values(), direction, name) for name in ways}
            base = {**case.words, "pass": direction, "N": points}
            wanted = []
            for name in ways:
                reason = self._is_too_long(keys[name], name, points)
                if reason:
                    self.record.add({"way": name, **base, "skipped": reason})
                else:
                    wanted.append(name)
            if self.clock.is_over or not wanted:
                continue
            try:
                problem = Problem(case, points, wanted)
            except Exception as error:
                timing.free(case.device)
                self.record.add({**base, **timing.failed(error)})
                continue
            call = problem.forward if direction == "forward" else problem.gradients
            timed: dict[str, Way] = {n: lambda a=n, b=call: b(a) for n in wanted}
            rows = timing.alternate(timed, case.device, seconds=self.options.seconds)
            usual = rows.get(BASELINE, {}).get("seconds")
            for name, row in rows.items():
                self.seen[keys[name]] = (points, row.get("seconds"))
                if usual and "seconds" in row and name != BASELINE:
                    row["speedup"] = usual / row["seconds"]
                if name.startswith("flare") and direction != "forward" and usual:
                    found = difference(problem, name)
                    row |= found if "failed" in found else {"errors": found}
                self.record.add({"way": name, **base, **row})
            del problem, timed, call
            timing.free(case.device)

    def _is_too_long(self, key: tuple[Any, ...], name: str, points: int) -> str | None:
        if self.clock.is_over:
            return "the time is up"
        if key not in self.seen:
            return None
        before, seconds = self.seen[key]
        if seconds is None:
            return f"failed at N={before:,}"
        expected = seconds * (points / before) ** (2 if name == "softmax" else 1)
        return None if expected <= self.options.longest else f"about {expected:.3g} s a call"


def slopes(record: Record) -> list[Row]:
    """Exponents of time over N from 100,000 points on, one a series."""
    series: dict[tuple[Any, ...], list[tuple[int, float]]] = {}
    names = ("way", "mixer", "M", "H", "D", "dtype", "pass")
    for row in record.rows:
        if "seconds" in row:
            key = tuple(row.get(n) for n in names)
            series.setdefault(key, []).append((row["N"], row["seconds"]))
    found = []
    for key, pairs in series.items():
        value = timing.slope(*zip(*pairs))
        if value is not None:
            found.append({**dict(zip(names, key)), "slope": value, "up to N": max(pairs)[0]})
    return found


def headlines(record: Record) -> None:
    """The largest size that was timed of every FLARE series with backward."""
    last: dict[tuple[Any, ...], Row] = {}
    for row in record.rows:
        if row.get("pass") == "forward+backward" and "speedup" in row and row["N"] <= 10**6:
            last[row["way"], row["M"], row["D"]] = row
    for row in last.values():
        if row["way"].startswith("flare"):
            record.headline(f"mixer  {timing.line_of(row)}")
    for row in record.content["slopes"]:
        if row["way"].startswith("flare") and row["pass"] != "forward":
            words = f"{row['way']} {row['mixer']} M={row['M']} D={row['D']}"
            record.headline(f"slope  {words}: {row['slope']:.3f} up to N={row['up to N']:,}")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    timing.add_options(parser, "mixer.json", limit=1800)
    parser.add_argument("--bare", action="store_true", help="attention only, q, k, v given")
    parser.add_argument("--points", type=int, nargs="+", help="numbers of points N, ascending")
    parser.add_argument("--latents", type=int, nargs="+", default=LATENTS)
    parser.add_argument("--widths", type=int, nargs="+", help="head widths D")
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--dtype", choices=["float32", "float16", "bfloat16"])
    parser.add_argument("--backends", nargs="+", default=["auto"], help="with --bare")
    parser.add_argument("--check-points", type=int, help="points of the check, at most")
    parser.add_argument("--longest", type=float, default=2.0, help="seconds of one call, at most")
    options = parser.parse_args(argv)
    device = timing.choose_device(options)
    options.points = options.points or SIZES[device.type]
    options.widths = options.widths or ([8, 16] if options.bare else [16])
    options.check_points = options.check_points or CHECKED[device.type]
    if options.dtype is None:  # of the paper's figure; without a GPU what a CPU computes in
        half = "bfloat16" if options.bare else "float16"
        options.dtype = half if device.type == "cuda" else "float32"
    dtype = getattr(torch, options.dtype)
    record, clock = Record(options.out, device, options), timing.Clock(options.limit)
    sweep = Sweep(record, clock, options)
    for number, latents in enumerate(options.latents):
        for width in options.widths:
            case = Case(options.bare, latents, width, options.heads, dtype, device)
            ways = [BASELINE]
            if options.bare:
                ways += [f"flare {backend}" for backend in options.backends]
            else:
                ways += ["flare auto", "physics"]
                ways += ["softmax", "linear"] if number == 0 else []  # they know no M
            if clock.is_over:
                record.headline(f"mixer  not run for want of time: M={latents} D={width}")
                continue
            checked = check(case, options.check_points, ways)
            record.add(*checked)
            timing.free(device)
            wrong = {row["check"] for row in checked if "failed" in row}
            ways = [name for name in ways if name not in wrong]  # no speed without truth
            for points in sorted(options.points):
                sweep.run(case, points, ways)
    record.content["slopes"] = slopes(record)
    headlines(record)
    return record.finished()


if __name__ == "__main__":
    raise SystemExit(main())
