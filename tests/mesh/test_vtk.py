import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from flare_geo.mesh import from_pyvista, polygon_geometry, polygons_of, surface_geometry, to_pyvista

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
    with pytest.raises(
        ValueError, match=r"'p' is per cell: pass at=.cell., or call mesh\.cell_data_to"
    ):
        from_pyvista(mesh, y="p")
    mesh["q"] = np.zeros(81)
    with pytest.raises(ValueError, match="'q' is per point: pass at=\"point\""):
        from_pyvista(mesh, y="q", at="cell")
    del mesh.point_data["q"]
    with pytest.raises(ValueError, match="'q' is not in the mesh"):
        from_pyvista(mesh, x="q")
    with pytest.raises(ValueError, match="the mesh is empty"):
        from_pyvista(pv.PolyData())
    with pytest.raises(ValueError, match='at must be "point" or "cell", got "edge"'):
        from_pyvista(mesh, at="edge")
    with pytest.raises(ValueError, match="dim must be 2, 3 or None, got 1"):
        from_pyvista(mesh, dim=1)


QUADRATIC = {
    "QuadraticTetrahedron": 10,
    "QuadraticHexahedron": 20,
    "QuadraticWedge": 15,
    "QuadraticPyramid": 13,
    "TriQuadraticHexahedron": 27,
}


@pytest.mark.parametrize(("kind", "corners"), QUADRATIC.items())
def test_quadratic_cells_come_back(kind, corners):
    mesh = getattr(pv.examples.cells, kind)()
    data = from_pyvista(mesh)
    assert data.cells.shape == (1, corners)
    back = to_pyvista(data)
    assert back.celltypes.tolist() == mesh.celltypes.tolist()
    np.testing.assert_array_equal(back.cells, mesh.cells)
    assert_same(from_pyvista(back), data)


def test_cells_of_several_kinds_give_their_skin():
    cells = pv.examples.cells
    mixed = (cells.Hexahedron() + cells.Wedge().translate((3, 0, 0))).cast_to_unstructured_grid()
    data = from_pyvista(mixed)
    assert "cells" not in data
    assert data.pos.shape == (mixed.n_points, 3)
    assert data.face.shape == (3, 12 + 8)
    assert to_pyvista(data).area == pytest.approx(mixed.extract_surface(algorithm=None).area)


def test_boundary_marks_are_left_out(bar):
    solid = to_pyvista(bar)
    marks = np.hstack([[4, 0, 1, 4, 3], [2, 0, 1], [1, 5]])
    cells = np.hstack([marks, solid.cells])
    kinds = np.hstack([[9, 3, 1], solid.celltypes])
    data = from_pyvista(pv.UnstructuredGrid(cells, kinds, solid.points))
    assert torch.equal(data.cells, bar.cells)


def test_images_become_hexahedra_and_squares():
    solid = from_pyvista(pv.ImageData(dimensions=(3, 4, 5)))
    assert solid.cells.shape == (24, 8)
    assert to_pyvista(solid).volume == pytest.approx(24)
    plane = from_pyvista(pv.ImageData(dimensions=(3, 4, 1)))
    assert plane.pos.shape == (12, 2)
    assert to_pyvista(plane).area == pytest.approx(6)


def test_a_cloud_of_cells():
    mesh = pv.Plane(i_resolution=3, j_resolution=2, i_size=3, j_size=2, direction=(0, 1, 0))
    mesh.cell_data["p"] = np.arange(6.0)
    mesh.point_data["p"] = -np.arange(12.0)  # of the same name, at the other place
    data = from_pyvista(mesh, y="p", at="cell")
    assert torch.equal(data.y, torch.arange(6.0)[:, None])
    np.testing.assert_allclose(data.pos, mesh.cell_centers().points, atol=1e-6)
    np.testing.assert_allclose(data.area, np.ones((6, 1)), rtol=1e-6)
    np.testing.assert_allclose(data.normal, np.tile([0, 1, 0], (6, 1)), atol=1e-6)
    assert from_pyvista(mesh, y="p").y[1] == -1


def test_solid_cells_have_centres_but_no_area(bar):
    data = from_pyvista(to_pyvista(bar, T=torch.arange(32.0)), y="T", at="cell")
    assert sorted(data.keys()) == ["pos", "y"]
    assert torch.equal(data.pos, bar.pos[bar.cells].mean(dim=1))


@pytest.mark.parametrize("kind", ["QuadraticTriangle", "QuadraticQuadrilateral", "Quadrilateral"])
def test_outlines_of_flat_cells(kind):
    mesh = getattr(pv.examples.cells, kind)()
    corners = {"QuadraticTriangle": 3}.get(kind, 4)
    outline = mesh.points[:corners]
    mesh.points[corners:] = (outline + np.roll(outline, -1, axis=0))[
        : len(mesh.points) - corners
    ] / 2
    straight = polygon_geometry(outline, np.arange(corners), np.array([0, corners]))[1]
    _, area = polygon_geometry(*polygons_of(mesh))
    np.testing.assert_allclose(area, straight, atol=1e-7)
    assert from_pyvista(mesh, dim=3).face is not None


def test_polygons_are_as_they_are_in_the_mesh():
    dual = pv.PolyData(
        np.array([[0, 0, 0], [2, 0, 0], [2, 1, 0], [1, 2, 0], [0, 1, 0], [0, 0, 1.0]]),
        np.array([5, 0, 1, 2, 3, 4, 3, 0, 1, 5]),
    )
    points, connectivity, offsets = polygons_of(dual)
    assert connectivity.tolist() == [0, 1, 2, 3, 4, 0, 1, 5]
    assert offsets.tolist() == [0, 5, 8]
    normal, area = surface_geometry(dual, "cell")
    np.testing.assert_allclose(area, [3, 1])
    np.testing.assert_allclose(normal, [[0, 0, 1], [0, -1, 0]])
    assert surface_geometry(dual, "point")[1].sum() == pytest.approx(4)
    assert len(points) == 6


def test_a_solid_is_no_surface(bar):
    with pytest.raises(ValueError, match="UnstructuredGrid is not a surface of polygons alone"):
        polygons_of(to_pyvista(bar))
    with pytest.raises(ValueError, match="PolyData is not a surface"):
        polygons_of(pv.PolyData(np.zeros((3, 3))))


def test_cells_without_area_stay_in_their_place(capfd):
    points = np.array([[0, 0, 0], [1, 0, 0], [2, 0, 0], [3, 0, 0], [0, 1, 1.0]])
    mesh = pv.PolyData(points, np.array([4, 0, 1, 2, 3, 3, 0, 1, 4]))
    mesh.cell_data["p"] = [1.0, 2.0]
    data = from_pyvista(mesh, y="p", at="cell")
    assert data.area.flatten().tolist() == pytest.approx([0, 2**0.5 / 2])
    assert data.normal[0].tolist() == [0, 0, 0]
    assert from_pyvista(mesh).face.shape[0] == 3
    assert capfd.readouterr() == ("", "")
