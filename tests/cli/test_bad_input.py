"""One clear line, a non-zero exit, and nothing lost."""

import shutil

import numpy as np
import pytest
import yaml
from tests_cli import CONFIGS, elasticity

from flare_geo.cli.main import main

XY, SIGMA = "Random_UnitCell_XY_10.npy", "Random_UnitCell_sigma_10.npy"


def refused(arguments, capsys, status=1):
    capsys.readouterr()
    assert main([str(a) for a in arguments]) == status
    err = capsys.readouterr().err.strip()
    assert len(err.splitlines()) == 1, err
    return err


def test_missing_folder_says_how_to_get_the_data(tmp_path, capsys):
    root = tmp_path / "none"
    err = refused(["train", *elasticity(root, tmp_path / "run")], capsys)
    assert f"no {XY} in or below {root} (there is no such folder)" in err
    assert "https://" in err
    assert f"flare-geo data generate elasticity --root {root}" in err
    assert not (tmp_path / "run").exists()


def test_array_of_a_wrong_shape(cells, tmp_path, capsys):
    root = tmp_path / "cells"
    shutil.copytree(cells, root, ignore=shutil.ignore_patterns("processed"))
    np.save(root / SIGMA, np.load(root / SIGMA).T)
    err = refused(["train", *elasticity(root, tmp_path / "run")], capsys)
    assert SIGMA in err
    assert "(972, 20)" in err or "972, 20" in err
    assert "20, 972" in err


def test_nan_in_a_field(cells, tmp_path, capsys):
    root = tmp_path / "cells"
    shutil.copytree(cells, root, ignore=shutil.ignore_patterns("processed"))
    sigma = np.load(root / SIGMA)
    sigma[12, 3] = np.nan
    np.save(root / SIGMA, sigma)
    err = refused(["train", *elasticity(root, tmp_path / "run")], capsys)
    assert (
        "1 case is not sound: cell_0003: field 'y' holds 1 non-finite values (first at point 12)"
        in err
    )


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"epochz": 3}, "epochz"),
        ({"model": {"class_path": "flare_geo.nn.Flare", "init_args": {"width": 3}}}, "width"),
        (
            {"data": {"class_path": "ElasticityDataset", "init_args": {"root": "x", "rooot": "y"}}},
            "rooot",
        ),
    ],
)
def test_unknown_option_in_a_yaml(change, name, tmp_path, capsys):
    config = yaml.safe_load((CONFIGS / "elasticity.yaml").read_text())
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump({**config, **change}))
    err = refused(["train", "--config", tmp_path / "bad.yaml"], capsys, status=2)
    assert name in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--lr", "fast"], "lr"),
        (["train", "--config", "nowhere.yaml"], "does not exist"),
        (["train"], "required: data, run"),
        (
            ["fly"],
            "no verb 'fly'; there are train, evaluate, render, predict, inspect,",
        ),
        (["data", "generate"], "data generate: choose one of elasticity, darcy,"),
    ],
)
def test_wrong_usage(arguments, words, capsys):
    assert words in refused(arguments, capsys, status=2)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["data", "generate", "darcy_small", "--root", "x"], "darcy_small has no generator"),
        (["data", "download", "mesh_folder", "--root", "x"], "mesh_folder has no download"),
        (["evaluate", "nowhere"], "no run at nowhere"),
    ],
)
def test_what_is_not_there(arguments, words, capsys):
    assert words in refused(arguments, capsys)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--split", "tset"], "elasticity has no split 'tset', only train, val, test"),
        (["--data.resolution", "3"], "resolution"),
        (["--device", "gpuu"], "device must be auto, cpu or cuda, got 'gpuu'"),
    ],
)
def test_evaluate_with_wrong_options(trained, arguments, words, capsys):
    assert words in refused(["evaluate", trained, *arguments], capsys)


def test_render_of_what_is_not_there(trained, capsys):
    err = refused(["render", trained, "--cases", "[nope]"], capsys)
    assert "no case 'nope' in split test; its cases are cell_0018 to cell_0019" in err
    assert "channel must be 0 to 0" in refused(["render", trained, "--channel", "2"], capsys)


def test_checkpoint_of_other_channels(a_run, capsys):
    config = yaml.safe_load((a_run / "config.yaml").read_text())
    darcy = CONFIGS.parents[1] / "tests" / "data" / "darcy"
    config["data"] = {
        "class_path": "flare_geo.datasets.SmallDarcyDataset",
        "init_args": {"root": str(darcy)},
    }
    (a_run / "config.yaml").write_text(yaml.safe_dump(config))
    err = refused(["evaluate", a_run], capsys)
    assert "the checkpoint predicts 1 channels (von Mises stress), darcy_small has 1 (u)" in err


def test_damaged_checkpoints(a_run, capsys):
    weights = a_run / "best" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    assert "is damaged" in refused(["evaluate", a_run], capsys)
    weights.write_bytes(whole)
    config = a_run / "best" / "config.json"
    config.write_text(config.read_text().replace('"hidden_channels": 8', '"hidden_channels": 16'))
    assert "does not fit its model: size mismatch" in refused(["evaluate", a_run], capsys)
    weights.unlink()
    assert "it has no model.safetensors" in refused(["evaluate", a_run], capsys)


def test_another_configuration_does_not_go_over_a_run(cells, a_run, capsys):
    before = (a_run / "last.ckpt").read_bytes()
    err = refused(["train", *elasticity(cells, a_run), "--epochs", "9"], capsys)
    assert "holds a run with epochs=2, now it is 9: choose another --run" in err
    assert (a_run / "last.ckpt").read_bytes() == before
