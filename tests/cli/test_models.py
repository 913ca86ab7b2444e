"""Any model by one flag, with the defaults of its own."""

import re

import pytest
import yaml
from safetensors.torch import load_file
from tests_cli import elasticity

from flare_geo.cli.main import main
from flare_geo.datasets import DATASETS

SMALL = ["--epochs", "1", "--val_every", "1"]
# The configuration has options of FLARE, which other mixers refuse.
LINEAR = ["--model.mixer", "linear", "--model.num_latents", "64", "--model.kv_layers", "null"]


def model_of(run):
    return yaml.safe_load((run / "config.yaml").read_text())["model"]


def test_one_flag_changes_the_mixer(cells, tmp_path):
    run = tmp_path / "run"
    assert main(["train", *elasticity(cells, run), *SMALL, *LINEAR]) == 0
    assert model_of(run)["init_args"]["mixer"] == "linear"
    weights = load_file(run / "last/model.safetensors")
    assert not any(name.endswith("conv.q") for name in weights), "the latents of FLARE"


@pytest.mark.parametrize("name", ["Transolver", "LNO"])
def test_another_model_does_not_get_the_defaults_of_flare(cells, tmp_path, name):
    run = tmp_path / "run"
    words = ["train", *elasticity(cells, run), *SMALL, "--model", f"flare_geo.nn.{name}"]
    assert main(words) == 0
    model = model_of(run)
    assert model["class_path"].endswith(name)
    assert model["init_args"].get("mixer", "transolver") == "transolver"


def test_an_argument_of_another_mixer_is_said(cells, tmp_path, capsys):
    words = [*LINEAR, "--model.mixer_args", '{"num_slices": 3}']
    assert main(["train", *elasticity(cells, tmp_path / "run"), *SMALL, *words]) == 1
    said = capsys.readouterr().err.strip().splitlines()
    assert said[-1].startswith("flare-geo train: mixer 'linear' takes kernel, divide, eps, got")
    assert main(["train", *elasticity(cells, tmp_path / "run"), "--model.mixer", "lineal"]) == 1
    assert "mixer must be one of flare, " in capsys.readouterr().err
    assert main(["train", *elasticity(cells, tmp_path / "run"), *LINEAR[:2]]) == 1
    assert (
        "num_latents=4, kv_layers=1: without effect beside mixer 'linear'"
        in capsys.readouterr().err
    )


def test_only_data_sets_that_can_be_made_are_offered(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    offered = set(re.findall(r"flare_geo\.datasets\.[\w.]+Dataset", capsys.readouterr().out))
    assert offered == {f"flare_geo.datasets.{cls.__name__}" for cls in DATASETS.values()}


def test_what_a_backend_or_a_short_option_cannot_do_is_one_line(cells, tmp_path, capsys):
    words = ["train", *elasticity(cells, tmp_path / "run"), *SMALL]
    assert main([*words, "--model.backend", "cpp", "--precision", "64-true"]) == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("flare-geo train: backend 'cpp' computes float32, got torch.float64")
    assert main([*words, "--device", "cpu"]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
