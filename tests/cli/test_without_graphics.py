"""Every verb on a machine without graphics libraries; and pictures that fail cost nothing else."""

import json
import sys

import numpy as np
import pytest
from matplotlib.image import imread
from tests_cli import elasticity
from without_graphics import SITUATIONS, run_without_graphics

from flare_geo.cli.main import main
from flare_geo.cli.train import make_surrogate
from flare_geo.datasets import MeshFolderDataset
from flare_geo.mesh import read_mesh, write_mesh
from flare_geo.nn import Flare
from flare_geo.viz.render.graphics import NOTICE

VERBS = """
import json, sys
from flare_geo.cli.main import main
for arguments in json.loads(sys.argv[1]):
    status = main(arguments)
    if status:
        sys.exit(status)
"""


@pytest.fixture
def run(tmp_path):
    """A fresh surrogate of balls with a stress, in a run."""
    pv = pytest.importorskip("pyvista")
    for i in range(3):
        ball = pv.Sphere(radius=1 + 0.1 * i, theta_resolution=20, phi_resolution=20)
        ball["stress"] = ball.points[:, 2] * 3
        write_mesh(ball, tmp_path / "balls" / f"ball_{i}.vtp")
    data = MeshFolderDataset(tmp_path / "balls", targets=["stress"], splits={"train": 1.0})
    surrogate = make_surrogate(lambda i, o: Flare(i, o, 16, num_layers=1, heads=2), data)
    surrogate.save_pretrained(tmp_path / "run" / "best")
    return tmp_path / "run"


def colored(path):
    """Share of a picture's pixels that are neither white nor gray, be they pale."""
    return np.mean(np.ptp(imread(path)[..., :3], axis=-1) > 0.02)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="libraries of Linux are hidden")
@pytest.mark.parametrize("hidden", SITUATIONS)
def test_all_verbs_draw(hidden, run, trained, tmp_path):
    folder, mesh = tmp_path / "out", tmp_path / "balls" / "ball_0.vtp"
    picture, page = str(folder / "ball.png"), str(folder / "ball.html")
    predict = ["predict", str(run), str(mesh), "-o", str(folder / "ball.vtp")]
    commands = [
        [*predict, "--png", picture, "--html", page],
        ["render", str(trained), "--out", str(folder / "cells.png")],
        ["report", str(trained), "--out", str(folder / "report.html"), "--cases", "1"],
        ["inspect", str(trained), "--out", str(folder / "inspect"), "--latents", "2"],
    ]
    done = run_without_graphics(hidden, VERBS, json.dumps(commands))
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines().count(NOTICE) == 1
    assert "Traceback" not in done.stderr
    for name in ("ball", "cells", "inspect/latents_encode", "inspect/eigenmodes"):
        assert colored(folder / f"{name}.png") > 0.05, name
    assert "No picture here" not in (folder / "report.html").read_text(encoding="utf-8")
    assert read_mesh(folder / "ball.vtp").n_arrays == read_mesh(mesh).n_arrays + 1
    assert (folder / "ball.html").stat().st_size > 10_000


def broken(*arguments, **options):
    raise RuntimeError("the graphics card\nis on fire")


def test_a_picture_that_fails_costs_nothing_else(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("flare_geo.viz.compare.panel", broken)
    mesh, out = tmp_path / "balls" / "ball_0.vtp", tmp_path / "out"
    command = ["predict", str(run), str(mesh), "-o", str(out / "a.vtp")]
    command += ["--png", str(out / "a.png"), "--html", str(out / "a.html")]
    assert main(command) == 1
    said = capsys.readouterr()
    assert said.err == (
        f"flare-geo predict: picture {out / 'a.png'} failed: the graphics card is on fire "
        "(everything else is written)\n"
    )
    assert "relative L2" in said.out
    assert f"page: {out / 'a.html'}" in said.out
    assert read_mesh(out / "a.vtp").n_points == read_mesh(mesh).n_points
    assert (out / "a.html").is_file()
    assert not (out / "a.png").exists()


def test_inspect_writes_its_numbers_before_its_pictures(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("flare_geo.viz.latents.panel", broken)
    assert main(["inspect", str(trained), "--out", str(tmp_path), "--latents", "2"]) == 1
    said = capsys.readouterr()
    assert len(said.err.splitlines()) == 1
    assert "latents_encode.png failed: the graphics card is on fire" in said.err
    assert "suggested M" in said.out
    assert json.loads((tmp_path / "spectra.json").read_text())["num_latents"] == 4
    assert read_mesh(tmp_path / "latents.vtp").n_arrays > 0
    assert (tmp_path / "spectra.png").is_file()


def test_a_run_is_whole_without_its_learning_curve(cells, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("flare_geo.viz.plot_learning_curves", broken)
    assert main(["train", *elasticity(cells, tmp_path / "run"), "--epochs", "1"]) == 0
    assert "warning: learning curve failed: the graphics card is on fire" in capsys.readouterr().err
    assert (tmp_path / "run" / "last" / "model.safetensors").is_file()
