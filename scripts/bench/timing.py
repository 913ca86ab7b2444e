"""Time and memory of several ways of doing the same, in turns, in one process; and their record.

Ways that are timed one after the other meet different clocks, caches and neighbours; in turns they
meet the same ones. On a GPU each call is timed by events on a cleared L2 cache.
"""

import argparse
import atexit
import gc
import json
import math
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flare_geo.files import write_aside
from flare_geo.provenance import provenance

Row = dict[str, Any]
Way = Callable[[], object]
OUT_OF_MEMORY = "out of memory"
CACHE = 256 * 2**20  # bytes, more than any L2 of today
LARGE = 100_000  # points from which the slope of time over N is fitted


class Clock:
    """The time that a benchmark may take as a whole."""

    def __init__(self, limit: float) -> None:
        self.end = time.monotonic() + limit

    @property
    def is_over(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() >= self.end


def alternate(
    ways: Mapping[str, Way],
    device: torch.device,
    *,
    seconds: float = 1.0,
    rounds: tuple[int, int] = (3, 100),
) -> dict[str, Row]:
    """Run the ways in turns; what fails drops out and says why.

    Args:
        ways: name to what is timed; what it returns is dropped at once.
        device: where they run.
        seconds: to spend on timing all ways together.
        rounds: fewest and most turns.

    Returns:
        By name: `seconds` (median), `fastest`, `slowest`, `rounds`, `first_seconds` (the first
        call, which compiles) and, on a GPU, `peak_bytes` (above what was there before the call);
        or `failed`, a reason.
    """
    rows: dict[str, Row] = {}
    once: dict[str, float] = {}
    for name, way in ways.items():
        try:
            first = _seconds(way, device, None)
            before = _start_of_peak(device)
            once[name] = _seconds(way, device, None)
            rows[name] = {"first_seconds": first, "peak_bytes": _peak_since(before, device)}
        except Exception as error:
            rows[name] = failed(error)
            once.pop(name, None)
            free(device)
    turns = min(max(int(seconds / max(sum(once.values()), 1e-9)), rounds[0]), rounds[1])
    samples: dict[str, list[float]] = {name: [] for name in once}
    cache = torch.empty(CACHE, dtype=torch.int8, device=device) if device.type == "cuda" else None
    for _ in range(turns):
        for name in samples:
            if "failed" in rows[name]:
                continue
            try:
                samples[name].append(_seconds(ways[name], device, cache))
            except Exception as error:
                rows[name] = failed(error)
                free(device)
    for name, values in samples.items():
        if "failed" not in rows[name]:
            rows[name] |= {
                "seconds": statistics.median(values),
                "fastest": min(values),
                "slowest": max(values),
                "rounds": len(values),
            }
    return rows


def failed(error: BaseException) -> Row:
    """A row that says why there is no number."""
    words = (str(error).strip() or type(error).__name__).splitlines()[0]
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "not enough memory" in words:
        return {"failed": OUT_OF_MEMORY}
    return {"failed": f"{type(error).__name__}: {words}"[:300]}


def forget_what_was_compiled() -> None:
    """Compiling shall cost what it costs the first time, whatever former runs left on the disk."""
    os.environ["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = "1"
    os.environ["XDG_CACHE_HOME"] = folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)


def free(device: torch.device) -> None:
    """Give back what an earlier way, or its failure, still holds."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _seconds(way: Way, device: torch.device, cache: Tensor | None) -> float:
    if device.type != "cuda":
        start = time.perf_counter()
        way()
        return time.perf_counter() - start
    if cache is None:  # with the time of the host: what a first call costs
        torch.cuda.synchronize(device)
        start = time.perf_counter()
        way()
        torch.cuda.synchronize(device)
        return time.perf_counter() - start
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    cache.zero_()  # the host queues the way meanwhile, so that the launch of it is not timed
    begin.record()
    way()
    end.record()
    torch.cuda.synchronize(device)
    return begin.elapsed_time(end) / 1e3


def _start_of_peak(device: torch.device) -> int:
    if device.type != "cuda":
        return 0
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def _peak_since(before: int, device: torch.device) -> int | None:
    return torch.cuda.max_memory_allocated(device) - before if device.type == "cuda" else None


def relative_error(found: Iterable[Tensor], true: Iterable[Tensor]) -> float:
    """`||found - true|| / ||true||` over all tensors together, in float64; inf if not finite."""
    error = size = 0.0
    for a, b in zip(found, true, strict=True):
        error += float((a.detach().double() - b.detach().double()).square().sum())
        size += float(b.detach().double().square().sum())
    return math.sqrt(error / max(size, 1e-300)) if math.isfinite(error) else math.inf


def verdict(errors: Row, dtype: torch.dtype, usual: float) -> Row:
    """What is wrong with errors against float64: nothing, or `failed` with a reason.

    Right is what a few roundings of the dtype explain, or, up to four times that, what is not much
    worse than `usual`, the largest error of the plain way at the same sizes.
    """
    rounding = {torch.float16: 1e-2, torch.bfloat16: 6e-2, torch.float32: 1e-4}[dtype]
    if dtype == torch.float32 and torch.backends.cuda.matmul.fp32_precision == "tf32":
        rounding = 3e-3
    worst = max(errors.values())
    allowed = min(max(rounding, 3 * usual), 4 * rounding)
    if worst <= allowed:
        return {}
    return {"failed": f"error {worst:.1e} against float64 is more than {allowed:.1e}"}


def slope(points: Sequence[int], seconds: Sequence[float]) -> float | None:
    """Exponent a of `seconds = c points^a` from 100,000 points on; None for one size or none."""
    pairs = [(math.log(n), math.log(s)) for n, s in zip(points, seconds) if n >= LARGE]
    if len({x for x, _ in pairs}) < 2:
        return None
    return statistics.linear_regression(*zip(*pairs)).slope


def environment(device: torch.device) -> Row:
    """Where a result comes from, with what the kernels depend on."""
    try:
        import triton
    except ImportError:
        version = None
    else:
        version = triton.__version__
    found: Row = {**provenance(device), "triton": version, "cuda": torch.version.cuda}
    found["tf32"] = torch.backends.cuda.matmul.fp32_precision == "tf32"
    if device.type == "cuda":
        found["device_bytes"] = torch.cuda.get_device_properties(device).total_memory
    return found


class Record:
    """The JSON of a benchmark, written again after every row, so that a limit loses nothing."""

    def __init__(self, path: Path, device: torch.device, options: argparse.Namespace) -> None:
        self.path = path
        self.rows: list[Row] = []
        config = {key: value for key, value in vars(options).items() if key != "out"}
        self.content: Row = {
            "benchmark": path.stem,
            "data": "generated: random numbers",
            **environment(device),
            "config": {k: str(v) if isinstance(v, Path) else v for k, v in config.items()},
            "headlines": [],
            "rows": self.rows,
        }

    def add(self, *rows: Row) -> None:
        """Keep rows and print them."""
        for row in rows:
            self.rows.append(row)
            print(line_of(row), flush=True)
        self.write()

    def headline(self, words: str) -> None:
        """Keep a line that says what came out, for the table at the end."""
        self.content["headlines"].append(words)
        self.write()

    def write(self) -> None:
        """The file as it stands."""
        with write_aside(self.path) as aside:
            aside.write_text(json.dumps(_spelled(self.content), indent=1, allow_nan=False) + "\n")

    def finished(self) -> int:
        """Print the headlines; exit status 1 if anything failed but for want of memory."""
        for words in self.content["headlines"]:
            print(words)
        print(f"written: {self.path}")
        reasons = {row["failed"] for row in self.rows if "failed" in row}
        return int(bool(reasons - {OUT_OF_MEMORY}))


def _spelled(value: Any) -> Any:
    """The same for JSON, which has no word for infinity."""
    if isinstance(value, dict):
        return {key: _spelled(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_spelled(each) for each in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def line_of(row: Row) -> str:
    """A row as a line: what was run, then time, memory, ratio and errors."""
    hidden = {"peak_bytes", "rounds", "failed", "skipped", "errors"}
    words = []
    for key, value in row.items():
        if key not in hidden and not isinstance(value, float):
            words.append(f"{key}={value:,}" if isinstance(value, int) else str(value))
    for key in ("failed", "skipped"):
        if key in row:
            return f"{'  '.join(words)}:  {key}: {row[key]}"
    if "seconds" in row:
        words.append(f"{1e3 * row['seconds']:,.3f} ms")
    if row.get("peak_bytes") is not None:
        words.append(f"{row['peak_bytes'] / 1e9:.3f} GB")
    if row.get("speedup") is not None:
        words.append(f"{row['speedup']:.2f} x")
    if "compile_seconds" in row:
        words.append(f"compiled in {row['compile_seconds']:.1f} s")
    words += [f"{key} error {value:.1e}" for key, value in row.get("errors", {}).items()]
    return "  ".join(words)


def add_options(parser: argparse.ArgumentParser, out: str, limit: float) -> None:
    """The options that every benchmark has."""
    parser.add_argument("--out", type=Path, default=Path(out), help="the JSON to write")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--seconds", type=float, default=1.0, help="of timing a comparison")
    parser.add_argument("--tf32", action="store_true", help="let float32 products be tf32")
    parser.add_argument("--limit", type=float, default=limit, help="seconds for everything")


def choose_device(options: argparse.Namespace) -> torch.device:
    """The device that was asked for, "auto" is the GPU where there is one; sets tf32 as asked."""
    torch.backends.cuda.matmul.allow_tf32 = options.tf32
    name = options.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
