"""The examples run as they are, on small data, and leave what they say."""

import runpy
import sys
from pathlib import Path

import pytest
import torch

from flare_geo.mesh import read_mesh
from flare_geo.nn import Surrogate

EXAMPLES = Path(__file__).parents[1] / "scripts" / "examples"
ALL = sorted(EXAMPLES.glob("*.py"))

pytest.importorskip("pyvista", reason="the viz extra is not installed")
pytest.importorskip("lightning", reason="the train extra is not installed")


@pytest.fixture
def example(monkeypatch, capsys):
    """Run the example with a number, with options; returns what it prints."""

    def run(number, **options):
        (path,) = EXAMPLES.glob(f"{number}_*.py")
        words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
        monkeypatch.setattr(sys, "argv", [str(path), *words])
        monkeypatch.setattr("os.cpu_count", lambda: 1)  # no processes for so few cases
        runpy.run_path(str(path), run_name="__main__")
        return capsys.readouterr().out

    return run


def names(folder):
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def pictures(monkeypatch):
    """Smaller ones, for speed."""
    monkeypatch.setattr("flare_geo.viz.render.theme.FIELD_PANEL", (320, 320))


def test_they_are_numbered_short_and_do_nothing_when_imported():
    assert [int(path.name[:2]) for path in ALL] == list(range(1, len(ALL) + 1))
    for path in ALL:
        assert len(path.read_text().splitlines()) < 60, path
        assert "main" in runpy.run_path(str(path))


def test_train_and_explain(tmp_path, example):
    data, out = tmp_path / "data", tmp_path / "out"
    said = example("01", data=data, out=out, cells=10, epochs=1)
    assert "unseen cell_0009: relative L2" in said
    assert names(out) == {"surrogate", "unseen.png"}
    checkpoint = out / "surrogate"
    surrogate = Surrogate.from_pretrained(checkpoint)
    assert [f.label for f in surrogate.outputs] == ["von Mises stress [Pa]"]
    assert surrogate.output_scaler.mean > 1  # fitted

    said = example("05", data=data, checkpoint=checkpoint, out=tmp_path / "inside", block=1)
    assert said.count("modes in use of 64") == 3
    assert said.splitlines()[-1].startswith("suggested number of latents: ")
    assert names(tmp_path / "inside") == {"encode.png", "decode.png", "spectra.png"}


def test_predict_the_displacement_of_a_part(tmp_path, example, pictures):
    data, out = tmp_path / "data", tmp_path / "out"
    said = example("02", data=data, out=out, parts=11, voxel=2.5, epochs=1)
    assert "relative L2 of the displacement" in said
    assert {"part.vtu", "simulated.png", "predicted.png", "best"} <= names(out)
    part = read_mesh(out / "part.vtu")
    assert part["predicted"].shape == part["simulated"].shape == (part.n_points, 3)
    assert set(part.celltypes.tolist()) == {12}  # hexahedra


def test_flareconv_sees_what_two_local_layers_do_not(example):
    without, with_it = example("03", graphs=120).splitlines()
    assert without.startswith("without FlareConv: mean error of a distance 0.")
    # Seeds end at 0.28 to 0.40 of it.
    assert float(with_it.split()[-1]) < 0.8 * float(without.split()[-1])


def test_bring_your_own_meshes(tmp_path, example, pictures):
    data, out = tmp_path / "data", tmp_path / "out"
    example("04", data=data, out=out, meshes=10, epochs=1)
    (file,) = out.glob("body_*.vtp")  # a tenth is held out
    mesh, own = read_mesh(file), read_mesh(data / file.name)
    assert sorted(mesh.array_names) == ["cp", "cp predicted"]
    assert torch.equal(torch.tensor(mesh.points), torch.tensor(own.points))
    assert own["cp"].shape == (own.n_points,)
    assert (out / "unseen.png").is_file()
