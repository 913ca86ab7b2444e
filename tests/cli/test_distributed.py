"""Training under torchrun on the CPU: whatever the number of processes, the same optimisation."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import train_worker
from safetensors.torch import load_file
from tests_cli import TINY
from toy import make_toy

ROOT = Path(__file__).parents[2]
MORE = [
    "--model.init", "default", "--epochs", "3", "--lr", "5e-3",
]  # fmt: skip
SOFTMAX = ["--model.mixer", "softmax", "--model.num_latents", "64"]
RUNS = {  # what is left out of a name by "2" and "4" is the same run on so many processes
    "clouds": ["--batch_size", "4", "--ema", "0.9"],  # the last batch of an epoch has three
    "accumulated": ["--batch_size", "2", "--accumulate", "4"],  # the last batch has one
    "shared": ["--batch_size", "4", "--ema", "0.9"],
    "drawn": ["--batch_size", "4", "--data", "train_worker.DrawnDataset"],
    "sampled": ["--batch_size", "1", "--data.num_points", "25"],  # one cloud has a single point
    "single": ["--batch_size", "4", "--precision", "32-true"],
    "mesh": ["--batch_size", "4", "--accumulate", "2"],
    "packed": ["--points_per_batch", "190"],
}


def job(folder, name, *options, into=None, cut=None, fails=False):
    arguments = ["--data", "train_worker.RaggedDataset", "--precision", "64-true"]
    arguments += RUNS.get(name, [])
    arguments += ["--data.root", str(folder / "data"), "--run", str(folder / (into or name))]
    return {"arguments": [*arguments, *TINY, *MORE, *options], "cut": cut, "fails": fails}


def torchrun(folder, processes, jobs):
    """Run the jobs, one after the other, in so many processes; what they said on stderr."""
    (folder / "jobs.json").write_text(json.dumps(jobs))
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node",
        str(processes), "--", "tests/train_worker.py", str(folder / "jobs.json"),
    ]  # fmt: skip
    done = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"PYTHONPATH": str(ROOT / "tests"), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Each run in one process, two of them also cut in their second epoch."""
    folder = tmp_path_factory.mktemp("runs")
    make_toy(folder / "data")
    for name in RUNS:
        assert train_worker.run(job(folder, name)) == 0
    for name in ("clouds", "packed"):
        assert train_worker.run(job(folder, name, into=f"{name} begun", cut=1)) == 0
    return folder


def rows(run):
    with (run / "metrics.csv").open() as file:
        return [{k: float(v) for k, v in r.items() if k != "seconds"} for r in csv.DictReader(file)]


def error(found, expected):
    """Relative, of all weights together."""
    a, b = (torch.cat([t.flatten() for t in each.values()]).double() for each in (found, expected))
    return float((a - b).norm() / b.norm())


def assert_same(folder, name, other, bound=1e-11):
    """In float64 the runs differ by some eps; Adam may divide that by a small gradient."""
    one, more = rows(folder / name), rows(folder / other)
    assert len(one) == len(more) == 3
    for row, expected in zip(more, one, strict=True):
        assert row == pytest.approx(expected, rel=bound), other
    for kept in ("last", "best"):
        a, b = (load_file(folder / run / kept / "model.safetensors") for run in (other, name))
        assert error(a, b) < bound, (other, kept)


def test_two_processes_do_what_one_does(folder):
    two = ["--devices", "2", "--strategy", "ddp"]
    share = [*two, "--point_ranks", "2"]
    done = torchrun(
        folder,
        2,
        [
            job(folder, "clouds", *two, into="clouds 2"),
            job(folder, "accumulated", *two, into="accumulated 2"),
            job(folder, "drawn", *share, into="drawn 2"),
            job(folder, "drawn", *two, into="drawn apart"),
            job(folder, "sampled", *share, "--num_workers", "1", into="sampled 2"),
            job(folder, "single", *share, into="single 2"),
            job(folder, "packed", *two, into="packed 2"),
            job(folder, "clouds", *two, into="clouds begun"),
            job(folder, "packed", *two, into="packed begun"),
            job(folder, "clouds", *two, into="clouds halved", cut=1),
            job(folder, "shared", *share, into="shared halved", cut=1),
            job(folder, "", *two, "--batch_size", "3", into="odd", fails=True),
            job(folder, "", *two, "--point_ranks", "3", into="three", fails=True),
            job(folder, "", *share, *SOFTMAX, into="pairs", fails=True),
        ],
    )
    assert done.stdout.count("run folder " + str(folder / "clouds 2")) == 1  # one process speaks
    said = {line for line in done.stderr.splitlines() if line.startswith("flare-geo train: ")}
    batch_size, point_ranks, mixer = (
        line.removeprefix("flare-geo train: ") for line in sorted(said)
    )
    assert batch_size.startswith("batch_size 3 cannot be divided evenly among 2 processes: choose")
    assert point_ranks.startswith("point_ranks 3 does not divide the number of processes")
    assert mixer.startswith("the points of a SoftmaxAttention interact pair by pair")
    for name in ("clouds", "accumulated", "drawn", "sampled"):
        assert_same(folder, name, f"{name} 2")
    assert_same(folder, "drawn", "drawn apart")
    assert_same(folder, "single", "single 2", bound=1e-5)
    steps = lambda run: [row["step"] for row in rows(folder / run)]  # noqa: E731
    assert steps("packed 2") == steps("packed begun") == steps("packed")
    assert_same(folder, "clouds", "clouds begun")  # one process began
    for name in ("clouds", "shared"):  # two began
        assert train_worker.run(job(folder, name, into=f"{name} halved")) == 0
        assert_same(folder, name, f"{name} halved")


def test_four_processes_share_points_two_by_two(folder):
    four = ["--devices", "4", "--strategy", "ddp"]
    torchrun(
        folder,
        4,
        [
            job(folder, "mesh", *four, "--point_ranks", "2", into="mesh 4"),
            job(folder, "clouds", *four, into="clouds 4"),
        ],
    )
    assert_same(folder, "mesh", "mesh 4")
    assert_same(folder, "clouds", "clouds 4")
