"""One road: files, folders, stores, queries, pictures, chunks and spill go together."""

import json
import subprocess
import sys

import numpy as np
import pytest
import pyvista as pv
import torch
from balls import ball, predict, surrogate_for

from flare_geo.cli import cases
from flare_geo.cli.pictures import Wanted
from flare_geo.datasets import MeshFolderDataset
from flare_geo.datasets.store import PackedStore
from flare_geo.mesh import ChunkedFile, read_mesh, write_mesh
from flare_geo.nn.surrogate import activations

FIELD = "stress [MPa]"


@pytest.fixture
def run(tmp_path):
    surrogate_for(tmp_path / "balls", tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def meshes(tmp_path):
    """A folder with two new balls."""
    for i in (7, 8):
        write_mesh(ball(i), tmp_path / "meshes" / f"ball_{i}.vtp")
    return tmp_path / "meshes"


@pytest.fixture
def store(run, tmp_path):
    """A packed store of the six balls of the surrogate."""
    data = MeshFolderDataset(
        tmp_path / "balls",
        splits={"train": 1.0},
        targets=["stress", "U"],
        units={"stress": "MPa", "pos": "mm"},
    )
    return data.path


@pytest.fixture
def opened(monkeypatch):
    """The files that are opened in chunks."""
    names, init = [], ChunkedFile.__init__

    def count(self, path):
        names.append(path.name)
        init(self, path)

    monkeypatch.setattr(ChunkedFile, "__init__", count)
    return names


def stress(path):
    return read_mesh(path)[FIELD]


@pytest.mark.parametrize("way", ["file", "folder", "query", "picture", "whole format", "store"])
def test_activations_are_spilled_whatever_else_is_asked_for(
    way, run, meshes, store, tmp_path, monkeypatch, capsys
):
    spill, folders, init = tmp_path / "spill", [], activations.FileActivations.__init__
    spill.mkdir()
    write_mesh(ball(7), tmp_path / "ball.vtk")
    mesh, out = meshes / "ball_7.vtp", tmp_path / "out.vtp"
    words = {
        "file": [mesh, "-o", out],
        "folder": [meshes, "-o", tmp_path / "out"],
        "query": [mesh, "-o", out, "--query", meshes / "ball_8.vtp"],
        "picture": [mesh, "-o", out, "--png", tmp_path / "a.png"],
        "whole format": [tmp_path / "ball.vtk", "-o", out],
        "store": [store, "-o", tmp_path / "out.h5"],
    }

    def count(self, like, folder):
        folders.append(folder)
        init(self, like, folder)

    monkeypatch.setattr(activations.FileActivations, "__init__", count)
    predict(run, *words[way], "--chunk_size", 20, "--spill", spill, capsys=capsys)
    assert folders.count(spill) == (2 if way == "folder" else 1)


def test_a_folder_goes_from_file_to_file_in_chunks(
    run, meshes, opened, tmp_path, monkeypatch, capsys
):
    predict(run, meshes, "-o", tmp_path / "whole", capsys=capsys)
    assert opened == []
    with monkeypatch.context() as patch:
        patch.setattr(cases, "read_mesh", lambda path: pytest.fail("read whole"))
        chunked = ["-o", tmp_path / "chunks", "--chunk_size", 20, "--spill", tmp_path]
        said = predict(run, meshes, *chunked, capsys=capsys)
    assert opened == ["ball_7.vtp", "ball_8.vtp"]
    assert said.out.count("relative L2") == 4
    for name in opened:
        close = np.testing.assert_allclose
        close(stress(tmp_path / "chunks" / name), stress(tmp_path / "whole" / name), rtol=1e-4)


def test_a_name_with_two_suffixes_keeps_its_fields(run, tmp_path, capsys):
    write_mesh(ball(1), tmp_path / "in" / "car2.stl.vtp")
    out = tmp_path / "out"
    for more in ([], ["--chunk_size", 20]):
        said = predict(run, tmp_path / "in", "-o", out, *more, capsys=capsys)
        assert f"{out / 'car2.stl.vtp'}\n" in said.out
        assert [path.name for path in out.iterdir()] == ["car2.stl.vtp"]
        assert len(stress(out / "car2.stl.vtp")) == ball(1).n_points


@pytest.mark.parametrize("more", [[], ["--chunk_size", "20"]])
def test_a_query_that_is_broken_is_named_and_not_the_mesh(run, meshes, tmp_path, more, capsys):
    (tmp_path / "junk.vtp").write_text("<VTKFile")
    words = ["--query", tmp_path / "junk.vtp", "-o", tmp_path / "x.vtp", *more]
    said = predict(run, meshes / "ball_7.vtp", *words, status=1, capsys=capsys)
    last = said.err.splitlines()[-1]
    assert last.startswith(f"flare-geo predict: {tmp_path / 'junk.vtp'}: not a whole .vtp file")
    assert "ball_7" not in last


def test_a_query_is_answered_for_every_mesh_of_a_folder(run, meshes, opened, tmp_path, capsys):
    write_mesh(pv.PolyData(0.5 * ball(0).points[:30]), tmp_path / "points.vtp")
    query = ["--query", tmp_path / "points.vtp", "--chunk_size", 13]
    said = predict(run, meshes, "-o", tmp_path / "out", *query, capsys=capsys)
    assert said.out.count("on 30 points") == 2
    assert opened.count("points.vtp") == 2
    answers = [stress(tmp_path / "out" / f"ball_{i}.vtp") for i in (7, 8)]
    assert not np.array_equal(*answers)
    for i, answer in zip((7, 8), answers, strict=True):
        alone = ["--query", tmp_path / "points.vtp", "-o", tmp_path / "alone.vtp"]
        predict(run, meshes / f"ball_{i}.vtp", *alone, capsys=capsys)
        np.testing.assert_allclose(stress(tmp_path / "alone.vtp"), answer, rtol=1e-4, atol=1e-5)


def test_pictures_of_the_cases_of_a_store(run, store, tmp_path, capsys):
    words = ["-o", tmp_path / "out.h5", "--html", tmp_path / "pages"]
    said = predict(run, store, *words, capsys=capsys)
    assert "relative L2" in said.out
    names = PackedStore(tmp_path / "out.h5").names
    assert sorted(p.name for p in (tmp_path / "pages").iterdir()) == [f"{n}.html" for n in names]
    wrong = predict(run, store, "--given.speed", 3, status=1, capsys=capsys)
    assert "is a packed store: no query, and nothing is to be given" in wrong.err


def test_pictures_of_a_folder_are_called_after_its_meshes(tmp_path):
    wanted = Wanted(png=tmp_path / "a", movie=tmp_path / "b").inside("car.1")
    assert wanted == Wanted(png=tmp_path / "a" / "car.1.png", movie=tmp_path / "b" / "car.1.gif")
    assert wanted
    assert not Wanted()


def test_a_result_that_cannot_be_written_is_refused_before_the_mesh_is_read(
    run, meshes, store, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("flare_geo.cli.predict.open_case", lambda *a, **k: pytest.fail("opened"))
    for mesh, out, words in (
        (meshes / "ball_7.vtp", tmp_path / "x.stl", "'.stl' holds no fields"),
        (meshes, tmp_path / "x.vtp", "is a folder: give a folder for --out"),
        (store, tmp_path / "x.vtp", "the prediction on a packed store is one too: write .h5"),
    ):
        assert words in predict(run, mesh, "-o", out, status=1, capsys=capsys).err


MEASURE = """
import json, sys
from flare_geo.cli import cases
from flare_geo.cli.main import main
from flare_geo.mesh import ChunkedFile

init, opened = ChunkedFile.__init__, []
def count(self, path):
    opened.append(path.name)
    init(self, path)
ChunkedFile.__init__ = count
peaks = []
for arguments in json.loads(sys.argv[1]):
    assert main(["predict", *arguments]) == 0
    peaks.append(1024 * int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]))
print(json.dumps([peaks, opened]))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_does_not_grow_with_the_files_of_a_folder(run, tmp_path):
    """Two grids of 200,000 points take what two of 20,000 take, in chunks of 20,000."""
    for name, layers in (("small", 8), ("large", 80)):
        for i in range(2):
            grid = pv.ImageData(dimensions=(50, 50, layers), spacing=(0.02, 0.02, 0.02 / (i + 1)))
            grid = grid.cast_to_unstructured_grid()
            grid["stress"], grid["U"] = grid.points[:, 2] * 3, grid.points
            write_mesh(grid, tmp_path / name / f"{name}_{i}.vtu")
    chunked = ["--chunk_size", "20000", "--spill", str(tmp_path)]
    calls = [[str(run), str(tmp_path / name), *chunked] for name in ("small", "large")]
    calls.append([str(run), str(tmp_path / "large"), "--out", str(tmp_path / "whole")])
    command = [sys.executable, "-c", MEASURE, json.dumps(calls)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (small, large, whole), opened = json.loads(done.stdout.splitlines()[-1])
    assert opened == ["small_0.vtu", "small_1.vtu", "large_0.vtu", "large_1.vtu"]
    assert large - small < 0.1 * (whole - small)
    for i in range(2):
        name = f"large_{i}.vtu"
        found, expected = (
            torch.from_numpy(stress(tmp_path / folder / name))
            for folder in ("large_predicted", "whole")
        )
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
