"""A killed run goes on where it was; a lost process ends the others; a full disk costs nothing."""

import importlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from inspect import signature
from pathlib import Path

import pytest
import torch
from tests_cli import CONFIGS, elasticity

from flare_geo.cli.main import main
from flare_geo.cli.train import train

ROOT = Path(__file__).parents[2]
SLURM = ROOT / "scripts" / "slurm.sh"


def start(arguments, command=("-m", "flare_geo.cli", "train"), **kwargs):
    words = [sys.executable, *command, *arguments]
    return subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, **kwargs
    )


def epochs_done(run):
    path = run / "metrics.csv"
    return len(path.read_text().splitlines()) - 1 if path.exists() else 0


def wait_for(process, run, epochs):
    """Until the run has done so many epochs."""
    deadline = time.monotonic() + 120
    while epochs_done(run) < epochs and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.poll() is None, process.communicate()
    assert epochs_done(run) >= epochs


@pytest.mark.slow
def test_sigkill_at_random_moments(tmp_path, monkeypatch):
    """The short form of scripts/bench/sigkill.py, which kills more often."""
    monkeypatch.syspath_prepend(ROOT / "scripts" / "bench")
    out = tmp_path / "sigkill.json"
    try:
        bench = importlib.import_module("sigkill")
        status = bench.main(["--out", str(out), "--kills", "3", "--epochs", "15"])
    finally:
        for name in ("sigkill", "timing"):
            sys.modules.pop(name, None)
    result = json.loads(out.read_text())
    assert status == 0, result["rows"]
    assert {"git_revision", "torch", "config"} <= result.keys()
    *kills, end = result["rows"]
    assert [row["kill"] for row in kills] == [1, 2, 3]
    assert end == {"after": "all kills", "steps": 150, "unlike": []}


def test_sigterm_to_a_whole_process_group(cells, tmp_path):
    """As a scheduler does it: loading processes get it, too, and must not die before the step."""
    run = tmp_path / "run"
    options = ["--epochs", "400", "--batch_size", "1", "--num_workers", "1"]
    process = start([*elasticity(cells, run), *options], start_new_session=True)
    wait_for(process, run, 2)
    os.killpg(process.pid, signal.SIGTERM)
    try:
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 143, err
    state = run / "last.ckpt"
    assert err.splitlines() == [
        f"ended by SIGTERM; the state is saved in {state}, and the same command goes on"
    ]
    assert torch.load(state, weights_only=True)["global_step"] >= 20


def test_a_lost_process_ends_the_others(cells, tmp_path):
    run = tmp_path / "run"
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--"]
    options = ["--devices", "2", "--strategy", "ddp", "--epochs", "400", "--wait_minutes", "0.5"]
    words = ["scripts/train.py", *elasticity(cells, run), *options]
    process = start(words, command=torchrun)
    try:
        wait_for(process, run, 1)
        folder = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        victim = folder.read_text().split()[-1]
        begun = time.monotonic()
        os.kill(int(victim), signal.SIGKILL)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert time.monotonic() - begun < 40
    assert process.returncode != 0
    said = [line for line in err.splitlines() if line.startswith("flare-geo train:")]
    assert len(said) == 1, err
    assert "another process of this run is gone or does not answer" in said[0]
    assert "the same command goes on from the last save" in said[0]
    assert torch.load(run / "last.ckpt", weights_only=True)["global_step"] >= 3


def test_full_disk_leaves_the_former_checkpoint(cells, tmp_path):
    """No file may grow beyond 4 KiB: what a full disk does to a checkpoint."""
    run = tmp_path / "run"
    arguments = [*elasticity(cells, run), "--epochs", "16", "--val_every", "1"]
    process = start(arguments)
    wait_for(process, run, 3)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kept = [run / "last.ckpt", run / "best/model.safetensors", run / "best/config.json"]
    before = [path.read_bytes() for path in kept]

    def no_room():
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    process = start(arguments, preexec_fn=no_room)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    lines = err.strip().splitlines()
    assert len(lines) == 1, err
    assert "File too large" in lines[0]
    assert "nothing that was saved before is lost" in lines[0]
    assert [path.read_bytes() for path in kept] == before
    assert main(["train", *arguments]) == 0  # with room again the run goes on to its end
    assert epochs_done(run) == 16


def test_the_slurm_script_is_sound():
    subprocess.run(["bash", "-n", str(SLURM)], check=True)
    text = SLURM.read_text()
    assert {"#SBATCH --requeue", "#SBATCH --signal=USR1@120"} <= set(text.splitlines())
    assert f'[ "$status" -eq {128 + signal.SIGUSR1} ]' in text
    own = "\n".join(line for line in text.splitlines() if not line.startswith("#SBATCH"))
    ours = re.findall(r"(?:scripts/slurm\.sh|scripts/train\.py)((?:.*\\\n)*.*)", own)
    flags = {flag for words in ours for flag in re.findall(r"--(\w+)", words)}
    assert {"strategy", "devices", "num_nodes", "point_ranks"} <= flags
    assert flags - {"config"} <= signature(train).parameters.keys()
    for name in re.findall(r"scripts/configs/(\S+)", text):
        assert (CONFIGS / name).is_file()


@pytest.mark.parametrize("points", ["40k", "100k", "1m"])
def test_the_notes_of_the_large_configurations_name_real_options(points):
    text = (CONFIGS / f"drivaerml_{points}.yaml").read_text()
    for line in (line for line in text.splitlines() if "flare-geo train" in line):
        flags = set(re.findall(r"--(\w+)", line))
        assert flags - {"config"} <= signature(train).parameters.keys()
