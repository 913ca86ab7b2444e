import json
import logging
import shutil
import sys
import tarfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from hub_server import serve_hub

from flare_geo.datasets.drivaerml import MORPHS, DrivAerMLDataset
from flare_geo.datasets.drivaerml_runs import HIDDEN
from flare_geo.datasets.fetch.parts import join_parts
from flare_geo.datasets.run_tables import compact
from flare_geo.mesh import write_mesh
from flare_geo.metrics import force_coefficients, surface_force

pv = pytest.importorskip("pyvista")
DATA = Path(__file__).parents[1] / "data" / "drivaerml"
P, TAU = "pMeanTrim", "wallShearStressMeanTrim"
Q, AREA = 38.889**2 / 2, 2.17
FACES = (  # of a prism over a pentagon, corners counter-clockwise as seen from inside
    *((0, 1, 2, 3, 4), (9, 8, 7, 6, 5)),
    *((0, 5, 6, 1), (1, 6, 7, 2), (2, 7, 8, 3), (3, 8, 9, 4), (4, 9, 0), (9, 5, 0)),
)
COEFFICIENTS = [0.3109247, 0.06938221, -0.04537165, 0.1147539, 0.04883181]


def surface(run):
    """A closed body of polygons with fields like those of a car, another one for each run."""
    rng = np.random.default_rng(run)
    angle = 2 * np.pi * np.arange(5) / 5
    ring = np.stack([2 * np.cos(angle), np.sin(angle), 0 * angle], axis=1)
    points = np.concatenate([ring, ring + np.array([0.3, 0, 1.2])]) + rng.normal(0, 0.02, (10, 3))
    mesh = pv.PolyData(points.astype(np.float32), [i for f in FACES for i in (len(f), *f)])
    mesh.cell_data["CpMeanTrim"] = np.zeros(8, np.float32)
    mesh.cell_data[P] = rng.normal(-230, 270, 8).astype(np.float32)
    mesh.cell_data[TAU] = rng.normal(-1, 2, (8, 3)).astype(np.float32)
    return mesh


def by_hand(mesh):
    """Centre, area and vector of each polygon, and the force, polygon by polygon."""
    points = mesh.points.astype(float)
    centres, vectors, force = [], [], np.zeros(3)
    for face, p, tau in zip(FACES, mesh.cell_data[P], mesh.cell_data[TAU]):
        corners = points[list(face)]
        c = corners.mean(axis=0)
        arms = corners - c
        vector = sum(np.cross(a, b) for a, b in zip(arms, np.roll(arms, -1, axis=0))) / 2
        force += float(p) * vector - tau.astype(float) * np.linalg.norm(vector)
        centres.append(c)
        vectors.append(vector)
    return np.array(centres), np.array(vectors), force


def write_run(root, run, tables=True):
    folder = root / f"run_{run}"
    folder.mkdir(parents=True)
    write_mesh(surface(run), folder / f"boundary_{run}.vtp")
    if tables:
        morphs = ", ".join(str(run + i / 8) for i in range(16))
        (folder / f"geo_parameters_{run}.csv").write_text(f"{', '.join(MORPHS)}\n{morphs}\n")
        row = ", ".join(map(str, COEFFICIENTS))
        (folder / f"force_mom_constref_{run}.csv").write_text(f"Cd, Cl, Clf, Clr, Cs\n{row}\n")
        (folder / f"geo_ref_{run}.csv").write_text(f"lRef,aRef\n2.75,{2 + run / 8}\n")
    return root


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    root = tmp_path_factory.mktemp("drivaerml")
    for run in (1, 3, 4, 11, 12):
        write_run(root, run)
    return root


@pytest.fixture
def root(official, tmp_path):
    return Path(shutil.copytree(official, tmp_path / "set"))


def write_archive(root, points="40k", runs=((1, 2, 4, 11), (5, 12))):
    for split, numbers in zip(("train", "test"), runs):
        folder = root / f"drivaerml_surface_presampled_{points}" / split
        folder.mkdir(parents=True)
        for run in numbers:
            rng = np.random.default_rng(run)
            arrays = {"surface_mesh_centers": rng.random((6, 3)), "surface_fields": np.ones((6, 4))}
            np.savez(folder / f"run_{run}.npz", **{k: np.float32(v) for k, v in arrays.items()})
    return root


def names(dataset):
    return [int(name.removeprefix("run_")) for name in dataset.store.names]


def test_official_lists():
    official = json.loads((DATA / "splits.json").read_text())
    abupt, domino = official["abupt_400_34_50"], official["physicsnemo_domino_436_48"]
    lists = DrivAerMLDataset.run_lists
    assert {k: list(v) for k, v in lists["abupt"].items()} == {
        k: abupt[k] for k in ("train", "val", "test")
    }
    assert list(lists["physicsnemo"]) == ["train", "test"]
    assert list(lists["physicsnemo"]["train"]) == domino["train"]
    assert list(lists["physicsnemo"]["test"]) == domino["validation"]
    assert sorted(HIDDEN) == official["not_public"]


def test_recipe_of_the_abupt_list():
    order = torch.randperm(500, generator=torch.Generator().manual_seed(42)) + 1
    public = [i for i in order.tolist() if i not in HIDDEN]
    lists = DrivAerMLDataset.run_lists["abupt"]
    assert list(lists["train"]) == sorted(public[:400])
    assert list(lists["test"]) == sorted(public[400:450])
    assert list(lists["val"]) == sorted(public[450:])


def test_a_run(root):
    data = DrivAerMLDataset(root, targets=["pressure", "wall_shear"], log=False)
    assert names(data) == [1, 3]
    assert data.source == {"generated": False}
    for case, run in zip(data, (1, 3)):
        centres, vectors, _ = by_hand(surface(run))
        size = np.linalg.norm(vectors, axis=1, keepdims=True)
        torch.testing.assert_close(case.pos, torch.from_numpy(centres).float())
        torch.testing.assert_close(case.area, torch.from_numpy(size).float())
        torch.testing.assert_close(case.normal, torch.from_numpy(vectors / size).float())
        fields = np.column_stack([surface(run).cell_data[P], surface(run).cell_data[TAU]])
        assert torch.equal(case.y, torch.from_numpy(fields))
        assert case.geometry.tolist() == [[run + i / 8 for i in range(16)]]
        assert torch.equal(case.forces, torch.tensor([COEFFICIENTS]))
        assert case.reference.tolist() == [[2 + run / 8, 2.75]]
    for key, channels in data.channels.items():
        assert case[key].dtype == torch.float32
        assert case[key].shape[1] == len(channels)
    assert set(data.channels) == set(case.keys()) - {"name"}


def test_forces_from_what_was_loaded_equal_those_of_the_polygons(root):
    for dimensionless, q in ((False, Q), (True, 1.0)):
        data = DrivAerMLDataset(
            root, targets=["pressure", "wall_shear"], dimensionless=dimensionless, log=False
        )
        for case, run in zip(data, (1, 3)):
            force = surface_force(case.y[:, 0], case.y[:, 1:], case.area * case.normal)
            drag, lift = force_coefficients(force, q, data.reference_area)
            expected = by_hand(surface(run))[2] / (Q * AREA)
            assert float(drag) == pytest.approx(expected[0], rel=1e-5)
            assert float(lift) == pytest.approx(expected[2], rel=1e-5)


def test_targets_are_chosen_on_access(root):
    packed = DrivAerMLDataset(root, log=False)
    written = packed.path.stat().st_mtime_ns
    p, tau = (torch.from_numpy(surface(1).cell_data[k]).reshape(8, -1) for k in (P, TAU))
    for targets, dimensionless, y, units in (
        (["pressure"], False, p, ["m^2/s^2"]),
        (["cp"], False, p / Q, ["1"]),
        (["pressure"], True, p / Q, ["1"]),
        (["wall_shear", "cp"], False, torch.cat([tau, p / Q], 1), [*["m^2/s^2"] * 3, "1"]),
        (["wall_shear"], True, tau / Q, ["1"] * 3),
    ):
        data = DrivAerMLDataset(root, targets=targets, dimensionless=dimensionless, log=False)
        torch.testing.assert_close(data[0].y, y)
        assert [channel.unit for channel in data.channels["y"]] == units
        assert data.path == packed.path
    assert packed.path.stat().st_mtime_ns == written


def test_options_go_along_to_another_split(root):
    data = DrivAerMLDataset(
        root,
        "test",
        targets=["wall_shear"],
        dimensionless=True,
        splits={"train": [11, 3], "test": [4, 12]},
        num_points=5,
        log=False,
    )
    assert names(data) == [4, 12]
    other = data.with_split("train")
    assert names(other) == [3, 11]
    assert (other.targets, other.dimensionless, other.num_points) == (("wall_shear",), True, 5)
    assert other[0].pos.shape == other[0].normal.shape == other[0].y.shape == (5, 3)
    assert other[0].geometry.shape == (1, 16)
    plain = DrivAerMLDataset(root, log=False)
    assert len({plain.path, data.path, other.path}) == 3


def test_splits(root, tmp_path):
    data = DrivAerMLDataset(root, "test", splits="physicsnemo", log=False)
    assert names(data) == [4]
    assert names(data.with_split("train")) == [1, 3, 11, 12]
    with pytest.raises(ValueError, match="drivaerml has no split 'val', only train, test"):
        data.with_split("val")
    own = tmp_path / "own.json"
    own.write_text('{"train": ["1"], "calibration": [12, 3]}')
    assert names(DrivAerMLDataset(root, "calibration", splits=own)) == [3, 12]
    for splits, message in (
        ("nvidia", "splits must be 'abupt', 'physicsnemo' or a JSON file, got 'nvidia'"),
        ([1, 2], r'splits must be of the form {"train": \[1, 2, ...\]'),
        ({"train": ["x"]}, r'splits must be of the form {"train": \[1, 2, ...\]'),
        ({"train": [1, 2], "test": [2]}, "splits: run 2 is in both 'train' and 'test'"),
    ):
        with pytest.raises(ValueError, match=message):
            DrivAerMLDataset(root, splits=splits)
    own.write_text("{")
    with pytest.raises(ValueError, match=r"own.json is not JSON \("):
        DrivAerMLDataset(root, splits=own)


def test_missing_runs_are_named_once(root, caplog):
    with caplog.at_level(logging.WARNING):
        DrivAerMLDataset(root, "val")
    (line,) = caplog.messages
    assert line.startswith("drivaerml val: 33 of 34 runs are not there (22 56 109 150 165 177 ")
    assert line.endswith(" ...); the others are used")
    caplog.clear()
    (root / "SOURCE.json").write_text('{"generated": true}')
    data = DrivAerMLDataset(root, "val")
    assert not caplog.messages  # a small set was asked for
    assert data.source["generated"]


def test_no_runs(root, tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        DrivAerMLDataset(root, splits={"train": [7, 8, 9, 20]})
    assert f"drivaerml train: none of its runs 7-9 20 in {root}; get some (" in str(caught.value)
    assert f"flare-geo data generate drivaerml --root {root}" in str(caught.value)
    with pytest.raises(FileNotFoundError, match=r"nowhere \(there is no such folder\); get some"):
        DrivAerMLDataset(tmp_path / "nowhere")


def test_withheld_runs(root):
    message = r"drivaerml: runs withheld by the authors \(16 in all\) were asked for: 167 211"
    with pytest.raises(ValueError, match=message):
        DrivAerMLDataset(root, splits={"train": [1, 167, 211]})
    with pytest.raises(ValueError, match=message):
        DrivAerMLDataset.download(root, runs=[1, 211, 167])


def test_compact():
    assert compact([9, 1, 2, 3, 7, 10]) == "1-3 7 9-10"
    assert compact([]) == ""
    assert compact(range(0, 100, 2)).endswith("38 ...")


def test_run_folders_may_lie_one_folder_down(root, tmp_path):
    below = tmp_path / "above"
    below.mkdir()
    root.rename(below / "raw")
    assert names(DrivAerMLDataset(below, log=False)) == [1, 3]
    write_run(below, 3)
    with pytest.raises(ValueError, match=r"run_3 is there twice, .* give the folder"):
        DrivAerMLDataset(below)


def test_tables_of_all_runs(root):
    for path in root.glob("run_*/*.csv"):
        path.unlink()
    values = ",".join(map(str, COEFFICIENTS))
    table = "run,cd,cl,clf,clr,cs\n" + "".join(f"{run},{values}\n" for run in (1, 3, 4))
    (root / "force_mom_constref_all.csv").write_text(table)
    data = DrivAerMLDataset(root, log=False)
    assert torch.equal(data[1].forces, torch.tensor([COEFFICIENTS]))
    assert {"geometry", "reference"}.isdisjoint(data[1].keys())
    assert "forces" in data.channels
    assert "geometry" not in data.channels
    with pytest.raises(ValueError, match=r"run_12: .*_all.csv: expected one row for run 12, got 0"):
        DrivAerMLDataset(root, "test", log=False)


def test_a_table_that_some_runs_lack(root, caplog):
    (root / "run_3" / "geo_ref_3.csv").unlink()
    with caplog.at_level(logging.WARNING):
        data = DrivAerMLDataset(root, splits={"train": [1, 3]})
    assert caplog.messages == ["drivaerml train: 'reference' is left out, these runs lack it: 3"]
    assert "reference" not in data[0]
    assert data[0].forces.shape == (1, 5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"geo_ref_3.csv has no column aRef, lRef, only ''"),
        ("lRef\n2\n", r"geo_ref_3.csv has no column aRef, only 'lRef'"),
        ("lRef,aRef\n", r"geo_ref_3.csv: expected one row for run 3, got 0"),
        ("lRef,aRef\n1,2\n3,4\n", r"geo_ref_3.csv: expected one row for run 3, got 2"),
        ("lRef,aRef\n1\n", r"geo_ref_3.csv: expected 2 numbers, got '1'"),
        ("lRef,aRef\n1,two\n", r"geo_ref_3.csv: expected 2 numbers, got '1,two'"),
        ("lRef,aRef\n1,nan\n", "field 'reference' holds 1 non-finite values"),
        ("\x00\xff", "geo_ref_3.csv has no column aRef, lRef"),
    ],
)
def test_malformed_tables(root, text, message):
    (root / "run_3" / "geo_ref_3.csv").write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=f"1 case is not sound: run_3: .*{message}") as caught:
        DrivAerMLDataset(root, log=False)
    assert "\n" not in str(caught.value)


def spoil_cut(path):
    path.write_bytes(path.read_bytes()[:-200])


def spoil_missing(path):
    mesh = surface(3)
    del mesh.cell_data[P]
    write_mesh(mesh, path)


def spoil_points(path):
    mesh = surface(3)
    mesh.point_data[P] = np.zeros(10)
    del mesh.cell_data[P]
    write_mesh(mesh, path)


def spoil_scalar(path):
    mesh = surface(3)
    mesh.cell_data[TAU] = np.zeros(8)
    write_mesh(mesh, path)


def spoil_lines(path):
    mesh = surface(3)
    more = pv.PolyData(mesh.points, mesh.faces, lines=[2, 0, 1])
    more.cell_data[P], more.cell_data[TAU] = np.zeros(9), np.zeros((9, 3))
    write_mesh(more, path)


def spoil_nan(path):
    mesh = surface(3)
    mesh.cell_data[TAU][5, 1] = np.nan
    write_mesh(mesh, path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_cut, r"boundary_3.vtp: not a whole .vtp file"),
        (spoil_missing, rf"no array '{P}'; .* cell arrays \['CpMeanTrim', '{TAU}'\]"),
        (spoil_points, f"'{P}' is per point"),
        (spoil_scalar, "field 'y' has 2 channels, expected 4"),
        (spoil_lines, "boundary_3.vtp: expected a surface of polygons and nothing else"),
        (spoil_nan, r"field 'y' holds 1 non-finite values \(first at point 5\)"),
    ],
)
def test_broken_surfaces(root, caplog, spoil, message):
    spoil(root / "run_3" / "boundary_3.vtp")
    with pytest.raises(ValueError, match=f"1 case is not sound: run_3: .*{message}") as caught:
        DrivAerMLDataset(root, log=False)
    assert "\n" not in str(caught.value)
    with caplog.at_level(logging.WARNING):
        data = DrivAerMLDataset(root, splits={"train": [1, 3]}, skip_unsound=True)
    assert names(data) == [1]
    assert not any("not there" in line for line in caplog.messages)  # it is there, but not sound


def test_polygons_without_area_have_no_normal(root):
    mesh = surface(3)
    mesh.points[8] = mesh.points[3] = mesh.points[4] = mesh.points[9]
    write_mesh(mesh, root / "run_3" / "boundary_3.vtp")
    case = DrivAerMLDataset(root, log=False)[1]
    flat = case.area[:, 0] == 0
    assert flat.nonzero().flatten().tolist() == [5, 6]
    assert torch.equal(case.normal[flat], torch.zeros(2, 3))


def test_raw_files_may_go(root):
    before = DrivAerMLDataset(root, log=False)
    for folder in root.glob("run_*"):
        shutil.rmtree(folder)
    after = DrivAerMLDataset(root, log=False)
    assert torch.equal(after[1].pos, before[1].pos)
    assert after.channels == before.channels
    with pytest.raises(FileNotFoundError, match=f"no run_1/boundary_1.vtp in {root}"):
        after.mesh(0)


def test_meshes_for_pictures(root):
    data = DrivAerMLDataset(root, log=False)
    mesh = data.mesh(1)
    assert np.array_equal(mesh.points, surface(3).points)
    assert mesh.array_names == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"targets": "pressure"}, "targets must be a list of pressure, cp, wall_shear"),
        ({"targets": []}, "targets must be a list"),
        ({"targets": ["velocity"]}, r"list of pressure, cp, wall_shear, got \['velocity'\]"),
        ({"fields": "volumes"}, "fields must be one of surface, volume, got 'volumes'"),
        ({"layout": "zarr"}, "layout must be one of runs, presampled, got 'zarr'"),
        ({"layout": "presampled", "fields": "volume"}, "presampled archives hold surfaces only"),
    ],
)
def test_wrong_options(root, options, message):
    with pytest.raises(ValueError, match=message):
        DrivAerMLDataset(root, **options)


def test_presampled_archives(tmp_path, caplog):
    root = write_archive(tmp_path)
    with caplog.at_level(logging.WARNING):
        data = DrivAerMLDataset(root, targets=["cp", "wall_shear"])
    assert not caplog.messages
    assert data.splits == ("train", "test")
    assert names(data) == [1, 2, 4, 11]
    assert names(data.with_split("test")) == [5, 12]
    case = data[1]
    assert torch.equal(case.pos, torch.from_numpy(np.random.default_rng(2).random((6, 3))).float())
    torch.testing.assert_close(case.y[0], torch.tensor([1 / Q, 1, 1, 1]))
    assert set(case.keys()) == {"pos", "y", "name"}
    assert set(data.channels) == {"pos", "y"}
    inside = DrivAerMLDataset(root / "drivaerml_surface_presampled_40k")
    assert names(inside) == names(data)
    by_number = DrivAerMLDataset(root, "test", splits="abupt", log=False)
    assert names(by_number) == [11, 12]  # from both folders
    assert names(by_number.with_split("val")) == [4]
    assert by_number.path != data.with_split("test").path


def test_run_folders_and_archives_together(root):
    write_archive(root)
    assert names(DrivAerMLDataset(root, log=False)) == [1, 3]
    assert names(DrivAerMLDataset(root, layout="presampled")) == [1, 2, 4, 11]
    write_archive(root, "100k")
    with pytest.raises(ValueError, match=r"run_1 is there twice, .* give the folder"):
        DrivAerMLDataset(root, layout="presampled")
    assert len(DrivAerMLDataset(root / "drivaerml_surface_presampled_100k")) == 4


def test_broken_archives(tmp_path):
    folder = write_archive(tmp_path) / "drivaerml_surface_presampled_40k" / "train"
    pos, fields = np.ones((6, 3)), np.ones((6, 4))
    ran = []

    class Trap:
        def __reduce__(self):
            return ran.append, (1,)

    pickled = np.array([Trap()], dtype=object)
    for arrays, message in (
        ((fields, pos), r"expected surface_mesh_centers \[P, 3\] and .* got \[6, 4\] and \[6, 3\]"),
        ((pos.T, fields.T), r"got \[3, 6\] and \[4, 6\]"),
        ((pos, fields[:5]), r"got \[6, 3\] and \[5, 4\]"),
        ((pos, pickled), "'surface_fields' holds pickled Python objects, which are not opened"),
    ):
        np.savez(folder / "run_2.npz", surface_mesh_centers=arrays[0], surface_fields=arrays[1])
        with pytest.raises(ValueError, match=f"run_2: .*{message}"):
            DrivAerMLDataset(tmp_path)
    assert not ran
    np.savez(folder / "run_2.npz", surface_fields=fields)
    with pytest.raises(ValueError, match="no 'surface_mesh_centers', only 'surface_fields'"):
        DrivAerMLDataset(tmp_path)
    (folder / "run_2.npz").write_bytes((folder / "run_1.npz").read_bytes()[:300])
    with pytest.raises(ValueError, match=r"run_2.npz is not a whole .npz file"):
        DrivAerMLDataset(tmp_path)


def volume():
    """Cells of several kinds with fields."""
    points = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1], [1, 0, 1], [1, 1, 1]])
    points = np.concatenate([points, [[0, 1, 1], [0.5, 0.5, 2]]]).astype(float)
    cells = [8, 0, 1, 2, 3, 4, 5, 6, 7, 5, 4, 5, 6, 7, 8]
    mesh = pv.UnstructuredGrid(cells, [pv.CellType.HEXAHEDRON, pv.CellType.PYRAMID], points)
    mesh.cell_data[P] = np.array([10.0, -20.0])
    mesh.cell_data["UMeanTrim"] = np.array([[38.889, 0, 0], [10.0, 5, -1]])
    return mesh


def test_volumes_in_parts(tmp_path):
    folder = tmp_path / "run_1"
    whole = folder / "volume_1.vtu"
    write_mesh(volume(), whole)
    content = whole.read_bytes()
    whole.unlink()
    (folder / "volume_1.vtu.01.part").write_bytes(content[700:])
    with pytest.raises(FileNotFoundError, match=r"volume_1.vtu.00.part is missing"):
        join_parts(whole)
    (folder / "volume_1.vtu.00.part").write_bytes(content[:700])
    with pytest.raises(FileNotFoundError, match=r"but in parts, .* --what \[volume\] joins"):
        DrivAerMLDataset(tmp_path, fields="volume")
    assert join_parts(whole) == whole
    assert whole.read_bytes() == content
    assert list(folder.iterdir()) == [whole]
    (folder / "volume_1.vtu.01.part").write_bytes(content[700:])  # the removal was interrupted
    written = whole.stat().st_mtime_ns
    assert join_parts(whole) == whole
    assert whole.stat().st_mtime_ns == written
    assert list(folder.iterdir()) == [whole]
    data = DrivAerMLDataset(
        tmp_path, fields="volume", targets=["velocity", "cp"], dimensionless=True, log=False
    )
    centre, top = data[0].pos.tolist()
    assert centre == [0.5, 0.5, 0.5]
    assert top == pytest.approx([0.5, 0.5, 1.2])  # mean of the five corners
    expected = torch.tensor([[1, 0, 0, 10 / Q], [10 / 38.889, 5 / 38.889, -1 / 38.889, -20 / Q]])
    torch.testing.assert_close(data[0].y, expected)
    assert set(data.channels) == {"pos", "y"} == set(data[0].keys()) - {"name"}
    assert data.path.name == "drivaerml_fieldsvolume_train.h5"
    with pytest.raises(FileNotFoundError, match=r"neither .*volume_2.vtu nor volume_2.vtu.00.part"):
        join_parts(folder / "volume_2.vtu")


def test_no_room_to_join(tmp_path, monkeypatch):
    (tmp_path / "a.vtu.00.part").write_bytes(b"a" * 100)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10}))
    with pytest.raises(OSError, match=r"has room for 10 B, 100 B are needed"):
        join_parts(tmp_path / "a.vtu")
    assert [p.name for p in tmp_path.iterdir()] == ["a.vtu.00.part"]


@pytest.fixture
def hub(monkeypatch):
    calls = []
    fake = ModuleType("flare_geo.datasets.fetch.hub")

    def download_hub(repo_id, folder, names, **options):
        calls.append((repo_id, folder, names, options))
        return [folder / name for name in names]

    fake.download_hub = download_hub
    monkeypatch.setitem(sys.modules, fake.__name__, fake)
    return calls


def test_download(hub, tmp_path, monkeypatch):
    joined = []
    monkeypatch.setattr("flare_geo.datasets.cars.join_parts", joined.append)
    DrivAerMLDataset.download(tmp_path, runs=[3, 12], what=["boundary", "volume"], log=False)
    DrivAerMLDataset.download(tmp_path, runs="test", what=["geometry"])
    DrivAerMLDataset.download(tmp_path, revision="main")
    (repository, folder, files, options), test, everything = hub
    assert (repository, folder) == ("neashton/drivaerml", tmp_path)
    assert files == [
        *("run_3/boundary_3.vtp", "run_3/volume_3.vtu.00.part", "run_3/volume_3.vtu.01.part"),
        *("run_12/boundary_12.vtp", "run_12/volume_12.vtu.00.part", "run_12/volume_12.vtu.01.part"),
    ]
    assert joined == [tmp_path / f"run_{i}" / f"volume_{i}.vtu" for i in (3, 12)]
    assert options["revision"] == "f26d75e0d3dee10ba0e42829bafd0e0d95ca5acc"
    assert options["licence"] == "CC BY-SA 4.0"
    assert options["log"] is False
    assert len(test[2]) == 2 * 50
    assert test[2][:2] == ["run_11/geo_parameters_11.csv", "run_11/geo_ref_11.csv"]
    assert len(everything[2]) == 484 * 5
    assert everything[3]["revision"] == "main"
    for options, message in (
        ({"runs": [501]}, "drivaerml has runs 1-166 168-210 .*, got 501"),
        ({"runs": "testing"}, "runs must be numbers or one of train, val, test, got 'testing'"),
        ({"what": "boundary"}, "what must be a list of boundary, forces, geometry, stl, volume"),
        ({"what": ["surface"]}, r"what must be a list .*, got \['surface'\]"),
    ):
        with pytest.raises(ValueError, match=message):
            DrivAerMLDataset.download(tmp_path, **options)
    assert len(hub) == 3


def test_from_a_hub_to_a_case(root, tmp_path, monkeypatch):
    """Download, broken once, as far as the first case; then the volume in its two parts."""
    monkeypatch.setattr("flare_geo.datasets.fetch.download.PAUSE", 0.0)
    folder = root / "run_1"
    (folder / "force_mom_1.csv").write_text("Cd, Cl, Clf, Clr, Cs\n1,1,1,1,1\n")
    write_mesh(volume(), folder / "volume_1.vtu")
    content = (folder / "volume_1.vtu").read_bytes()
    for i, part in enumerate((content[:500], content[500:])):
        (folder / f"volume_1.vtu.0{i}.part").write_bytes(part)
    target = tmp_path / "fetched"
    with serve_hub({"neashton/drivaerml": root}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub)
        hub.cut["run_1/boundary_1.vtp"] = [700]
        what = ["boundary", "forces", "geometry", "volume"]
        DrivAerMLDataset.download(target, [1], what=what, revision="main", log=False)
    ranges = [r for name, r in hub.files_asked() if name == "run_1/boundary_1.vtp"]
    assert ranges == [None, "bytes=700-"]
    data = DrivAerMLDataset(target, log=False)
    assert names(data) == [1]
    assert torch.equal(data[0].y[:, 0], torch.from_numpy(surface(1).cell_data[P]))
    assert torch.equal(data[0].forces, torch.tensor([COEFFICIENTS]))  # not those of force_mom
    assert data.source["repository"] == "neashton/drivaerml"
    assert len(DrivAerMLDataset(target, fields="volume", log=False)[0].pos) == 2
    assert not list(target.rglob("*.part"))
    DrivAerMLDataset.download(target, [1], what=["volume"], log=False)  # there: nothing is asked


def test_from_a_hub_to_presampled_cases(tmp_path, monkeypatch):
    write_archive(tmp_path / "there")
    served = tmp_path / "served"
    served.mkdir()
    with tarfile.open(served / "drivaerml_surface_presampled_40k.tar.gz", "w:gz") as tar:
        for folder in (tmp_path / "there").iterdir():
            tar.add(folder, folder.name)
    target = tmp_path / "fetched"
    with serve_hub({"vedantpuri/PDESurrogates": served}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub)
        DrivAerMLDataset.download(target, what=["presampled_40k"], log=False)
    assert not list(target.glob("*.tar.gz"))
    assert names(DrivAerMLDataset(target, "test")) == [5, 12]
    with pytest.raises(ValueError, match=r"what must be a list of .*, got \['presampled_2m'\]"):
        DrivAerMLDataset.download(target, what=["presampled_2m"])


def test_generate_passes_its_arguments_on(tmp_path, monkeypatch):
    calls = []
    fake = ModuleType("flare_geo.datasets.generators.drivaerml")
    fake.generate_drivaerml = lambda root, **options: calls.append((root, options))
    monkeypatch.setitem(sys.modules, fake.__name__, fake)
    DrivAerMLDataset.generate(tmp_path, num_runs=3, resolution=200, workers=1)
    options = {"num_runs": 3, "resolution": 200, "seed": 0, "workers": 1, "log": True}
    assert calls == [(tmp_path, options)]
