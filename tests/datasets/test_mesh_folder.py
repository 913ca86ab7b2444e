import doctest
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from flare_geo.datasets.mesh_folder import MeshFolderDataset
from flare_geo.datasets.splits import divide
from flare_geo.mesh import read_mesh, write_mesh

pv = pytest.importorskip("pyvista")

MESHES = Path(__file__).parents[1] / "data" / "meshes"
ALL = {"train": 1.0}


def ball(i):
    """A sphere of radius i + 1 with fields of which the values are known."""
    mesh = pv.Sphere(radius=i + 1.0, theta_resolution=10, phi_resolution=8)
    mesh.clear_data()
    mesh.points = mesh.points.astype(np.float64)
    mesh.point_data["p"] = mesh.points[:, 2] + 10 * i
    mesh.point_data["U"] = 2 * mesh.points
    mesh.cell_data["q"] = np.arange(mesh.n_cells, dtype=np.float64) + 1000 * i
    return mesh


@pytest.fixture
def root(tmp_path):
    for i in range(10):
        write_mesh(ball(i), tmp_path / f"ball_{i}.vtp")
    rows = "".join(f"ball_{i},{i / 2},steel\n" for i in range(10))
    (tmp_path / "runs.csv").write_text(f"case, speed ,material\n{rows}")
    return tmp_path


def test_the_example_of_the_docstring(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (example,) = doctest.DocTestFinder(recurse=False).find(
        MeshFolderDataset, globs={"MeshFolderDataset": MeshFolderDataset}
    )
    assert len(example.examples) == 8
    assert doctest.DocTestRunner().run(example).failed == 0
    assert sorted(read_mesh("predictions/ball_0.vtp").point_data.keys()) == [
        *("Normals", "height", "height predicted")
    ]


def test_splits_and_with_split(root):
    options = {"inputs": ["normal", "speed"], "targets": ["p"], "globals_file": "runs.csv"}
    train = MeshFolderDataset(root, "train", **options)
    parts = [train, train.with_split("val"), train.with_split("test")]
    assert [len(part) for part in parts] == [8, 1, 1]
    assert sorted(name for part in parts for name in part.store.names) == [
        f"ball_{i}" for i in range(10)
    ]
    data = train[0]
    assert (data.x.shape, data.y.shape, data.globals.shape) == ((62, 4), (62, 1), (1, 1))
    assert data.face.shape == (3, 120)
    mesh = train.onto(0, data.y + 1)
    np.testing.assert_allclose(mesh["p"], train.mesh(0)["p"] + 1, rtol=1e-6)


def test_channels_values_and_units(root):
    ds = MeshFolderDataset(
        root,
        inputs=["U", "normal", "speed", "area"],
        targets=["p", "U"],
        globals_file="runs.csv",
        splits=ALL,
        units={"p": "Pa", "pos": "mm", "speed": "m/s"},
    )
    names = {key: [c.name for c in channels] for key, channels in ds.channels.items()}
    assert names["x"] == [
        *("U x", "U y", "U z", "normal x", "normal y", "normal z", "speed", "area")
    ]
    assert names["y"] == ["p", "U x", "U y", "U z"]
    assert names["globals"] == ["speed"]
    assert [c.unit for c in ds.channels["y"]] == ["Pa", "1", "1", "1"]
    assert {c.unit for c in ds.channels["pos"]} == {"mm"}
    for i, data in enumerate(ds):
        assert data.name == f"ball_{i}"
        mesh = ball(i)
        assert torch.equal(data.pos, torch.tensor(mesh.points, dtype=torch.float32))
        assert torch.equal(data.x[:, :3], data.y[:, 1:])
        np.testing.assert_allclose(data.x[:, 3:6], mesh.points / (i + 1), atol=0.1)
        assert data.x[:, 6].unique().tolist() == data.globals.flatten().tolist() == [i / 2]
        assert data.x[:, 7].sum() == pytest.approx(mesh.area, rel=1e-5)
        np.testing.assert_allclose(data.y[:, 0], mesh["p"], rtol=1e-6)


def test_cells(root):
    ds = MeshFolderDataset(root, inputs=["normal"], targets=["q"], splits=ALL)
    data = ds[3]
    assert sorted(data.keys()) == ["area", "name", "normal", "pos", "x", "y"]
    assert data.y.flatten().tolist() == list(range(3000, 3120))
    assert torch.equal(data.x, data.normal)
    assert ((data.normal * data.pos).sum(dim=1) > 3).all()
    assert [c.name for c in ds.channels["area"]] == ["area"]
    assert "q predicted" in ds.onto(3, data.y, " predicted").cell_data


def test_prediction_only_and_samples(root):
    ds = MeshFolderDataset(root, splits=ALL)
    assert "y" not in ds[0]
    assert "x" not in ds[0]
    assert MeshFolderDataset(root, splits=ALL, at="cell")[0].pos.shape == (120, 3)
    assert MeshFolderDataset(root, splits=ALL, targets=["p"], num_points=7)[0].y.shape == (7, 1)


def test_every_kind_of_file_and_folder(tmp_path):
    for name in ("can_part.vtu", "bracket_part.vtu", "notch_part.vtk", "large_block.STL"):
        folder = tmp_path / name.split("_")[0]
        folder.mkdir()
        shutil.copy(MESHES / name, folder)
    can = MeshFolderDataset(tmp_path, pattern="can/*", targets=["DISPL"], splits=ALL)
    assert (can[0].name, can[0].cells.shape, can[0].y.shape) == ("can/can_part", (336, 8), (684, 3))
    assert can[0].y.min() == pytest.approx(-14.355872)
    plastic = MeshFolderDataset(tmp_path, pattern="can/*", targets=["EQPS"], splits=ALL)
    assert plastic[0].y.shape == (336, 1)
    stress = "Equivalent (von-Mises) Stress (psi)"
    bracket = MeshFolderDataset(
        tmp_path, pattern="*.vtu", targets=[stress], splits={"train": ["bracket/bracket_part"]}
    )
    with pytest.raises(ValueError, match=r"'Equivalent.*is nowhere|no array"):
        MeshFolderDataset(tmp_path, pattern="can/*.vtu", targets=[stress], splits=ALL)
    assert bracket[0].y.max() == pytest.approx(5.3344)
    notch = MeshFolderDataset(tmp_path, pattern="*.vtk", targets=["Nodal Stress"], splits=ALL)
    assert [c.name for c in notch.channels["y"]][-1] == "Nodal Stress 5"
    assert notch[0].face.shape[0] == 3  # hexahedra and wedges: their skin
    out = notch.onto(0, notch[0].y, " predicted")
    np.testing.assert_allclose(out["Nodal Stress predicted"], out["Nodal Stress"], rtol=1e-7)
    assert set(out.celltypes.tolist()) == {12, 13}
    block = MeshFolderDataset(tmp_path, pattern="*.STL", inputs=["normal"], splits=ALL)
    assert block[0].x.shape == (8, 3)


def test_a_plane_mesh_has_two_coordinates(tmp_path):
    plane = pv.Plane(i_resolution=3, j_resolution=2)
    plane["T"] = np.arange(12.0)
    write_mesh(plane, tmp_path / "a.vtp")
    ds = MeshFolderDataset(tmp_path, targets=["T"], splits=ALL)
    assert ds[0].pos.shape == (12, 2)
    assert len(ds.channels["pos"]) == 2
    assert MeshFolderDataset(tmp_path, targets=["T"], splits=ALL, dim=3)[0].pos.shape == (12, 3)


def test_fractions_depend_on_the_names_alone():
    names = [f"case_{i}" for i in range(20)]
    parts = divide(names, {"train": 0.7, "val": 0.1, "test": 0.2})
    assert [len(p) for p in parts.values()] == [14, 2, 4]
    assert divide(names[::-1], {"train": 0.7, "val": 0.1, "test": 0.2}) == parts
    assert sorted(name for part in parts.values() for name in part) == sorted(names)
    assert parts["test"] != names[-4:]
    more = divide([*names, "case_20"], {"train": 0.7, "val": 0.1, "test": 0.2})
    assert len(set(more["test"]) - set(parts["test"])) <= 1


def test_splits_by_list_file_and_folder(root):
    lists = {"train": ["ball_1", "ball_0"], "test": ["ball_7"]}

    def names(splits, split="train"):
        return MeshFolderDataset(root, split, targets=["p"], splits=splits).store.names

    assert names(lists) == ["ball_0", "ball_1"]
    (root / "splits.json").write_text(json.dumps(lists))
    assert names("splits.json", "test") == ["ball_7"]
    (root / "splits.txt").write_text("# mine\ntrain ball_3\n\ntest ball_4\ntrain ball_2\n")
    assert names("splits.txt") == ["ball_2", "ball_3"]
    (root / "splits.txt").write_text("train ball_5\n")
    assert names("splits.txt") == ["ball_5"]
    for split, i in (("train", 1), ("val", 2), ("test", 3)):
        (root / split).mkdir()
        shutil.move(root / f"ball_{i}.vtp", root / split / "ball.vtp")
    assert names(None, "val") == ["val/ball"]


def test_globals_from_json_and_by_the_last_part_of_the_name(root):
    (root / "train").mkdir()
    shutil.move(root / "ball_4.vtp", root / "train")
    (root / "runs.json").write_text(json.dumps({"ball_4": {"speed": 7.5, "note": "x"}}))
    ds = MeshFolderDataset(root, inputs=["speed"], globals_file="runs.json")
    assert ds[0].globals.tolist() == [[7.5]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"targets": ["T"]}, r"'T' is nowhere: .*ball_0.vtp has the point arrays \['U', 'p'\] and"),
        ({"inputs": ["sped"], "globals_file": "runs.csv"}, r"runs.csv the columns \['speed'\]"),
        ({"targets": "p"}, r"targets must be a list of names, got 'p': \['p'\]\?"),
        ({"targets": ["p", "q"]}, r"has \['p'\] per point and \['q'\] per cell"),
        ({"targets": ["q"], "at": "point"}, r"'q' is per cell in .*ball_0.vtp: at='cell'\?"),
        ({"at": "face"}, 'at must be "point", "cell" or "auto"|at must be "auto"'),
        ({"units": {"T": "K"}}, "units name 'T', which is none of"),
        ({"splits": {"train": 0.9, "test": 0.2}}, "sum to 1 at most"),
        ({"splits": {"train": ["ball_0", "x"]}}, "1 cases of split 'train' have no file: x; names"),
        ({"splits": {"train": ["ball_0"], "val": ["ball_0"]}}, "'ball_0' more than once"),
        ({"splits": {"training": 1.0}}, "splits must map train, val, test"),
        ({"splits": {"train": 0.5, "test": ["a"]}}, "all fractions or all lists"),
        ({"splits": {"test": 1.0}}, r"no case of .* is in split 'train' \(test: 10 cases\)"),
        ({"dim": 4}, "dim must be 2, 3 or None"),
    ],
)
def test_wrong_options_are_named(root, options, message):
    with pytest.raises(ValueError, match=message) as error:
        MeshFolderDataset(root, **options)
    assert "\n" not in str(error.value)


def test_files_that_are_not_there(root, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no mesh files in .*put your mesh files"):
        MeshFolderDataset(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match=r"no files that match '\*\.vtu'"):
        MeshFolderDataset(root, pattern="*.vtu")
    with pytest.raises(FileNotFoundError, match=r"no file .*other\.csv"):
        MeshFolderDataset(root, globals_file="other.csv")
    with pytest.raises(ValueError, match="mesh_folder has no download: put your mesh files"):
        MeshFolderDataset.download(root)


def test_two_files_of_one_case_are_refused(root):
    ball(0).save(root / "ball_0.stl")
    with pytest.raises(ValueError, match=r"ball_0\.stl and ball_0\.vtp are two files of one case"):
        MeshFolderDataset(root, splits=ALL)
    assert len(MeshFolderDataset(root, splits=ALL, pattern="*.vtp")) == 10


def test_unsound_cases_are_all_named_and_left_out_when_asked(root):
    nan, less, zero = ball(1), ball(2), ball(4)
    nan["p"][5] = np.nan
    del less.point_data["p"]
    zero.points[:] = 0  # cells without area are no fault
    for i, mesh in ((1, nan), (2, less), (4, zero)):
        write_mesh(mesh, root / f"ball_{i}.vtp")
    whole = (root / "ball_0.vtp").read_bytes()
    (root / "ball_0.vtp").write_bytes(whole[: len(whole) // 2])
    options = {"targets": ["p"], "inputs": ["normal"], "splits": ALL}
    with pytest.raises(ValueError, match="3 cases are not sound") as error:
        MeshFolderDataset(root, **options)
    text = str(error.value)
    assert "\n" not in text
    assert "ball_0.vtp: not a whole .vtp file" in text
    assert "ball_2.vtp: no array 'p'; its point arrays are ['U'], its cell arrays ['q']" in text
    assert "ball_1: field 'y'" in text
    ds = MeshFolderDataset(root, **options, skip_unsound=True, log=False)
    assert ds.store.names == [f"ball_{i}" for i in (3, 4, 5, 6, 7, 8, 9)]
    assert ds[1].x.abs().max() == 0
    np.testing.assert_allclose(ds.mesh(2)["p"], ball(5)["p"])  # by name, not by number


def test_a_case_without_a_row_in_the_table(root):
    (root / "runs.csv").write_text("case,speed\n" + "".join(f"ball_{i},1\n" for i in range(9)))
    options = {"inputs": ["speed"], "globals_file": "runs.csv", "splits": ALL}
    with pytest.raises(ValueError, match=r"ball_9: .*runs\.csv has no row for case 'ball_9'"):
        MeshFolderDataset(root, **options)
    (root / "runs.csv").write_text(
        "case,speed\nball_9,\n" + "".join(f"ball_{i},1\n" for i in range(9))
    )
    with pytest.raises(ValueError, match="no value 'speed' for case 'ball_9'"):
        MeshFolderDataset(root, **options)
    for text, message in (
        ("", "the table is empty"),
        ("c,s\na,1\na,2\n", "'a' has two rows"),
        ("c,s\na\n", "1 cells, the header has 2"),
    ):
        (root / "runs.csv").write_text(text)
        with pytest.raises(ValueError, match=message):
            MeshFolderDataset(root, **options)


def test_a_prediction_of_another_shape(root):
    ds = MeshFolderDataset(root, targets=["p", "U"], splits=ALL)
    with pytest.raises(ValueError, match=r"pred must be \[n, 4\] for targets p, U, got \[62, 1\]"):
        ds.onto(0, torch.zeros(62, 1))
    with pytest.raises(ValueError, match=r"p must have one row per point \(62\), got \[9\]"):
        ds.onto(0, torch.zeros(9, 4))
    out = ds.onto(0, torch.zeros(62, 4), " predicted")
    assert out["U predicted"].shape == (62, 3)
    np.testing.assert_array_equal(out["U"], ball(0)["U"])
    assert out.points.dtype == np.float64
    assert read_mesh(root / "ball_0.vtp").array_names == ds.mesh(0).array_names


def test_files_and_table_that_change_are_read_again(root):
    options = {"inputs": ["speed"], "targets": ["p"], "globals_file": "runs.csv", "splits": ALL}
    MeshFolderDataset(root, **options)
    (root / "runs.csv").write_text("case,speed\n" + "".join(f"ball_{i},31\n" for i in range(10)))
    assert MeshFolderDataset(root, **options)[0].globals.item() == 31
    first = MeshFolderDataset(root, **options)
    assert first.path == MeshFolderDataset(root, **options).path
    assert first.path != MeshFolderDataset(root, **{**options, "targets": ["U"]}).path
