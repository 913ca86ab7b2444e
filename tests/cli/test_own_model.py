"""A model of the user's own: trained by its class path, opened by the configuration of its run."""

import shutil
import sys

import pytest
import yaml

from flare_geo.cli.main import main
from flare_geo.cli.run_folder import open_checkpoint
from flare_geo.mesh import read_mesh, write_mesh
from flare_geo.nn import Surrogate

MODULE = """
from enum import Enum

from torch import nn
from flare_geo.nn import FlareConv, PointModel

class OwnModel(PointModel):
    def __init__(self, in_channels, out_channels, width=8):
        super().__init__(in_channels, out_channels)
        self.first, self.last = nn.Linear(in_channels, width), nn.Linear(width, out_channels)
        self.conv = FlareConv(width, heads=2, num_latents=4)

    def forward(self, x, ptr=None, batch=None):
        return self.last(self.conv(self.first(x), ptr, batch))

class Kind(Enum):
    A = 1
    B = 10

class Scaled(OwnModel):
    def __init__(self, in_channels, out_channels, kind: Kind = Kind.A, **more):
        super().__init__(in_channels, out_channels)
        self.factor = kind.value * {"factor": 1.0, **more}["factor"]

    def forward(self, x, ptr=None, batch=None):
        return self.factor * super().forward(x, ptr, batch)

class NoPointModel(nn.Linear):
    pass
"""
NAME = "model_of_a_user"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the module, ten spheres, and a run that was trained there."""
    pv = pytest.importorskip("pyvista")
    folder = tmp_path_factory.mktemp("own")
    (folder / f"{NAME}.py").write_text(MODULE)
    for i in range(10):
        sphere = pv.Sphere(radius=1 + 0.1 * i, theta_resolution=8, phi_resolution=8)
        sphere["h"] = sphere.points[:, 2]
        write_mesh(sphere, folder / "d" / f"sphere_{i}.vtp")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        assert main([*train(folder), "--model", f"{NAME}.OwnModel", "--model.width", "16"]) == 0
    sys.modules.pop(NAME)
    return folder


def train(folder):
    words = ["train", "--data", "flare_geo.datasets.MeshFolderDataset", "--epochs", "1"]
    words += ["--data.root", str(folder / "d"), "--data.targets", "[h]", "--accelerator", "cpu"]
    return [*words, "--run", str(folder / "r")]


@pytest.fixture
def run(folder, tmp_path):
    """A copy of the run, while its module can be imported but is not yet."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield shutil.copytree(folder / "r", tmp_path / "r")
    sys.modules.pop(NAME, None)


def refused(arguments, capsys):
    capsys.readouterr()
    assert main([str(a) for a in arguments]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


@pytest.mark.parametrize("verb", ["evaluate", "render", "predict", "inspect", "report"])
def test_every_verb_opens_its_run(verb, run, folder, tmp_path, capsys):
    mesh = [str(folder / "d" / "sphere_0.vtp")] if verb == "predict" else []
    out = tmp_path / {"render": "a.png", "predict": "a.vtp", "report": "a.html"}.get(verb, "a")
    options = [] if verb == "evaluate" else ["--out", str(out)]
    assert main([verb, str(run), *mesh, *options]) == 0
    err = capsys.readouterr().err
    named = f"model {NAME}.OwnModel, imported from {folder / NAME}.py, named in {run}/config.yaml\n"
    assert err.startswith(named)
    assert (out if options else run / "evaluation" / "test.json").exists()
    if verb == "predict":
        assert "h predicted" in read_mesh(out).point_data


def test_the_options_of_the_run_are_its_own(run):
    surrogate, which = open_checkpoint(run)
    assert surrogate.model.first.weight.shape == (16, 3)
    assert which == "best"


def test_a_yaml_names_it_too(run, folder, tmp_path, capsys):
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["model"] = {"class_path": f"{NAME}.OwnModel", "init_args": {"width": 4}}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(config | {"run": str(tmp_path / "other")}))
    assert main(["train", "--config", str(tmp_path / "own.yaml")]) == 0
    assert f"model {NAME}.OwnModel, imported from {folder}" in capsys.readouterr().out
    assert open_checkpoint(tmp_path / "other")[0].model.first.weight.shape == (4, 3)


def test_nothing_is_imported_for_a_bare_checkpoint(run, folder, capsys):
    mesh = folder / "d" / "sphere_0.vtp"
    assert "class 'OwnModel'" in refused(["predict", run / "best", mesh], capsys)
    with pytest.raises(ValueError, match="class 'OwnModel'"):
        Surrogate.from_pretrained(run / "best")
    assert NAME not in sys.modules


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (f"{NAME}.NoPointModel", "which is not a subclass of flare_geo.nn.PointModel"),
        (f"{NAME}.Missing", "has no attribute 'Missing'"),
        ("no_such_module.Model", "No module named 'no_such_module'): is its folder on PYTHONPATH?"),
    ],
)
def test_what_is_no_model_is_refused_in_one_line(path, words, run, folder, capsys):
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["model"]["class_path"] = path
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    line = refused(["evaluate", run], capsys)
    assert line.startswith(f"flare-geo evaluate: {run / 'config.yaml'} names the model {path}")
    assert words in line


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (f"{NAME}.NoPointModel", "to be a subclass of <class 'PointModel'>"),
        (f"{NAME}.Missing", "has no attribute 'Missing'"),
        ("no_such_module.Model", "No module named 'no_such_module'; is its folder on PYTHONPATH?"),
    ],
)
def test_train_refuses_it_too(path, words, run, folder, tmp_path, capsys):
    assert main([*train(folder), "--run", str(tmp_path / "new"), "--model", path]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"flare-geo train: model {path}: ")
    assert line.endswith(words)
    assert not (tmp_path / "new").exists()


def test_arguments_that_yaml_does_not_know_arrive_as_in_training(folder, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(folder)
    words = [*train(folder)[:-1], str(tmp_path / "r"), "--model", f"{NAME}.Scaled"]
    assert main([*words, "--model.kind", "B", "--model.dict_kwargs.factor", "3"]) == 0
    assert open_checkpoint(tmp_path / "r")[0].model.factor == 30.0
