"""Generate, train, evaluate, render, as a user does, on a small set."""

import csv
import json
from pathlib import Path

import pytest
import yaml
from matplotlib.image import imread
from tests_cli import CONFIGS, TINY

from flare_geo.cli.main import main

DARCY = Path(__file__).parents[1] / "data" / "darcy"


def test_run_folder(trained):
    names = {p.name for p in trained.iterdir()}
    assert names >= {
        "config.yaml",
        "metrics.csv",
        "learning_curve.png",
        "last.ckpt",
        "best",
        "last",
    }
    config = yaml.safe_load((trained / "config.yaml").read_text())
    assert config["epochs"] == 2
    assert config["model"]["init_args"]["hidden_channels"] == 8


def test_the_run_says_that_its_data_are_generated(trained):
    source = json.loads((trained / "best" / "config.json").read_text())["dataset"]["source"]
    assert source["generated"] is True


def test_evaluate(trained, capsys):
    assert main(["evaluate", str(trained)]) == 0
    out = capsys.readouterr().out
    assert "elasticity, generated data: 2 cases of split test, von Mises stress [Pa]" in out
    with (trained / "evaluation" / "test.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["case"] for row in rows] == ["cell_0018", "cell_0019"]
    assert all(row["source"] == "generated" and row["points"] == "972" for row in rows)
    summary = json.loads((trained / "evaluation" / "test.json").read_text())
    errors = [float(row["rel_l2"]) for row in rows]
    assert summary["rel_l2"]["mean"] == pytest.approx(sum(errors) / 2)
    assert summary["rel_l2"]["worst"] == pytest.approx(max(errors))
    assert summary["r2"]["worst"] == pytest.approx(min(float(row["r2"]) for row in rows))
    assert {"git_revision", "torch", "device", "source", "checkpoint"} <= summary.keys()
    assert f"{errors[0]:.5f}" in out


def test_evaluate_another_split_and_checkpoint(trained, capsys):
    arguments = ["evaluate", str(trained), "--split", "train", "--checkpoint", "last"]
    assert main([*arguments, "--rows", "3"]) == 0
    assert "10 cases of split train" in capsys.readouterr().out
    assert json.loads((trained / "evaluation/train.json").read_text())["checkpoint"] == "last"


def test_render(trained, capsys):
    assert main(["render", str(trained)]) == 0
    path = trained / "pictures" / "test.png"
    assert f"picture: {path}" in capsys.readouterr().out
    picture = imread(path)[..., :3]
    assert picture.shape[0] > 1000
    assert picture.shape[1] > 1000
    assert len({tuple(p) for p in (picture[::9, ::9] * 255).astype(int).reshape(-1, 3)}) > 100
    out = trained / "one.png"
    assert main(["render", str(trained), "--cases", "[cell_0019]", "--out", str(out)]) == 0
    assert imread(out).shape[0] < picture.shape[0]


def test_darcy_trains_from_its_yaml_and_reads_the_finer_grid(tmp_path, capsys):
    run = tmp_path / "run"
    config = str(CONFIGS / "darcy_small.yaml")
    arguments = ["--config", config, "--run", str(run), *TINY, "--epochs", "1"]
    assert main(["train", *arguments, "--data.root", str(DARCY)]) == 0
    assert main(["evaluate", str(run)]) == 0
    assert main(["evaluate", str(run), "--data.resolution", "32"]) == 0
    fine = json.loads((run / "evaluation" / "test_resolution-32.json").read_text())
    assert fine["data_options"] == {"resolution": 32}
    assert fine["source"] == "published"
    with (run / "evaluation" / "test_resolution-32.csv").open() as file:
        assert {row["points"] for row in csv.DictReader(file)} == {"1024"}
    assert "data" not in capsys.readouterr().err


def test_data_verbs(cells, tmp_path, capsys):
    root = tmp_path / "cells"
    generate = ["data", "generate", "elasticity", "--root", str(root), "--num_samples", "2"]
    assert main([*generate, "--workers", "1"]) == 0
    assert json.loads((root / "SOURCE.json").read_text())["generated"] is True
    assert main([*generate, "--workers", "1"]) == 0  # the same again: taken as it is
    assert "as they are" in capsys.readouterr().err
    assert main(["data", "inspect", "elasticity", "--root", str(cells)]) == 0
    out = capsys.readouterr().out
    assert "elasticity train, generated: 10 cases, 972 to 972 points" in out
    assert "y[0] von Mises stress [Pa]" in out


def test_help_and_version(capsys):
    assert main([]) == 0
    assert "evaluate" in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("flare-geo 0.")
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    assert "--weight_decay" in capsys.readouterr().out


@pytest.mark.parametrize("name", sorted(p.name for p in CONFIGS.glob("*.yaml")))
def test_every_shipped_yaml_is_understood(name, tmp_path, capsys):
    """It gets as far as the missing data."""
    arguments = ["--config", str(CONFIGS / name), "--data.root", str(tmp_path / "none")]
    assert main(["train", *arguments]) == 1
    assert "there is no such folder" in capsys.readouterr().err
