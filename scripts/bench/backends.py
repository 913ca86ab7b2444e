"""Which backend of `flare_attention` is the fastest where: the tables of flare_geo/ops/README.md.

    python scripts/bench/backends.py --out backends.json           # time and print
    python scripts/bench/backends.py --out backends.json --write   # and put the table there

Every backend that runs on the device, forward and forward with backward, on single clouds and on
equal and ragged batches, whose sizes the host knows, as in a model. Outputs and gradients are first
compared with `backend="reference"` in float64; what is wrong is not timed.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import timing
import torch
from backends_table import fastest_first, table, write_table
from ragged import sizes_of
from timing import Record, Row
from torch import Tensor

from flare_geo.ops import flare_attention, make_layout
from flare_geo.ops.dispatch import TABLE, select

README = Path(__file__).parents[2] / "flare_geo" / "ops" / "README.md"
BASELINE = "sdpa"  # runs everywhere; its errors are the usual ones
BACKENDS = sorted(TABLE["flare"], key=lambda name: (name != BASELINE, name))
PAIRS = [(64, 8), (128, 16), (512, 8)]  # M, D
SINGLE = [(1_000,), (10_000,), (100_000,)]
SKEWED, PARTS = tuple(sizes_of("skewed", 0)), tuple(sizes_of("lpbf", 0))
CLOUDS = {
    "cpu": [*SINGLE, (972,) * 8, (7_225,) * 2, SKEWED],
    "cuda": [*SINGLE, (1_000_000,), (972,) * 64, (40_000,) * 8, SKEWED, PARTS],
}
CHECKED = {"cpu": 2_000, "cuda": 20_000}  # points of a check, about
SCORES = 2**28  # of one cloud for the reference at most, which keeps several copies: 1 GB each


class Case(NamedTuple):
    """What is computed."""

    sizes: tuple[int, ...]
    latents: int
    width: int
    heads: int
    dtype: torch.dtype
    device: torch.device

    @property
    def words(self) -> Row:
        """What a row says of it."""
        low, high, number = min(self.sizes), max(self.sizes), len(self.sizes)
        clouds = f"{number} x {high:,}" if low == high else f"{number} of {low:,} to {high:,}"
        dtype = str(self.dtype).removeprefix("torch.")
        sizes = {"N": sum(self.sizes), "M": self.latents, "D": self.width, "H": self.heads}
        return {"clouds": clouds, **sizes, "dtype": dtype}

    def shrunk(self, points: int) -> "Case":
        """The same with clouds of the same ratios, of about so many points at most."""
        part = min(1.0, points / max(1, sum(self.sizes)))
        return self._replace(sizes=tuple(max(min(n, 1), round(n * part)) for n in self.sizes))


class Problem:
    """Random inputs of a case."""

    def __init__(self, case: Case) -> None:
        torch.manual_seed(0)
        points = (sum(case.sizes), case.heads, case.width)
        shapes = ((case.heads, case.latents, case.width), points, points, points)
        draws = [torch.randn(s, device=case.device, dtype=case.dtype) for s in shapes]
        self.inputs, self.weight = [x.requires_grad_() for x in draws[:3]], draws[3]
        ptr = torch.tensor([0, *case.sizes]).cumsum(0)
        self.layout, self.scale = make_layout(ptr, points[0], case.device), case.width**-0.5

    def output(self, backend: str, inputs: Sequence[Tensor]) -> Tensor:
        """`y [N, H, D]`."""
        return flare_attention(*inputs, self.layout, scale=self.scale, backend=backend)

    def forward(self, backend: str) -> Tensor:
        """The output, nothing kept."""
        with torch.no_grad():
            return self.output(backend, self.inputs)

    def gradients(self, backend: str, dtype: torch.dtype | None = None) -> tuple[Tensor, ...]:
        """The output and the gradients of q, k and v."""
        inputs = self.inputs
        if dtype is not None:
            inputs = [x.detach().to(dtype).requires_grad_() for x in inputs]
        y = self.output(backend, inputs)
        return y, *torch.autograd.grad(y, inputs, self.weight.to(y.dtype))


def check(case: Case) -> list[Row]:
    """Errors of every backend against float64; a reason where it cannot run, or is wrong."""
    problem = Problem(case)
    true, usual = problem.gradients("reference", torch.float64), 0.0
    rows = []
    for name in BACKENDS:
        row: Row = {"check": name, **case.words}
        rows.append(row)
        try:
            select("flare", name, problem.inputs[0])
        except Exception as error:
            row["skipped"] = str(error)
            continue
        try:
            found = problem.gradients(name)
        except Exception as error:
            cannot = "use backend=" in str(error)  # what it needs to be built is not there
            row |= {"skipped": str(error)} if cannot else timing.failed(error)
            continue
        row["errors"] = {
            "output": timing.relative_error(found[:1], true[:1]),
            "gradient": timing.relative_error(found[1:], true[1:]),
        }
        usual = max(row["errors"].values()) if name == BASELINE else usual
        row |= timing.verdict(row["errors"], case.dtype, usual)
    return rows


def measure(case: Case, backends: Sequence[str], seconds: float) -> list[Row]:
    """Times of the backends in turns, and what `auto` takes."""
    rows = []
    for kind in ("forward", "forward+backward"):
        problem = Problem(case)
        auto = select("flare", "auto", problem.inputs[0])
        words = {**case.words, "pass": kind, "auto": f"auto: {auto}"}
        call = problem.forward if kind == "forward" else problem.gradients
        ways: dict[str, timing.Way] = {name: lambda a=name, b=call: b(a) for name in backends}
        timed = timing.alternate(ways, case.device, seconds=seconds)
        rows += [{"way": name, **words, **row} for name, row in timed.items()]
        del problem, call, ways
        timing.free(case.device)
    return rows


def numbers(words: str) -> tuple[int, ...]:
    """`"3,40"` as (3, 40)."""
    return tuple(int(word) for word in words.split(","))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    timing.add_options(parser, "backends.json", limit=1200)
    parser.add_argument("--clouds", type=numbers, nargs="+", help="sizes: 1000 500,500")
    parser.add_argument("--pairs", type=numbers, nargs="+", default=PAIRS, help="M,D: 64,8 128,16")
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--dtype", choices=["float32", "float16", "bfloat16"])
    parser.add_argument("--write", action="store_true", help="put the table into --readme")
    parser.add_argument("--readme", type=Path, default=README)
    options = parser.parse_args(argv)
    device = timing.choose_device(options)
    options.clouds = options.clouds or CLOUDS[device.type]
    options.dtype = options.dtype or ("bfloat16" if device.type == "cuda" else "float32")
    dtype = getattr(torch, options.dtype)
    record, clock = Record(options.out, device, options), timing.Clock(options.limit)
    for sizes in options.clouds:
        for latents, width in options.pairs:
            case = Case(sizes, latents, width, options.heads, dtype, device)
            if clock.is_over:
                record.headline(f"backends  not run for want of time: {case.words}")
                continue
            checked = check(case.shrunk(CHECKED[device.type]))
            record.add(*checked)
            timing.free(device)
            right = [row["check"] for row in checked if "errors" in row and "failed" not in row]
            if case.heads * latents * max(sizes) > SCORES:
                right = [name for name in right if name != "reference"]
            record.add(*measure(case, right, options.seconds))
    for (clouds, latents, width, _, kind), each in fastest_first(record.rows).items():
        times = ", ".join(f"{name} {1e3 * seconds:,.3f} ms" for name, seconds in each.items())
        record.headline(f"backends  {clouds}  M={latents} D={width}  {kind}: {times}")
    words = table(record.content, BACKENDS)
    print(words)
    if options.write:
        write_table(options.readme, device.type, words)
    return record.finished()


if __name__ == "__main__":
    raise SystemExit(main())
