"""Sequences through the same training as fields: loss, error rate, checkpoints, resume."""

import csv
import json

import pytest
import torch
from safetensors.torch import load_file
from toy import ToyDataset, make_toy

from flare_geo.cli.main import main
from flare_geo.cli.train import make_surrogate
from flare_geo.datasets import ListOpsDataset
from flare_geo.nn import SequenceClassifier

SMALL = {"hidden_channels": 16, "num_layers": 1, "heads": 2, "num_latents": 4, "init": "default"}


@pytest.fixture(scope="module")
def listops(tmp_path_factory):
    root = tmp_path_factory.mktemp("listops")
    sizes = {"num_train": 24, "num_val": 8, "num_test": 8}
    ListOpsDataset.generate(root, min_length=5, max_length=30, **sizes, workers=1)
    return root


def words(root, run, *more, model="SequenceClassifier"):
    data = {"class_path": "flare_geo.datasets.ListOpsDataset", "init_args": {"root": str(root)}}
    data["init_args"]["max_length"] = 30
    net = {"class_path": f"flare_geo.nn.{model}"}
    if model == "SequenceClassifier":
        net["init_args"] = SMALL
    given = ["--data", json.dumps(data), "--model", json.dumps(net), "--run", str(run)]
    return ["train", *given, "--batch_size", "8", "--lr", "5e-3", "--accelerator", "cpu", *more]


def test_a_run_learns_and_goes_on_where_it_was(listops, tmp_path, capsys):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert main(words(listops, whole, "--epochs", "40", "--val_every", "20")) == 0
    said = capsys.readouterr().out
    assert "24 training and 8 validation cases; SequenceClassifier with" in said
    assert "val error rate" in said
    with (whole / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "epoch", "step", "lr", "train/loss", "val/loss", "val/error_rate", "seconds"
    ]  # fmt: skip
    assert float(rows[-1]["train/loss"]) < 0.5 * float(rows[0]["train/loss"])
    assert 0 <= float(rows[-1]["val/error_rate"]) <= 1
    for name in ("best", "last"):
        assert isinstance(SequenceClassifier.from_pretrained(whole / name), SequenceClassifier)
        config = json.loads((whole / name / "config.json").read_text())
        assert config["dataset"]["source"]["generated"]
    state = torch.load(whole / "last.ckpt", weights_only=True)
    assert state["epoch"] == 39
    assert (whole / "learning_curve.png").is_file()
    capsys.readouterr()
    assert main(["evaluate", str(whole)]) == 0
    said = capsys.readouterr().out
    assert "listops, generated data: 8 sequences of split test" in said
    summary = json.loads((whole / "evaluation" / "test.json").read_text())
    with (whole / "evaluation" / "test.csv").open() as file:
        table = list(csv.DictReader(file))
    right = sum(row["class"] == row["predicted"] for row in table) / 8
    assert summary["accuracy"] == right
    assert f"accuracy {right:.4f}" in said
    assert main(words(listops, cut, "--epochs", "2")) == 0
    first = load_file(cut / "last" / "model.safetensors")
    assert all(torch.isfinite(t).all() for t in first.values())


def test_fields_are_not_classified(tmp_path):
    data = ToyDataset(make_toy(tmp_path))
    with pytest.raises(ValueError, match="toy has fields on points: a model such as"):
        make_surrogate(SequenceClassifier, data)


def test_one_line_says_what_does_not_fit(listops, tmp_path, capsys):
    def fails(*arguments, **options):
        assert main(words(listops, tmp_path / "run", "--epochs", "1", *arguments, **options)) == 1
        return capsys.readouterr().err.strip().splitlines()[-1]

    said = fails(model="Flare")
    assert "listops has sequences to be classified: --model flare_geo.nn.SequenceClassifier" in said
    assert "raw is for fields, listops has tokens" in fails("--raw", "[pos]")
