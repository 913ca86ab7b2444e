"""A killed run goes on where it was; a lost process ends the others; a full disk costs nothing."""

import importlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
from inspect import signature
from pathlib import Path

import pytest
import torch
from tests_cli import CONFIGS, elasticity

from flare_geo.cli.main import main
from flare_geo.cli.train import train

ROOT = Path(__file__).parents[2]
SLURM = ROOT / "scripts" / "slurm.sh"
HUNG = 600  # seconds after which a process counts as hung


def start(arguments, command=("-m", "flare_geo.cli", "train"), **kwargs):
    words = [sys.executable, *command, *arguments]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen(words, text=True, cwd=ROOT, **pipes, **kwargs)


def held(process):
    """The number of the process that says that it is held; see held_run.py."""
    for line in process.stdout:
        if line.startswith("held "):
            return int(line.split()[1])
    raise AssertionError(process.communicate()[1])


def epochs_done(run):
    path = run / "metrics.csv"
    return len(path.read_text().splitlines()) - 1 if path.exists() else 0


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
    assert "training" in {row["killed"] for row in kills}
    assert end == {"after": "all kills", "steps": 150, "unlike": []}


def test_sigterm_to_a_whole_process_group_ends_the_step_and_saves(cells, tmp_path):
    """As a scheduler does it: loading processes get it, too, and must not die before the step."""
    run = tmp_path / "run"
    options = ["--epochs", "4", "--batch_size", "1", "--num_workers", "1"]
    words = ["2", "0", *elasticity(cells, run), *options]
    process = start(words, command=["tests/held_run.py"], start_new_session=True)
    try:
        held(process)
        os.killpg(process.pid, signal.SIGTERM)
        _, err = process.communicate("go on\n", timeout=HUNG)
    finally:
        process.kill()
    assert process.returncode == 143, err
    state = run / "last.ckpt"
    assert err.splitlines() == [
        f"ended by SIGTERM; the state is saved in {state}, and the same command continues"
    ]
    assert torch.load(state, weights_only=True)["global_step"] == 2 * 10 + 2  # ends its step


def test_a_lost_process_ends_the_others(cells, tmp_path):
    run = tmp_path / "run"
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--"]
    options = ["--devices", "2", "--strategy", "ddp", "--epochs", "4", "--wait_minutes", "0.5"]
    words = ["tests/held_run.py", "1", "1", *elasticity(cells, run), *options]
    process = start(words, command=torchrun)
    try:
        os.kill(held(process), signal.SIGKILL)
        _, err = process.communicate(timeout=HUNG)
    finally:
        process.kill()
    assert process.returncode != 0
    said = [line for line in err.splitlines() if line.startswith("flare-geo train:")]
    assert len(said) == 1, err
    assert "another process of this run is gone or does not answer" in said[0]
    assert "the same command continues from the last save" in said[0]
    assert torch.load(run / "last.ckpt", weights_only=True)["epoch"] == 0


def test_full_disk_leaves_the_former_checkpoint(cells, tmp_path):
    """No file may grow beyond 4 KiB: what a full disk does to a checkpoint."""
    run = tmp_path / "run"
    arguments = [*elasticity(cells, run), "--epochs", "6", "--val_every", "1"]
    process = start(["3", "0", *arguments], command=["tests/held_run.py"])
    try:
        held(process)
    finally:
        process.kill()
        process.communicate()
    assert epochs_done(run) == 3
    kept = [run / "last.ckpt", run / "best/model.safetensors", run / "best/config.json"]
    before = [path.read_bytes() for path in kept]

    def no_room():
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    process = start(arguments, preexec_fn=no_room)
    _, err = process.communicate(timeout=HUNG)
    assert process.returncode == 1
    lines = err.strip().splitlines()
    assert len(lines) == 1, err
    assert "File too large" in lines[0]
    assert "nothing that was saved before is lost" in lines[0]
    assert [path.read_bytes() for path in kept] == before
    assert main(["train", *arguments]) == 0  # with room again the run goes on to its end
    assert epochs_done(run) == 6


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
