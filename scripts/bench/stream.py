"""Prediction from file to file on clouds of millions of points: time and resident memory.

    python scripts/bench/stream.py --out stream.json --points 2000000 5000000 10000000

For each size a packed store of one cloud of random points is written, and `flare-geo predict` run
on it in a process of its own, activations between blocks in a file (`--spill`). Its largest
resident memory is what the system reports (VmHWM in /proc); the seconds are those of the whole
process.
Also fitted: the exponent of time over points, of the wall clock and of the seconds that the cores
worked.

A chunk is of 200,000 points so that its arrays, 51 MB each, are mapped one by one: below 32 MB they
lie in glibc's heap, whose holes add some 100 MB that come and go.
"""

import argparse
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from timing import Record, Row
from torch_geometric.data import Data

from flare_geo.datasets.store import PackedStore, write_store
from flare_geo.nn import Flare, Surrogate
from flare_geo.nn.surrogate import Field
from flare_geo.viz.charts.points import fitted_slope


def make_run(folder: Path, options: argparse.Namespace) -> None:
    """A checkpoint with random weights."""
    torch.manual_seed(0)
    model = Flare(
        3, 1, options.channels, options.layers, options.heads, options.latents, init="default"
    )
    inputs = [Field("pos", name, "m") for name in "xyz"]
    Surrogate(model, inputs, [Field("y", "p", "Pa")]).save_pretrained(folder)


def make_store(path: Path, points: int) -> None:
    """A packed store of one cloud of generated points."""
    generator = torch.Generator().manual_seed(points)
    data = Data(pos=torch.rand(points, 3, generator=generator), name="cloud")
    write_store(path, [data], {"name": "random points", "source": {"generated": True}})


def resident_bytes(process: int) -> int:
    """Largest resident memory of a process so far, 0 once it has gone."""
    try:
        words = Path(f"/proc/{process}/status").read_text().split()
        return int(words[words.index("VmHWM:") + 1]) * 1024
    except (OSError, ValueError):
        return 0


def measure(run: Path, store: Path, folder: Path, options: argparse.Namespace) -> Row:
    """One prediction in a process of its own."""
    out = folder / "predicted.h5"
    command = [sys.executable, "-m", "flare_geo.cli", "predict", run, store, "--out", out]
    command += ["--chunk_size", options.chunk_size, "--device", "cpu"]
    command += ["--compile", str(options.compile).lower()]
    command += ["--spill", folder] if options.spill else []
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with (folder / "said.txt").open("w") as said:
        process = subprocess.Popen([str(c) for c in command], stdout=said, stderr=said)
        samples = []
        while process.poll() is None:
            samples.append(resident_bytes(process.pid))
            time.sleep(0.1)
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode:
        return {"failed": (folder / "said.txt").read_text().splitlines()[-1]}
    pred = PackedStore(out)
    row = pred.rows("points/pred", 0, int(pred.ptr[-1]))
    if not (torch.isfinite(row).all() and float(row.std()) > 0):
        return {"failed": "the prediction is not finite, or the same everywhere"}
    return {
        "seconds": seconds,
        "core_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "peak_resident_bytes": max(samples),
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--points", type=int, nargs="+", default=[2_000_000, 5_000_000, 10_000_000])
    parser.add_argument("--chunk_size", type=int, default=200_000)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--latents", type=int, default=128)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--spill", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--folder", type=Path, help="for stores and features; a temporary one")
    options = parser.parse_args(argv)
    record = Record(options.out, torch.device("cpu"), options)
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    try:
        make_run(folder / "run", options)
        for points in options.points:
            store = folder / "cloud.h5"
            make_store(store, points)
            record.add({"points": points, **measure(folder / "run", store, folder, options)})
    finally:
        shutil.rmtree(folder)
    rows = [row for row in record.rows if "seconds" in row]
    if len(rows) > 1:
        sizes = np.array([row["points"] for row in rows])
        for key in ("seconds", "core_seconds"):
            slope = fitted_slope(sizes, np.array([row[key] for row in rows]))
            record.headline(f"{key.replace('_', ' ')} grow as N^{slope:.3f}")
        memory = [row["peak_resident_bytes"] for row in rows]
        record.headline(
            f"resident memory {min(memory) / 2**30:.2f} to {max(memory) / 2**30:.2f} GiB, largest "
            f"over smallest {max(memory) / min(memory):.3f}"
        )
    return record.finished()


if __name__ == "__main__":
    raise SystemExit(main())
