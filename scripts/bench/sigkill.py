"""Kill a run with SIGKILL at random moments: it always goes on, and ends as if nothing had been.

    python scripts/bench/sigkill.py --out scripts/bench/results/sigkill.json

One run is left alone. Its twin is killed again and again, somewhere in an epoch that is drawn or
while it starts, and every time each checkpoint on the disk has to be readable or absent. In the end
the weights (best and last) and the table of errors have to be the same to the bit: on one CPU, with
the same versions and as many threads.
"""

import argparse
import csv
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
import yaml
from safetensors.torch import load_file
from timing import Record, Row

from flare_geo.datasets import ElasticityDataset

CONFIG = Path(__file__).parents[1] / "configs" / "elasticity.yaml"
MODEL = {"hidden_channels": 8, "num_layers": 1, "heads": 2, "num_latents": 4}
STARTING = 0.2  # share of the kills that come before the first step
WAIT = 300.0  # seconds after which a run that says nothing counts as hung


def command(data: Path, run: Path, options: argparse.Namespace) -> list[str]:
    """The one command line that starts the run and goes on with it."""
    values = {"config": CONFIG, "data.root": data, "run": run, "epochs": options.epochs}
    values |= {f"model.{key}": value for key, value in MODEL.items()}
    values |= {"batch_size": 1, "val_every": 2, "ema": 0.9, "accelerator": "cpu"}
    values |= {"save_minutes": options.save_seconds / 60}
    words = [str(word) for key, value in values.items() for word in (f"--{key}", value)]
    return [sys.executable, "-m", "flare_geo.cli", "train", *words]


def start(arguments: Sequence[str]) -> subprocess.Popen[str]:
    """The run; returns when it is about to train, or has ended."""
    process = subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "training and" in line:
            break
    return process


def faults_on_disk(run: Path) -> list[str]:
    """What cannot be read of the files that a run leaves; a file that is not there is no fault."""
    readers = {
        "last.ckpt": lambda path: torch.load(path, weights_only=True)["loops"],
        "metrics.csv": lambda path: [float(r["train/rel_l2"]) for r in _rows(path)],
        "config.yaml": lambda path: yaml.safe_load(path.read_text())["epochs"],
    }
    for name in ("best", "last"):
        readers[f"{name}/model.safetensors"] = load_file
        readers[f"{name}/config.json"] = lambda path: json.loads(path.read_text())
    found = []
    for name, read in readers.items():
        if (run / name).exists():
            try:
                read(run / name)
            except Exception as error:
                found.append(f"{name}: {type(error).__name__}: {error}"[:200])
    return found


def differences(whole: Path, cut: Path) -> list[str]:
    """What is not the same to the bit in two runs."""
    found = []
    for name in ("best", "last"):
        a, b = (load_file(run / name / "model.safetensors") for run in (whole, cut))
        if a.keys() != b.keys():
            found.append(f"names of {name}")
            continue
        found += [f"{name}: {key}" for key in a if not torch.equal(a[key], b[key])]
    tables = [[row | {"seconds": ""} for row in _rows(run / "metrics.csv")] for run in (whole, cut)]
    return [*found, *(["metrics.csv"] if tables[0] != tables[1] else [])]


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def steps_saved(run: Path) -> int:
    """The steps in the saved state."""
    path = run / "last.ckpt"
    return int(torch.load(path, weights_only=True)["global_step"]) if path.is_file() else 0


def epochs_done(run: Path) -> int:
    """The epochs in the table of the run."""
    path = run / "metrics.csv"
    return max(0, path.read_bytes().count(b"\n") - 1) if path.is_file() else 0


def kill_at_random(
    arguments: Sequence[str],
    run: Path,
    draw: random.Random,
    *,
    starting: float,
    epoch: int,
    seconds: float,
) -> Row:
    """One life of the run: when it was killed and what it left.

    Args:
        arguments: its command.
        run: its folder.
        draw: of the moment.
        starting: seconds until it trains; a share of the kills lies within.
        epoch: after so many the others are killed.
        seconds: that an epoch takes; they are killed within the next.
    """
    early = draw.random() < STARTING
    delay = draw.uniform(0, starting if early else seconds)
    begun = time.monotonic()
    if early:
        process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
    else:
        process = start(arguments)
        while epochs_done(run) < epoch and process.poll() is None:
            time.sleep(0.001)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=WAIT)
    killed = process.returncode == -signal.SIGKILL
    row: Row = {
        "killed": ("starting" if early else "training") if killed else "ended before",
        "seconds_after": round(delay, 3),
        "seconds_alive": round(time.monotonic() - begun, 3),
        "step_saved": steps_saved(run) if not (broken := faults_on_disk(run)) else None,
        "half_written": len(list(run.glob("**/.*-*"))) if run.is_dir() else 0,
    }
    if process.returncode not in (0, -signal.SIGKILL):
        row["failed"] = f"ended before the kill with status {process.returncode}"
    if broken:
        row["failed"] = "; ".join(broken)
    return row


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("sigkill.json"), help="the JSON to write")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--cells", type=int, default=20, help="generated cells, half to train")
    parser.add_argument("--save-seconds", type=float, default=0.02, help="between saves")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args(argv)
    record = Record(options.out, torch.device("cpu"), options)
    record.content["data"] = "generated: elasticity cells"
    draw = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        data, whole, cut = (Path(folder, name) for name in ("data", "whole", "cut"))
        ElasticityDataset.generate(data, num_samples=options.cells, workers=1)
        begun = time.monotonic()
        process = start(command(data, whole, options))
        starting = time.monotonic() - begun
        process.communicate(timeout=WAIT)
        training = time.monotonic() - begun - starting
        if process.returncode:
            raise RuntimeError(f"the run that is left alone ended with {process.returncode}")
        steps = int(_rows(whole / "metrics.csv")[-1]["step"])
        for number in range(options.kills):
            share = options.epochs / options.kills  # of the epochs, one kill in each
            epoch = int(share * (number + 0.7 * draw.random()))
            words, seconds = command(data, cut, options), training / options.epochs
            moment = {"starting": starting, "epoch": epoch, "seconds": seconds}
            row = kill_at_random(words, cut, draw, **moment)
            record.add({"kill": number + 1, **row})
        process = start(command(data, cut, options))
        process.communicate(timeout=WAIT)
        unlike = [f"status {process.returncode}"] if process.returncode else differences(whole, cut)
        saved = [row["step_saved"] for row in record.rows]
        per_epoch = steps // options.epochs
        within = sum(step is not None and step % per_epoch > 0 for step in saved)
        last: Row = {"after": "all kills", "steps": steps, "unlike": unlike}
        record.add(last | ({"failed": ", ".join(unlike)} if unlike else {}))
    broken = sum("failed" in row for row in record.rows[:-1])
    record.headline(
        f"{options.kills} SIGKILLs over {steps} steps, {within} states within an epoch: "
        f"{broken} broken files or early ends, "
        f"{'differences at the end' if unlike else 'weights and table the same to the bit'}"
    )
    return record.finished()


if __name__ == "__main__":
    raise SystemExit(main())
