import os

import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from flare_geo.mesh import read_mesh, series
from flare_geo.mesh.series import read_series, write_series

pv = pytest.importorskip("pyvista")


def grown(layers):
    """A box of so many layers of hexahedra, with its height on the points."""
    mesh = pv.ImageData(dimensions=(3, 3, layers + 1)).cast_to_unstructured_grid()
    mesh["T"] = mesh.points[:, 2] * layers
    return mesh


def tree(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_a_growing_part_comes_back_step_by_step(tmp_path):
    times = [0.1, 0.25, 1 / 3]
    path = write_series((grown(k) for k in (1, 2, 3)), tmp_path / "out" / "build.pvd", times)
    assert tree(tmp_path / "out") == ["build.pvd", *(f"build/build_{i:04d}.vtu" for i in range(3))]
    back = read_series(path)
    assert [time for time, _ in back] == times  # to the last bit
    for layers, (_, file) in enumerate(back, 1):
        mesh = read_mesh(file)
        assert mesh.n_cells == 4 * layers
        np.testing.assert_array_equal(mesh["T"], grown(layers)["T"])


def test_paraviews_own_reader_sees_the_same(tmp_path):
    write_series([grown(1), grown(4)], tmp_path / "a b & c.pvd", [2.0, 5.5])
    reader = pv.get_reader(str(tmp_path / "a b & c.pvd"))
    assert reader.time_values == [2.0, 5.5]
    reader.set_active_time_value(5.5)
    assert reader.read()[0].n_cells == 16


def test_surfaces_images_clouds_and_data(tmp_path):
    cloud = Data(pos=torch.rand(5, 3))
    image = pv.ImageData(dimensions=(2, 2, 2))
    path = write_series([pv.Sphere(), image, cloud], tmp_path / "s.pvd")
    steps = read_series(path)
    assert [file.suffix for _, file in steps] == [".vtp", ".vtu", ".vtp"]
    assert [time for time, _ in steps] == [0, 1, 2]
    np.testing.assert_array_equal(read_mesh(steps[2][1]).points, cloud.pos.numpy())


def test_a_series_is_replaced_and_what_is_not_of_it_stays(tmp_path):
    path = tmp_path / "s.pvd"
    write_series([grown(k) for k in (1, 2, 3)], path)
    (tmp_path / "s" / "notes.txt").write_text("mine")
    (tmp_path / "s" / "s_0007.vtu").write_text("not named by the .pvd")
    write_series([grown(5), pv.Sphere()], path)
    kept = ["s/notes.txt", "s/s_0000.vtu", "s/s_0001.vtp", "s/s_0007.vtu"]
    assert tree(tmp_path) == ["s.pvd", *kept]
    assert read_mesh(read_series(path)[0][1]).n_cells == 20


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_series_that_fails_leaves_the_former_one(tmp_path, error):
    path = write_series([grown(1), grown(2)], tmp_path / "s.pvd")
    before = {name: (tmp_path / name).read_bytes() for name in tree(tmp_path)}

    def broken():
        yield grown(7)
        raise error

    with pytest.raises(type(error)):
        write_series(broken(), path)
    assert {name: (tmp_path / name).read_bytes() for name in tree(tmp_path)} == before
    assert sorted(os.listdir(tmp_path)) == ["s", "s.pvd"]


def test_the_list_comes_after_the_files(tmp_path, monkeypatch):
    real = series._write_pvd

    def checked(path, files, times):
        assert all((path.parent / file).is_file() for file in files)
        assert not path.exists()
        real(path, files, times)

    monkeypatch.setattr(series, "_write_pvd", checked)
    assert len(read_series(write_series([grown(1), grown(2)], tmp_path / "s.pvd"))) == 2


def test_bad_input_is_named_and_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match=r"path must end in \.pvd, got 's\.vtu'"):
        write_series([grown(1)], tmp_path / "s.vtu")
    with pytest.raises(ValueError, match=r"one entry a mesh \(2\), got 3"):
        write_series([grown(1), grown(2)], tmp_path / "s.pvd", [0, 1, 2])
    with pytest.raises(ValueError, match=r"times must be finite and rise, got \[0.0, 0.0\]"):
        write_series([grown(1), grown(2)], tmp_path / "s.pvd", [0, 0])
    with pytest.raises(ValueError, match="there are no meshes"):
        write_series([], tmp_path / "s.pvd")
    with pytest.raises(TypeError, match=r"expected a PyG Data .* got int"):
        write_series([3], tmp_path / "s.pvd")
    assert os.listdir(tmp_path) == []


def test_files_that_are_not_whole_are_refused(tmp_path):
    path = write_series([grown(1), grown(2)], tmp_path / "s.pvd")
    whole = path.read_text()
    for text in (whole[:-20], "", "<a/>", whole.replace('file="s/s_0000.vtu"', "")):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"s\.pvd: not a whole \.pvd file \(") as error:
            read_series(path)
        assert "\n" not in str(error.value)
    path.write_text(whole)
    (tmp_path / "s" / "s_0001.vtu").unlink()
    with pytest.raises(FileNotFoundError, match=r"names .*s_0001\.vtu, which is not there"):
        read_series(path)
    write_series([grown(3)], path)  # over a broken one
    assert len(read_series(path)) == 1
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_series(tmp_path / "t.pvd")
