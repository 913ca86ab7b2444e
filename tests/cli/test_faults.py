"""A killed run goes on where it was; a full disk costs nothing that was saved."""

import resource
import signal
import subprocess
import sys
import time

import torch
from safetensors.torch import load_file
from tests_cli import elasticity

from flare_geo.cli.main import main


def start(arguments, **kwargs):
    command = [sys.executable, "-m", "flare_geo.cli", "train", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **kwargs)


def epochs_done(run):
    path = run / "metrics.csv"
    return len(path.read_text().splitlines()) - 1 if path.exists() else 0


def kill_after(arguments, run, epochs):
    """SIGKILL the run some time after so many epochs."""
    process = start(arguments)
    deadline = time.monotonic() + 120
    while epochs_done(run) < epochs and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert epochs_done(run) >= epochs


def test_sigkill_and_resume_give_the_same_weights(cells, tmp_path):
    options = ["--epochs", "16", "--val_every", "2", "--ema", "0.9"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    process = start([*elasticity(cells, whole), *options])
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err.decode()
    arguments = [*elasticity(cells, cut), *options]
    kill_after(arguments, cut, 3)
    kill_after(arguments, cut, 8)
    process = start(arguments)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err.decode()
    for name in ("last", "best"):
        a, b = (load_file(run / name / "model.safetensors") for run in (whole, cut))
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a), name
    assert epochs_done(cut) == 16


def test_full_disk_leaves_the_former_checkpoint(cells, tmp_path):
    """No file may grow beyond 4 KiB: what a full disk does to a checkpoint."""
    run = tmp_path / "run"
    arguments = [*elasticity(cells, run), "--epochs", "16", "--val_every", "1"]
    kill_after(arguments, run, 3)
    kept = [run / "last.ckpt", run / "best/model.safetensors", run / "best/config.json"]
    before = [path.read_bytes() for path in kept]

    def no_room():
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    process = start(arguments, preexec_fn=no_room)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    lines = err.decode().strip().splitlines()
    assert len(lines) == 1, err.decode()
    assert "File too large" in lines[0]
    assert "nothing that was saved before is lost" in lines[0]
    assert [path.read_bytes() for path in kept] == before
    assert main(["train", *arguments]) == 0  # with room again the run goes on to its end
    assert epochs_done(run) == 16
