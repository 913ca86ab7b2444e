import sys

import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from flare_geo.mesh import add_fields, from_meshio, from_trimesh, to_meshio, to_trimesh

meshio = pytest.importorskip("meshio")
trimesh = pytest.importorskip("trimesh")


def assert_same(a, b):
    assert sorted(a.keys()) == sorted(b.keys())
    for key in a.keys():  # noqa: SIM118
        assert a[key].dtype == b[key].dtype
        assert torch.equal(a[key], b[key])


def test_trimesh_comes_back(square):
    square.pos = torch.cat([square.pos, torch.rand(441, 1)], dim=1)
    square.y, square.x = torch.rand(441, 3), torch.rand(441, 1)
    mesh = to_trimesh(square, u=square.y, s=square.x, area=torch.rand(800))
    assert mesh.vertices.shape == (441, 3)
    assert list(mesh.face_attributes) == ["area"]
    assert_same(from_trimesh(mesh, y="u", x="s"), square)


def test_trimesh_in_a_plane_and_its_cells(square):
    mesh = to_trimesh(square, q=torch.arange(800.0))
    assert_same(from_trimesh(mesh), square)
    data = from_trimesh(mesh, y="q", at="cell", dim=3)
    assert torch.equal(data.y[:, 0], torch.arange(800.0))
    assert data.area.sum() == pytest.approx(1)
    np.testing.assert_allclose(data.normal, np.tile([0, 0, 1], (800, 1)))


def test_trimesh_needs_no_pyvista(square, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyvista", None)
    assert_same(from_trimesh(to_trimesh(square)), square)
    with pytest.raises(ImportError, match=r'pip install "flare-geo\[viz\]"'):
        from_meshio(to_meshio(square))


def test_what_is_no_trimesh(square):
    with pytest.raises(ValueError, match=r"got Scene: pass scene\.to_geometry"):
        from_trimesh(trimesh.Scene(to_trimesh(square)))
    with pytest.raises(ValueError, match="data has no face"):
        to_trimesh(Data(pos=torch.rand(4, 3)))


@pytest.mark.parametrize("corners", [4, 5, 6, 8, 10, 20, 27])
def test_meshio_solid_comes_back(corners):
    pytest.importorskip("pyvista")
    data = Data(
        pos=torch.rand(40, 3), cells=torch.stack([torch.randperm(40)[:corners] for _ in range(3)])
    )
    data.y = torch.rand(40, 2)
    mesh = to_meshio(data, u=data.y, c=torch.arange(3))
    assert mesh.cell_data["c"][0].tolist() == [0, 1, 2]
    assert_same(from_meshio(mesh, y="u"), data)


@pytest.mark.parametrize("corners", [3, 4, 6, 8])
def test_meshio_in_a_plane_comes_back(corners):
    pytest.importorskip("pyvista")
    cells = torch.arange(corners)[None]
    data = Data(pos=torch.rand(corners, 2))
    data["face" if corners == 3 else "cells"] = cells.t().contiguous() if corners == 3 else cells
    mesh = to_meshio(data)
    assert mesh.points.shape == (corners, 2)
    assert_same(from_meshio(mesh), data)


def test_meshio_cloud_comes_back():
    pytest.importorskip("pyvista")
    data = Data(pos=torch.rand(7, 3), y=torch.rand(7, 1))
    assert_same(from_meshio(to_meshio(data, y=data.y), y="y"), data)
    lone = meshio.Mesh(data.pos.numpy(), [], {"y": data.y.numpy()})
    assert_same(from_meshio(lone, y="y"), data)


def test_meshio_cells_of_all_blocks_in_their_order():
    pytest.importorskip("pyvista")
    points = np.random.default_rng(0).random((12, 3))
    cells = [
        ("tetra", [[0, 1, 2, 3], [4, 5, 6, 7]]),
        ("line", [[0, 1]]),
        ("tetra", [[8, 9, 10, 11]]),
    ]
    values = [np.array([1.0, 2]), np.array([3.0]), np.array([4.0])]
    mesh = meshio.Mesh(points, cells, cell_data={"p": values}, cell_sets={"a": [[0], [], [0]]})
    data = from_meshio(mesh, y="p", at="cell")
    assert data.y.flatten().tolist() == [1, 2, 3, 4]
    np.testing.assert_allclose(data.pos[3], points[8:].mean(axis=0), rtol=1e-6)
    assert from_meshio(mesh).cells.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert mesh.cell_sets.keys() == {"a"}
    out = add_fields(mesh, {"q": np.array([5.0, 6, 7, 8])})
    assert [part.tolist() for part in out.cell_data["q"]] == [[5, 6], [7], [8]]
    assert "q" not in mesh.cell_data


def test_fields_on_a_trimesh(square):
    mesh = to_trimesh(square)
    out = add_fields(mesh, {"p": torch.arange(441.0)[:, None], "q": torch.arange(800)})
    assert out.vertex_attributes["p"].shape == (441,)
    assert out.face_attributes["q"].shape == (800,)
    assert not mesh.vertex_attributes
    np.testing.assert_array_equal(out.vertices, mesh.vertices)


def test_fields_that_do_not_fit(square):
    mesh = to_trimesh(square, p=torch.zeros(441))
    with pytest.raises(ValueError, match="has a point array 'p' already: choose another name, or"):
        add_fields(mesh, {"p": torch.ones(441)})
    out = add_fields(mesh, {"p": torch.ones(441)}, overwrite=True)
    assert out.vertex_attributes["p"].sum() == 441
    assert mesh.vertex_attributes["p"].sum() == 0
    with pytest.raises(
        ValueError, match=r"q must have one row per point \(441\) or per cell \(800\)"
    ):
        add_fields(mesh, {"q": torch.ones(5)})
    with pytest.raises(ValueError, match=r"q must have one row per cell \(800\), got \[441\]"):
        add_fields(mesh, {"q": torch.ones(441)}, at="cell")
    with pytest.raises(TypeError, match="one of pyvista, meshio or trimesh, got Data"):
        add_fields(square, {"q": torch.ones(441)})
