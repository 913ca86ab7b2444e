"""scripts/compare.py on a few cells: every row is a run of the command line, and is marked."""

import importlib.util
import json
from pathlib import Path

import pytest
import yaml

from flare_geo.datasets import ElasticityDataset
from flare_geo.nn import MIXERS, Surrogate

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.fixture
def compare():
    spec = importlib.util.spec_from_file_location("compare", SCRIPTS / "compare.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_one_command_makes_the_table(compare, tmp_path, capsys):
    ElasticityDataset.generate(tmp_path / "data", num_samples=20, workers=1)
    config = yaml.safe_load(compare.CONFIG.read_text())
    config["data"]["init_args"] |= {"root": str(tmp_path / "data"), "num_points": 40}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    words = ["--names", "flare", "transolver_conv2d", "LNO", "--seeds", "0", "--epochs", "1"]
    words += ["--config", tmp_path / "config.yaml", "--runs", tmp_path / "runs", "--jobs", "2"]
    words += ["--seconds", "0.01", "--out", tmp_path / "out"]
    assert compare.main([str(word) for word in words]) == 0
    result = json.loads((tmp_path / "out" / "elasticity.json").read_text())
    assert result["data"] == "generated: elasticity"
    assert {row["name"] for row in result["rows"]} == {"flare", "LNO"}
    for row in result["rows"]:
        surrogate = Surrogate.from_pretrained(tmp_path / "runs" / f"{row['name']}_0" / "last")
        assert row["parameters"] == sum(p.numel() for p in surrogate.model.parameters())
        assert row["rel_l2"] > 0
        assert row["step_seconds"] > 0
        assert row["peak_resident_bytes"] > 5e7
    text = (tmp_path / "out" / "elasticity.md").read_text()
    assert "(generated data)" in text
    assert "Not here: `transolver_conv2d`, needs a grid" in text
    capsys.readouterr()
    assert compare.main([str(word) for word in words]) == 0  # nothing is trained again


def test_all_mixers_are_compared(compare):
    assert set(MIXERS) >= set(compare.ARGUMENTS) | set(compare.POINTS) | set(compare.LEFT_OUT)
    text = (SCRIPTS / "compare" / "elasticity.md").read_text()
    for name in [*MIXERS, *compare.MODELS]:
        assert f"`{name}`" in text, f"{name} is not in the table: run scripts/compare.py"
