import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from flare_geo.viz import from_pyvista, to_pyvista

pv = pytest.importorskip("pyvista")


def assert_same(a: Data, b: Data) -> None:
    assert sorted(a.keys()) == sorted(b.keys())
    for key in a.keys():  # noqa: SIM118 (iterating a Data gives pairs)
        assert a[key].dtype == b[key].dtype
        assert torch.equal(a[key], b[key])


def test_a_plane_surface_comes_back(square):
    square.y = torch.randn(square.num_nodes, 2)
    square.x = torch.randn(square.num_nodes, 3)
    mesh = to_pyvista(square, a=square.y[:, 0], b=square.y[:, 1], x=square.x)
    assert isinstance(mesh, pv.PolyData)
    assert mesh.n_cells == square.face.shape[1]
    assert np.all(mesh.points[:, 2] == 0)
    assert_same(from_pyvista(mesh, y=["a", "b"], x="x"), square)


def test_a_solid_comes_back_and_has_its_volume(bar):
    bar.y = torch.randn(bar.num_nodes, 3)
    mesh = to_pyvista(bar, u=bar.y)
    assert isinstance(mesh, pv.UnstructuredGrid)
    assert mesh.volume == pytest.approx(32)
    assert_same(from_pyvista(mesh, y="u"), bar)


def test_a_cloud_comes_back():
    data = Data(pos=torch.randn(17, 3))
    mesh = to_pyvista(data)
    assert mesh.n_points == mesh.n_verts == 17
    assert_same(from_pyvista(mesh), data)


@pytest.mark.parametrize("corners", [3, 4])
def test_plane_cells_come_back(corners):
    cells = torch.tensor([[0, 1, 2, 3][:corners]])
    data = Data(pos=torch.tensor([[0.0, 0], [1, 0], [1, 1], [0, 1]]), cells=cells)
    mesh = to_pyvista(data)
    assert mesh.area == pytest.approx(0.5 if corners == 3 else 1.0)
    back = from_pyvista(mesh)
    assert torch.equal(back.face.t() if corners == 3 else back.cells, cells)


def test_four_corners_in_space_are_a_tetrahedron():
    pos = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    assert to_pyvista(Data(pos=pos, cells=torch.arange(4)[None])).volume == pytest.approx(1 / 6)


def test_polygons_are_cut_into_triangles_and_points_stay():
    mesh = pv.Plane(i_resolution=3, j_resolution=2)
    data = from_pyvista(mesh)
    assert data.face.shape == (3, 12)
    assert torch.equal(data.pos, torch.tensor(mesh.points[:, :2]))
    assert from_pyvista(mesh, dim=3).pos.shape == (12, 3)
    again = from_pyvista(mesh.cast_to_unstructured_grid(), dim=3)  # quads in space are a surface
    assert again.face.shape == (3, 12)
    assert to_pyvista(again).area == pytest.approx(1)


def test_one_row_per_face_is_cell_data(square):
    mesh = to_pyvista(square, area=torch.ones(square.face.shape[1]))
    assert "area" in mesh.cell_data


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pos": torch.zeros(0, 2)}, "mesh is empty"),
        ({"pos": torch.zeros(3, 4)}, r"pos must be \[n, 2\] or \[n, 3\], got \[3, 4\]"),
        ({"face": torch.zeros(4, 2, dtype=torch.long)}, "face must be .3, f., got .4, 2."),
        ({"face": torch.full((3, 2), 441)}, r"face must refer to points 0\.\.440, got 441"),
        ({"cells": torch.zeros(1, 5, dtype=torch.long)}, "cells must have 3, 4, 6 or 8 corners"),
    ],
)
def test_bad_data_is_named(square, change, message):
    square.update(change)
    with pytest.raises(ValueError, match=message):
        to_pyvista(square)


def test_bad_fields_are_named(square):
    message = r"p must have one row per point \(441\) or per cell \(800\), got \[7\]"
    with pytest.raises(ValueError, match=message):
        to_pyvista(square, p=torch.zeros(7))


def test_from_pyvista_says_what_is_wrong(bar):
    mesh = to_pyvista(bar, p=torch.zeros(32))
    with pytest.raises(ValueError, match=r"'p' is per cell: call mesh\.cell_data_to_point_data"):
        from_pyvista(mesh, y="p")
    with pytest.raises(ValueError, match="'q' is not in the mesh"):
        from_pyvista(mesh, x="q")
    with pytest.raises(ValueError, match="the mesh is empty"):
        from_pyvista(pv.PolyData())
    mixed = pv.examples.cells.Hexahedron() + pv.examples.cells.Wedge().translate((3, 0, 0))
    with pytest.raises(ValueError, match=r"VTK types \[12, 13\].*mesh.triangulate\(\)"):
        from_pyvista(mixed)
