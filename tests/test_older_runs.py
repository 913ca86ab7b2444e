"""Runs and checkpoints made by revision 8516c32 load, predict the same and go on."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from closeness import close
from safetensors.torch import load_file
from torch_geometric.data import Data

from flare_geo.cli.main import main
from flare_geo.datasets import ListOpsDataset
from flare_geo.mesh import read_mesh
from flare_geo.nn import SequenceClassifier, Surrogate

DATA = Path(__file__).parent / "data" / "runs_8516c32"
RUNS = sorted(path.name for path in (DATA / "runs").iterdir())
CHECKPOINTS = sorted(path.name for path in (DATA / "checkpoints").iterdir())
BITS = os.environ.get("FLARE_GEO_SAME_BITS") == "1"
"""Bits are only the same on the CPU and with the versions of SOURCE.txt: asked for by hand."""
STEPS, RATE = 8, 1e-2
"""Of a whole run. Adam's step is as long for a gradient that is only rounding."""


@pytest.fixture(scope="module")
def expected():
    with np.load(DATA / "expected.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A copy, in the current folder: the runs name their data relative to it."""
    for name in ("runs", "meshes", "listops"):
        shutil.copytree(DATA / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def same(found, wanted):
    if BITS:
        assert torch.equal(found, wanted)
    close(found, wanted, terms=64, roundings=64)  # the sums of a small model one after another


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_checkpoint_predicts_the_same(name, expected):
    surrogate = Surrogate.from_pretrained(DATA / "checkpoints" / name).eval()
    with torch.no_grad():
        found = surrogate(Data(pos=expected["x"], ptr=torch.tensor([0, 9, 24])))
    same(found, expected[f"checkpoints/{name}"])


@pytest.mark.filterwarnings("ignore:The loaded checkpoint was produced with Lightning")  # a newer
@pytest.mark.parametrize("name", RUNS)
def test_a_run_predicts_the_same_goes_on_and_is_evaluated(name, here, expected):
    best, run = here / "runs" / name / "best", here / "runs" / name
    if "classifier" in name:
        case = ListOpsDataset("listops", "test", max_length=30)[0]
        with torch.no_grad():
            found = SequenceClassifier.from_pretrained(best).eval()(case.token, case.pos)
        same(found, expected[f"best/{name}"])
    else:
        mesh = Surrogate.from_pretrained(best).predict(read_mesh("meshes/part_3.vtp"))
        for field in ("pressure [Pa]", "u [mm]"):
            same(torch.as_tensor(mesh[field]), expected[f"best/{name}/{field}"])
    before = (run / "metrics.csv").read_text().splitlines()
    assert main(json.loads((run / "words.json").read_text())) == 0
    after = (run / "metrics.csv").read_text().splitlines()
    assert after[:2] == before, "the first epoch was not trained again"
    assert [line.split(",")[0] for line in after[1:]] == ["0", "1"]
    for key, weight in load_file(run / "last" / "model.safetensors").items():
        wanted = expected[f"last/{name}/{key}"]
        assert torch.equal(weight, wanted) or not BITS
        assert (weight - wanted).abs().max() <= STEPS * RATE
    assert main(["evaluate", str(run)]) == 0
    assert json.loads((run / "evaluation" / "test.json").read_text())


def test_a_classifier_is_not_a_surrogate_of_fields(here, capsys):
    assert main(["report", "runs/classifier"]) == 1
    said = capsys.readouterr().err.strip()
    assert said == (
        "flare-geo report: runs/classifier is the run of a classifier of sequences, without fields "
        "on points: flare-geo evaluate runs/classifier has its accuracy"
    )
