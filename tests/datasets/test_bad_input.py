"""Whatever is wrong with the raw files is said in one line, and the packed file stays as it was."""

import io
import pickle
import tarfile

import numpy as np
import pytest
import pyvista as pv

from flare_geo.datasets import LPBFDataset, MeshFolderDataset, PackedStore
from flare_geo.datasets.fetch.archive import unpack
from flare_geo.datasets.readers.lpbf_format import write_lpbf
from flare_geo.mesh import write_mesh


def ball(root, i, change=None):
    mesh = pv.Sphere(radius=1 + i, theta_resolution=9, phi_resolution=9)
    mesh["p"] = mesh.points[:, 2].copy()
    mesh["q"] = mesh.points[:, 0].copy()
    if change:
        change(mesh)
    write_mesh(mesh, root / f"ball_{i}.vtp")


def cut_off(root):
    path = root / "ball_3.vtp"
    path.write_bytes(path.read_bytes()[:-500])


def without_array(root):
    ball(root, 3, lambda mesh: mesh.point_data.remove("p"))


def with_nan(root):
    def spoil(mesh):
        mesh["p"][7] = np.nan

    ball(root, 3, spoil)


def with_a_twin(root):
    mesh = pv.Sphere(theta_resolution=9, phi_resolution=9)
    mesh["p"] = mesh.points[:, 2].copy()
    write_mesh(mesh.cast_to_unstructured_grid(), root / "ball_3.vtu")


MESHES = {
    cut_off: "1 case is not sound: ball_3: .*ball_3.vtp: .*",
    without_array: r"1 case is not sound: ball_3: .*no array 'p'; its point arrays are \[.*'q'\]",
    with_nan: r"1 case is not sound: ball_3: field 'y' holds 1 non-finite values \(first at po",
    with_a_twin: "ball_3.vtp and ball_3.vtu are two files of one case",
}


@pytest.mark.parametrize("spoil", MESHES)
def test_meshes(tmp_path, spoil):
    for i in range(6):
        ball(tmp_path, i)
    options = {"targets": ["p"], "splits": {"train": 1.0}}
    good = MeshFolderDataset(tmp_path, **options)
    before, names = good.path.read_bytes(), good.store.names
    assert len(good) == 6
    good.store.close()
    spoil(tmp_path)
    with pytest.raises(ValueError, match=MESHES[spoil]) as caught:
        MeshFolderDataset(tmp_path, **options)
    assert "\n" not in str(caught.value)
    assert good.path.read_bytes() == before
    store = PackedStore(good.path)
    assert store.names == names
    assert store.find_damage() == []
    if "not sound" in str(caught.value):
        rest = MeshFolderDataset(tmp_path, **options, skip_unsound=True)
        assert sorted(rest.store.names) == [f"ball_{i}" for i in (0, 1, 2, 4, 5)]


def test_cells_without_area_are_packed_as_they_are(tmp_path):
    points = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 1], [0, 0, 0]], dtype=np.float32)
    mesh = pv.PolyData.from_regular_faces(points, [[0, 1, 2], [0, 3, 0]])
    mesh.cell_data["p"] = np.array([1.0, 2.0], dtype=np.float32)
    write_mesh(mesh, tmp_path / "a.vtp")
    (case,) = MeshFolderDataset(tmp_path, targets=["p"], splits={"train": 1.0})
    assert case.area[:, 0].tolist() == pytest.approx([2**0.5 / 2, 0])
    assert case.normal[1].tolist() == [0, 0, 0]
    assert case.pos.isfinite().all()


class Trap:
    def __reduce__(self):
        return (open, (self.path, "w"))


def test_pickle_hidden_in_npz(tmp_path):
    pos = np.array([[i & 1, i >> 1 & 1, i >> 2] for i in range(8)], dtype=np.float32)
    elems = np.array([[0, 1, 3, 2, 4, 5, 7, 6]])
    fields = {"disp": np.zeros((8, 3)), "vmstr": np.zeros((8, 1)), "temp": np.zeros((8, 1))}
    for part, count in (("train", 3), ("test", 1)):
        for i in range(count):
            path = tmp_path / part / f"case_{i}.npz"
            write_lpbf(path, pos, elems, fields, {"case_name": f"case_{i}"})
    good = LPBFDataset(tmp_path, num_val=0)
    before = good.path.read_bytes()
    trap = Trap()
    trap.path = str(tmp_path / "executed")
    arrays = dict(np.load(tmp_path / "train" / "case_1.npz"))
    np.savez(tmp_path / "train" / "case_1.npz", **arrays | {"disp": np.array([trap], dtype=object)})
    with pytest.raises(ValueError, match=r"lpbf train: 1 case is not sound: .*case_1.*disp"):
        LPBFDataset(tmp_path, num_val=0)
    assert not (tmp_path / "executed").exists()
    assert good.path.read_bytes() == before
    assert PackedStore(good.path).find_damage() == []
    assert len(LPBFDataset(tmp_path, num_val=0, skip_unsound=True)) == 2
    pickle.loads(pickle.dumps(trap)).close()  # the trap does work where it is let
    assert (tmp_path / "executed").exists()


@pytest.mark.parametrize("name", ["../processed/mesh.h5", "/tmp/flare_geo_trick", "a/../../b"])
def test_path_tricks_in_archives(tmp_path, name):
    root = tmp_path / "root"
    ball(root, 0)
    ball(root, 1)
    good = MeshFolderDataset(root, targets=["p"], splits={"train": 1.0})
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with tarfile.open(tmp_path / "trick.tar", "w") as archive:
        member = tarfile.TarInfo(name)
        member.size = 4
        archive.addfile(member, io.BytesIO(b"gone"))
    with pytest.raises(ValueError, match=r"trick\.tar"):
        unpack(tmp_path / "trick.tar", root)
    (tmp_path / "trick.tar").unlink()
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    assert PackedStore(good.path).find_damage() == []
