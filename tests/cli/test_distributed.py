"""scripts/train.py under torchrun, two processes on the CPU."""

import csv
import shutil
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from tests_cli import elasticity

ROOT = Path(__file__).parents[2]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def test_two_processes_train_and_resume(cells, tmp_path):
    options = ["--devices", "2", "--strategy", "ddp", "--epochs", "3", "--val_every", "1"]

    def launch(run):
        script = [*TORCHRUN, "--", "scripts/train.py", *elasticity(cells, run), *options]
        done = subprocess.run(script, cwd=ROOT, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run = tmp_path / "run"
    assert launch(run).count("10 training and 2 validation cases") == 1  # one process speaks
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["2", "4", "6"]  # 5 of the 10 cells each, 4 a batch
    before = load_file(run / "last" / "model.safetensors")
    assert all(torch.isfinite(v).all() for v in before.values())
    shutil.rmtree(run / "last")
    launch(run)  # continued from the state after the last epoch: nothing is left to train
    after = load_file(run / "last" / "model.safetensors")
    assert all(torch.equal(before[key], after[key]) for key in before)
