"""Mesh in, mesh out: the fields of a surrogate on a mesh file of the user's own."""

import errno
import json
import re
import shutil
import warnings

import numpy as np
import pytest
import pyvista as pv
import torch
import trimesh
from balls import ball, model, predict, surrogate_for
from matplotlib.image import imread
from torch_geometric.transforms import Compose

from flare_geo.cli.cases import read_case
from flare_geo.cli.train import make_surrogate
from flare_geo.datasets import DrivAerMLDataset, MeshFolderDataset
from flare_geo.datasets.store import PackedStore
from flare_geo.mesh import read_mesh, write_mesh
from flare_geo.nn import Surrogate
from flare_geo.nn.surrogate.activations import FileActivations
from flare_geo.transforms import AssembleFeatures, Rotate, SpaceFillingOrder, Subsample, UnitBox

FAR = np.array([1.2e4, -3.0e3, 500.0])  # mm


@pytest.fixture
def run(tmp_path):
    surrogate_for(tmp_path / "balls", tmp_path / "run")
    return tmp_path / "run"


def test_the_mesh_comes_back_as_it_was_with_the_fields_on_it(run, tmp_path, capsys):
    mesh = pv.Sphere(radius=2, theta_resolution=30, phi_resolution=20)
    mesh = pv.PolyData(mesh.points.astype(np.float64) + FAR, mesh.faces)
    mesh["part"] = np.arange(mesh.n_points)
    mesh.cell_data["zone"] = np.arange(mesh.n_cells)
    mesh.field_data["note"] = ["mine"]
    write_mesh(mesh, tmp_path / "far.vtp")
    png, out = tmp_path / "far.png", tmp_path / "sub" / "out.vtp"
    said = predict(run, tmp_path / "far.vtp", "-o", out, "--png", png, capsys=capsys)
    assert f"far.vtp: stress [MPa], U on {mesh.n_points} points: {out}" in said.out
    assert (
        "input x [mm] reaches from 11998 to 12002, in training it went from -1.4095 to 1.5"
        in said.err
    )
    back = pv.read(out)
    assert back.points.dtype == np.float64
    np.testing.assert_array_equal(back.points, mesh.points)
    np.testing.assert_array_equal(back.faces, mesh.faces)
    for name, data in (("part", back.point_data), ("zone", back.cell_data)):
        np.testing.assert_array_equal(data[name], mesh[name])
    assert back.field_data["note"] == ["mine"]
    surrogate = Surrogate.from_pretrained(run / "best")
    case = read_case(surrogate, tmp_path / "far.vtp")[1]
    expected = surrogate.predict(case).pred
    np.testing.assert_array_equal(back.point_data["stress [MPa]"], expected[:, 0])
    np.testing.assert_array_equal(back.point_data["U"], expected[:, 1:])
    assert imread(png).std() > 0.05


def test_in_chunks(run, tmp_path, capsys):
    write_mesh(ball(7), tmp_path / "ball.vtp")
    whole, chunked = tmp_path / "whole.vtp", tmp_path / "chunks.vtp"
    predict(run, tmp_path / "ball.vtp", "-o", whole, capsys=capsys)
    said = predict(run, tmp_path / "ball.vtp", "-o", chunked, "--chunk_size", "13", capsys=capsys)
    assert re.search(r"ball.vtp: 100%.* \d+/\d+ .*points/s", said.err)
    assert "0.0 MiB of activations between blocks: in memory" in said.err
    assert "is read whole" not in said.err
    a, b = (pv.read(path) for path in (whole, chunked))
    assert set(a.point_data.keys()) == set(b.point_data.keys())
    for name in ("stress [MPa]", "U predicted"):
        np.testing.assert_allclose(a[name], b[name], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(a.points, b.points)
    np.testing.assert_array_equal(a.faces, b.faces)
    wrong = predict(run, tmp_path / "ball.vtp", "--chunk_size", "0", status=1, capsys=capsys)
    assert "chunk_size must be at least 1, got 0" in wrong.err
    wrong = predict(run, tmp_path / "ball.vtp", "--spill", tmp_path, status=1, capsys=capsys)
    assert "spill is for a prediction in chunks: give --chunk_size too" in wrong.err
    there = ["--chunk_size", "9", "--spill", tmp_path / "no"]
    wrong = predict(run, tmp_path / "ball.vtp", *there, status=1, capsys=capsys)
    assert f"spill must be a folder, there is none at {tmp_path / 'no'}" in wrong.err


def test_a_mesh_answers_at_the_points_of_another(run, tmp_path, capsys):
    """At points of its own as on the whole mesh; elsewhere too."""
    mesh = ball(7)
    write_mesh(mesh, tmp_path / "ball.vtp")
    points = np.concatenate([mesh.points[10:30], 0.5 * mesh.points[:5]])
    write_mesh(pv.PolyData(points), tmp_path / "points.vtp")
    predict(run, tmp_path / "ball.vtp", "-o", tmp_path / "whole.vtp", capsys=capsys)
    query = ["--query", tmp_path / "points.vtp", "--chunk_size", "7"]
    said = predict(run, tmp_path / "ball.vtp", *query, "-o", tmp_path / "q.vtp", capsys=capsys)
    assert "points.vtp: stress [MPa], U on 25 points" in said.out
    whole, answers = (pv.read(tmp_path / f"{name}.vtp")["stress [MPa]"] for name in ("whole", "q"))
    np.testing.assert_allclose(answers[:20], whole[10:30], rtol=1e-4, atol=1e-5)
    alone = predict(run, tmp_path / "points.vtp", "-o", tmp_path / "alone.vtp", capsys=capsys)
    assert "25 points" in alone.out
    assert np.abs(pv.read(tmp_path / "alone.vtp")["stress [MPa]"] - answers).max() > 1e-3


def test_errors_in_chunks_are_those_of_the_whole(run, tmp_path, capsys):
    write_mesh(ball(7), tmp_path / "ball.vtp")
    whole = predict(run, tmp_path / "ball.vtp", "--out", tmp_path / "a.vtp", capsys=capsys)
    chunks = ["--out", tmp_path / "b.vtp", "--chunk_size", "10", "--spill", tmp_path]
    said = predict(run, tmp_path / "ball.vtp", *chunks, capsys=capsys)
    lines = [text.out.splitlines()[1:] for text in (whole, said)]
    assert len(lines[0]) == 2
    numbers = [[float(n) for n in re.findall(r"-?\d+\.\d+", " ".join(text))] for text in lines]
    assert len(numbers[0]) >= 6
    np.testing.assert_allclose(*numbers, rtol=1e-3, atol=1e-4)


def test_what_needs_the_whole_mesh_gets_it(run, tmp_path, capsys):
    write_mesh(ball(7), tmp_path / "ball.vtk")
    said = predict(run, tmp_path / "ball.vtk", "--chunk_size", "20", capsys=capsys)
    assert "ball.vtk is read whole: only .vtu and .vtp go from file to file" in said.err
    assert (tmp_path / "ball_predicted.vtp").is_file()


def test_a_transform_of_whole_clouds_gets_them(tmp_path, capsys):
    surrogate_for(tmp_path / "balls", tmp_path / "run", transform=UnitBox())
    write_mesh(ball(7), tmp_path / "ball.vtp")
    whole, chunked = tmp_path / "whole.vtp", tmp_path / "chunks.vtp"
    predict(tmp_path / "run", tmp_path / "ball.vtp", "-o", whole, capsys=capsys)
    chunks = ["-o", chunked, "--chunk_size", "20"]
    said = predict(tmp_path / "run", tmp_path / "ball.vtp", *chunks, capsys=capsys)
    assert "ball.vtp is read whole: the transform of the inputs needs all points" in said.err
    a, b = (pv.read(path)["stress [MPa]"] for path in (whole, chunked))
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_in_chunks_too_no_array_is_there_twice_and_a_zero_truth_is_said(run, tmp_path, capsys):
    mesh = ball(7)
    mesh["stress"] = np.zeros(mesh.n_points)
    write_mesh(mesh, tmp_path / "zero.vtp")
    said = predict(run, tmp_path / "zero.vtp", "--chunk_size", "20", capsys=capsys)
    assert "  stress [MPa]: the truth is zero everywhere, largest error" in said.out
    assert "  U: relative L2" in said.out
    mesh["U predicted"] = mesh["U"]
    write_mesh(mesh, tmp_path / "twice.vtp")
    wrong = predict(run, tmp_path / "twice.vtp", "--chunk_size", "20", status=1, capsys=capsys)
    assert "has a point array 'U predicted' already" in wrong.err.splitlines()[-1]
    assert not (tmp_path / "twice_predicted.vtp").exists()


def test_a_packed_store_is_predicted_from_file_to_file(run, tmp_path, capsys):
    data = MeshFolderDataset(
        tmp_path / "balls",
        splits={"train": 1.0},
        targets=["stress", "U"],
        units={"stress": "MPa", "pos": "mm"},
    )
    out = tmp_path / "pred.h5"
    said = predict(run, data.path, "-o", out, "--chunk_size", "50", capsys=capsys)
    assert f"pred on 390 points of 6 cases: {out}" in said.out
    surrogate = Surrogate.from_pretrained(run / "best")
    result = PackedStore(out)
    assert result.names == data.store.names
    assert result.find_damage() == []
    assert result.attrs["channels"]["pred"][0] == {"name": "stress", "unit": "MPa"}
    for i, case in enumerate(data):
        assert torch.equal(result[i].pos, case.pos)
        assert torch.equal(result[i].face, case.face)
        expected = surrogate.predict(case).pred
        torch.testing.assert_close(result[i].pred, expected, rtol=1e-4, atol=1e-5)
    wrong = predict(run, data.path, "-o", tmp_path / "x.vtu", status=1, capsys=capsys)
    assert "the prediction on a packed store is one too: write .h5" in wrong.err


def test_a_full_disk_leaves_no_result(run, tmp_path, capsys, monkeypatch):
    write_mesh(ball(7), tmp_path / "ball.vtp")

    def full(self, at, h):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(FileActivations, "write", full)
    before = sorted(tmp_path.iterdir())
    wrong = predict(run, tmp_path / "ball.vtp", "--chunk_size", "20", status=1, capsys=capsys)
    assert "No space left on device" in wrong.err.splitlines()[-1]
    assert "free some space and run the command again" in wrong.err.splitlines()[-1]
    assert sorted(tmp_path.iterdir()) == before


def test_a_damaged_spill_file_leaves_no_result(run, tmp_path, capsys, monkeypatch):
    write_mesh(ball(7), tmp_path / "ball.vtp")
    write = FileActivations.write

    def damage(self, at, h):
        write(self, at, h)
        self.file.seek(at.start * self.row + 3)
        self.file.write(b"\xff\xff")

    monkeypatch.setattr(FileActivations, "write", damage)
    before = sorted(tmp_path.iterdir())
    there = ["--chunk_size", "20", "--spill", tmp_path]
    wrong = predict(run, tmp_path / "ball.vtp", *there, status=1, capsys=capsys)
    last = wrong.err.splitlines()[-1]
    assert last.startswith("flare-geo predict: the file of activations in")
    assert "is damaged at point 0: nothing was written as a result" in last
    assert sorted(tmp_path.iterdir()) == before


def test_errors_are_printed_where_the_mesh_has_the_truth(run, tmp_path, capsys):
    mesh = ball(2)
    write_mesh(mesh, tmp_path / "a.vtp")
    out = tmp_path / "b.vtp"
    said = predict(
        run, tmp_path / "a.vtp", "--out", out, "--png", tmp_path / "a.png", capsys=capsys
    )
    assert not said.err
    back = pv.read(out)
    np.testing.assert_array_equal(back["stress"], mesh["stress"])  # the truth stays
    np.testing.assert_array_equal(back["U"], mesh["U"])
    for label, truth in (("stress [MPa]", "stress"), ("U predicted", "U")):
        error = np.linalg.norm(back[label] - mesh[truth]) / np.linalg.norm(mesh[truth])
        assert f"  {label.removesuffix(' predicted')}: relative L2 {error:.5f}" in said.out
    height, width = imread(tmp_path / "a.png").shape[:2]
    assert width > 1.5 * height  # truth, prediction and error side by side


@pytest.mark.parametrize("suffix", [".stl", ".obj", ".ply", ".vtu", ".vtk"])
def test_formats(run, tmp_path, suffix, capsys):
    mesh = pv.Sphere(theta_resolution=9, phi_resolution=9)
    mesh = mesh.cast_to_unstructured_grid() if suffix == ".vtu" else mesh
    write_mesh(mesh, tmp_path / f"part{suffix}")
    predict(run, tmp_path / f"part{suffix}", capsys=capsys)
    end = ".vtu" if suffix == ".vtu" else ".vtp"
    back = read_mesh(tmp_path / f"part_predicted{end}")
    assert back.n_points == mesh.n_points
    assert back.point_data["U"].shape == (mesh.n_points, 3)


def test_folder(run, tmp_path, capsys):
    (tmp_path / "balls" / "broken.vtp").write_text("<VTKFile")
    out = tmp_path / "out"
    said = predict(run, tmp_path / "balls", "-o", out, "--png", out, status=1, capsys=capsys)
    assert "failed: " in said.err
    assert "1 of 7 meshes failed: broken.vtp" in said.err
    names = [f"ball_{i}.{end}" for i in range(6) for end in ("png", "vtp")]
    assert sorted(p.name for p in out.iterdir()) == sorted(names)


def test_in_python_and_for_other_libraries(tmp_path):
    surrogate = surrogate_for(tmp_path / "balls")
    mesh = ball(1)
    before = mesh.copy()
    result = surrogate.predict(mesh)
    assert mesh == before
    assert result.point_data["stress [MPa]"].shape == (mesh.n_points,)
    tri = trimesh.Trimesh(mesh.points, mesh.regular_faces, process=False)
    other = surrogate.predict(tri)
    assert isinstance(other, trimesh.Trimesh)
    np.testing.assert_allclose(
        other.vertex_attributes["stress [MPa]"], result["stress [MPa]"], atol=1e-5
    )
    with pytest.raises(TypeError, match=r"expected a PyG Data .* or a mesh of .*, got str"):
        surrogate.predict("mesh.vtp")


def test_inputs_are_derived_read_and_given(tmp_path, capsys):
    table = "name,speed\n" + "".join(f"ball_{i},{i}\n" for i in range(6))
    (tmp_path / "balls").mkdir()
    (tmp_path / "balls" / "table.csv").write_text(table)
    options = {"inputs": ["normal", "stress", "speed"], "targets": ["U"]}
    surrogate = surrogate_for(
        tmp_path / "balls", tmp_path / "run", globals_file="table.csv", units={}, **options
    )
    mesh = ball(3)
    case = surrogate.case_of(mesh, {"speed": 3})
    data = MeshFolderDataset(
        tmp_path / "balls", splits={"train": 1.0}, globals_file="table.csv", **options
    )
    (same,) = (c for c in data if c.name == "ball_3")
    torch.testing.assert_close(case.x, same.x)
    assert torch.equal(case.pos, same.pos)
    write_mesh(mesh, tmp_path / "a.vtp")
    said = predict(tmp_path / "run", tmp_path / "a.vtp", status=1, capsys=capsys)
    assert "needs the point array 'speed', the mesh has Normals, U, stress" in said.err
    assert len(said.err.strip().splitlines()) == 1
    assert not (tmp_path / "a_predicted.vtp").exists()
    predict(tmp_path / "run", tmp_path / "a.vtp", "--given.speed", 3, capsys=capsys)
    mesh.point_data.remove("stress")
    with pytest.raises(ValueError, match="needs the point array 'stress', the mesh has Normals, U"):
        surrogate.case_of(mesh, {"speed": 3})


def test_transforms_are_applied_and_undone(tmp_path):
    turn = Rotate(vectors=["y[1:4]", "x"], angle=90.0)
    steps = [AssembleFeatures(["normal"]), turn, SpaceFillingOrder(), UnitBox([-2] * 3, [2] * 3)]
    draw = [Subsample(20, seed=0), Rotate(vectors=["y[1:4]"])]
    from flare_geo.transforms import Normals

    way = Compose([Normals(), *steps])
    surrogate = surrogate_for(tmp_path / "balls", tmp_path / "run", transform=way)
    loaded = Surrogate.from_pretrained(tmp_path / "run" / "best")
    mesh = ball(2)
    result = loaded.predict(mesh)
    case = way(_plain(tmp_path))
    order = case.curve_order[:, 0]
    pred = surrogate.predict(case).pred
    stress = torch.empty(len(pred)).index_copy_(0, order, pred[:, 0])
    np.testing.assert_allclose(result["stress [MPa]"], stress, atol=1e-5)
    turned = torch.empty(len(pred), 3).index_copy_(0, order, pred[:, 1:])  # (u, v) -> (-v, u)
    back = torch.stack([turned[:, 1], -turned[:, 0], turned[:, 2]], dim=1)
    np.testing.assert_allclose(result["U predicted"], back, atol=1e-5)
    random = surrogate_for(tmp_path / "balls", transform=Compose(draw))
    assert surrogate_predicts_all(random, mesh)


def _plain(tmp_path):
    options = {"targets": ["stress", "U"], "splits": {"train": 1.0}}
    return next(c for c in MeshFolderDataset(tmp_path / "balls", **options) if c.name == "ball_2")


def surrogate_predicts_all(surrogate, mesh):
    return surrogate.predict(mesh)["stress [MPa]"].shape == (mesh.n_points,)


def test_no_warning_inside_the_training_range(tmp_path):
    surrogate = surrogate_for(tmp_path / "balls")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        surrogate.predict(ball(2))
    with pytest.warns(UserWarning, match=r"input z \[mm\] reaches .* outside by 1 times"):
        surrogate.predict(ball(5).translate((0, 0, 3)))


def test_points_that_no_cell_uses_and_edges_of_three_faces(tmp_path):
    surrogate = surrogate_for(tmp_path / "balls", inputs=["normal"])
    points = [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0.5, 0.5, 0.5]]
    faces = [[0, 1, 2], [0, 1, 3], [0, 1, 4]]
    mesh = pv.PolyData.from_regular_faces(np.array(points, dtype=np.float32), faces)
    result = surrogate.predict(mesh)
    assert np.isfinite(result["stress [MPa]"]).all()
    assert result.n_points == 6


def test_forces_of_a_car(tmp_path, capsys):
    root = tmp_path / "cars"
    DrivAerMLDataset.generate(root, num_runs=4, resolution=1500, workers=1, log=False)
    data = DrivAerMLDataset(root, targets=["cp", "wall_shear"], log=False)
    make_surrogate(model, data).save_pretrained(tmp_path / "run" / "best")
    number = data.store.names[0].removeprefix("run_")
    path = root / f"run_{number}" / f"boundary_{number}.vtp"
    said = predict(tmp_path / "run", path, "-o", tmp_path / "car.vtp", capsys=capsys)
    table = (root / f"run_{number}" / f"force_mom_constref_{number}.csv").read_text().split("\n")
    drag, lift = (float(v) for v in table[1].split(",")[:2])
    words = said.out.split("true Cd ")[1].replace(",", "").split()
    assert [float(words[0]), float(words[2])] == pytest.approx([drag, lift], abs=2e-5)
    assert "predicted Cd" in said.out
    back = read_mesh(tmp_path / "car.vtp")
    assert back.cell_data["tau [m^2/s^2]"].shape == (back.n_cells, 3)
    assert back.cell_data["cp"].shape == (back.n_cells,)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: p.with_suffix(".vtp").write_bytes(b""), "the file is empty (0 bytes)"),
        (
            lambda p: p.with_suffix(".xyz").write_text("1 2 3"),
            "no mesh format is known by the suffix",
        ),
        (lambda p: write_mesh(pv.PolyData(), p.with_suffix(".vtp")), "holds no points"),
    ],
)
def test_files_that_are_no_meshes(run, tmp_path, make, words, capsys):
    make(tmp_path / "odd")
    (path,) = tmp_path.glob("odd.*")
    said = predict(run, path, "-o", tmp_path / "x.vtp", status=1, capsys=capsys)
    assert words in said.err
    assert len(said.err.strip().splitlines()) == 1
    assert not (tmp_path / "x.vtp").exists()


def test_what_cannot_be_written(run, tmp_path, capsys):
    write_mesh(ball(1), tmp_path / "a.vtp")
    (tmp_path / "file").write_text("")
    for out, words in (
        (tmp_path / "x.stl", "'.stl' holds no fields: write .vtp"),
        (tmp_path / "x.json", "'.json' is not a mesh format: write .vtp"),
        (tmp_path / "file" / "x.vtp", "File exists"),
    ):
        said = predict(run, tmp_path / "a.vtp", "-o", out, status=1, capsys=capsys)
        assert words in said.err
        assert len(said.err.strip().splitlines()) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.vtp", "balls", "file", "run"]


def test_a_solid_for_a_surrogate_of_the_plane(trained, tmp_path, capsys):
    write_mesh(ball(1), tmp_path / "a.vtp")
    said = predict(trained, tmp_path / "a.vtp", status=1, capsys=capsys)
    assert "trained on points in the plane z = 0, the mesh reaches from z = -1.1 to 1.1" in said.err


def test_old_checkpoints_have_no_recipe(trained, tmp_path):
    folder = shutil.copytree(trained / "best", tmp_path / "best")
    config = json.loads((folder / "config.json").read_text())
    del config["mesh"], config["range"]
    (folder / "config.json").write_text(json.dumps(config))
    plane = pv.Plane(i_resolution=4, j_resolution=4).triangulate()
    assert Surrogate.from_pretrained(folder).predict(plane).point_data.keys()
