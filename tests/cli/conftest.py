import shutil

import pytest
from tests_cli import elasticity

from flare_geo.cli.main import main
from flare_geo.datasets import ElasticityDataset


@pytest.fixture(scope="session")
def cells(tmp_path_factory):
    """A generated elasticity set of 20 cells: 10 to train, 2 to validate, 2 to test."""
    root = tmp_path_factory.mktemp("cells")
    ElasticityDataset.generate(root, num_samples=20, workers=1)
    return root


@pytest.fixture(scope="session")
def trained(cells, tmp_path_factory):
    """A run on them, by the shipped YAML with a tiny model."""
    run = tmp_path_factory.mktemp("runs") / "trained"
    assert main(["train", *elasticity(cells, run), "--epochs", "2", "--val_every", "1"]) == 0
    return run


@pytest.fixture
def a_run(trained, tmp_path):
    """A copy of it that a test may spoil."""
    return shutil.copytree(trained, tmp_path / "run")
