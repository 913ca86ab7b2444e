import pickle

import ensight_gold as gold
import numpy as np
import pytest
from netfabb_results import ASIDE, MESH_OF, displacement, mesh, netfabb

from flare_geo.datasets.lpbf import LPBFDataset
from flare_geo.datasets.readers.lpbf_format import hexahedron_edges, read_lpbf, read_metadata
from flare_geo.datasets.readers.netfabb import convert_netfabb


@pytest.mark.parametrize("flavour", gold.FLAVOURS)
def test_last_state(tmp_path, flavour, capsys):
    (path,) = convert_netfabb([netfabb(tmp_path / "run", flavour)], tmp_path / "out")
    assert path == tmp_path / "out" / "bracket.npz"
    points, cells = mesh(4)
    arrays = read_lpbf(path)
    assert np.allclose(arrays["pos"], points, atol=1e-5)
    assert np.array_equal(arrays["elems"], cells)
    assert np.allclose(arrays["disp"], displacement(points, 7), atol=1e-6)
    assert np.allclose(arrays["vmstr"], 100 * points[:, 2:] + 7, rtol=1e-4)
    assert np.array_equal(arrays["temp"], np.full((len(points), 1), 32, dtype=np.float32))
    edges = np.load(path)["edge_index"]
    assert np.array_equal(edges, hexahedron_edges(cells))
    lengths = np.linalg.norm(points[edges[0]] - points[edges[1]], axis=1)
    assert set(np.round(lengths, 3)) == {0.8, 1.0}
    about = read_metadata(path)
    assert about["case_name"] == "bracket"
    assert about["zmax"] == pytest.approx(1.6)
    assert about["time_steps"] == [0, 10, 10, 20, 20, 30, 90, 90]
    assert capsys.readouterr().err == ""
    assert not list(tmp_path.glob("out/*_series"))


@pytest.mark.parametrize("flavour", gold.FLAVOURS)
def test_every_state_has_its_own_mesh(tmp_path, flavour):
    convert_netfabb([netfabb(tmp_path / "run", flavour)], tmp_path / "out", series=True)
    files = sorted((tmp_path / "out" / "bracket_series").iterdir())
    assert [f.stem for f in files] == [f"step_{i:04d}" for i in range(3, 9)]  # the plate is no part
    for file, step in zip(files, range(2, 8), strict=True):
        arrays, about = read_lpbf(file), read_metadata(file)
        points, _ = mesh(MESH_OF[step])
        points = points[points[:, 2] > -1e-6]
        assert np.allclose(arrays["pos"], points, atol=1e-5)
        assert np.allclose(arrays["disp"], displacement(points, step), atol=1e-6)
        assert (arrays["temp"] == 25 + step).all()
        assert arrays["elems"].max() == len(points) - 1
        assert (about["step"], about["time"]) == (step + 1, [0, 10, 10, 20, 20, 30, 90, 90][step])


def test_absent_variables_are_a_note(tmp_path, capsys):
    folder = netfabb(tmp_path / "run", absent=("tmp", "sig"))
    (path,) = convert_netfabb([folder / "bracket_mechanical.case"], tmp_path / "out")
    assert set(read_lpbf(path)) == {"pos", "elems", "disp", "vmstr"}
    note = "bracket: no file bracket_mechanical00_****.tmp.ens of Temperature for a state: left out"
    assert capsys.readouterr().err == f"{note}\n"
    convert_netfabb([folder], tmp_path / "out", series=True)
    assert capsys.readouterr().err == f"{note} (8 times)\n"
    convert_netfabb([folder], tmp_path / "out", log=False)
    assert capsys.readouterr().err == ""


def test_states_without_files_are_left_out_of_the_series(tmp_path, capsys):
    folder = netfabb(tmp_path / "run")
    for key in ("dis", "svm", "tmp"):
        (folder / f"bracket_mechanical00_0004.{key}.ens").unlink()
    convert_netfabb([folder], tmp_path / "out", series=True)
    files = sorted(f.stem for f in (tmp_path / "out" / "bracket_series").iterdir())
    assert files == [f"step_{i:04d}" for i in (3, 5, 6, 7, 8)]
    assert "bracket: state 4 is left out: bracket_mechanical.case: no" in capsys.readouterr().err


def test_several_parts_and_other_cells(tmp_path, capsys):
    folder = netfabb(tmp_path / "run", split_parts=True)
    (path,) = convert_netfabb([folder], tmp_path / "out")
    arrays, (points, cells) = read_lpbf(path), mesh(4)
    assert np.allclose(arrays["pos"], np.concatenate([points, points + ASIDE]), atol=1e-5)
    assert np.array_equal(arrays["elems"], np.concatenate([cells, cells + len(points)]))
    assert "bracket: cells other than hexa8 (quad4) are left out" in capsys.readouterr().err


def test_many_cases_and_one_broken(tmp_path, monkeypatch):
    def travel(task, items, **options):  # as to another process
        assert options["workers"] == 2
        return map(pickle.loads(pickle.dumps(task)), items)

    monkeypatch.setattr("flare_geo.datasets.readers.netfabb.run_cases", travel)
    folders = [netfabb(tmp_path / f"run{i}", "c", f"shape_{i}") for i in range(3)]
    paths = convert_netfabb(folders, tmp_path / "out", workers=2, log=False)
    assert [p.name for p in paths] == ["shape_0.npz", "shape_1.npz", "shape_2.npz"]
    data = LPBFDataset(tmp_path / "out", num_val=0, targets="displacement")
    assert len(data) + len(data.with_split("test")) == 3
    for path in paths:
        path.unlink()
    broken = folders[1] / "shape_1_mechanical00_0008.dis.ens"
    broken.write_bytes(broken.read_bytes()[:-7])
    with pytest.raises(ValueError, match=r"1 of 3 cases could not be converted") as caught:
        convert_netfabb(folders, tmp_path / "out", workers=2, log=False)
    assert str(broken) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sorted(p.name for p in (tmp_path / "out").glob("*.npz")) == [
        "shape_0.npz",
        "shape_2.npz",
    ]


def test_bad_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no NAME_mechanical\.case in .* no such folder"):
        convert_netfabb([tmp_path / "nowhere"], tmp_path / "out")
    one, other = netfabb(tmp_path / "a"), netfabb(tmp_path / "b")
    with pytest.raises(ValueError, match="several cases are called bracket"):
        convert_netfabb([one, other], tmp_path / "out")
    netfabb(one, name="second")
    with pytest.raises(ValueError, match="holds several case files, name the one to convert"):
        convert_netfabb([one], tmp_path / "out")
    nothing = netfabb(tmp_path / "c", absent=("dis", "svm", "tmp"))
    with pytest.raises(ValueError, match="no variable has a file for state 8"):
        convert_netfabb([nothing], tmp_path / "out", log=False)
    (other / "bracket_mechanical_005.geo").unlink()
    with pytest.raises(ValueError, match=r"bracket: .*bracket_mechanical_005\.geo"):
        convert_netfabb([other], tmp_path / "out", log=False)
    assert not list((tmp_path / "out").glob("**/*"))
