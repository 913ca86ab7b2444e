"""Meshes as they come: quadratic, far away, tiny, thin, with stray points, without cells."""

import time
from pathlib import Path

import numpy as np
import pytest

from flare_geo.mesh import read_mesh
from flare_geo.viz import plot_displacement, plot_field
from flare_geo.viz.render.colors import field_scale
from flare_geo.viz.render.painted import Painted
from flare_geo.viz.render.scene import Layer, panel, scene
from flare_geo.viz.render.surfaces import carrying

pv = pytest.importorskip("pyvista")
vtk = pytest.importorskip("vtkmodules.vtkCommonDataModel")
MESHES = Path(__file__).parents[1] / "data" / "meshes"
SIZE = (300, 300)


def one_cell(kind):
    cell = vtk.vtkGenericCell()
    cell.SetCellType(kind)
    count, at = cell.GetNumberOfPoints(), cell.GetParametricCoords()
    points = np.array([at[i] for i in range(3 * count)]).reshape(-1, 3)
    return pv.UnstructuredGrid({kind: np.arange(count)[None]}, points)


def drawn(ready, rows, association="point"):
    return panel(ready, Painted(rows, association, field_scale(rows))).pixels()


def picture(mesh, rows, association="point"):
    rows = np.asarray(rows, dtype=float)
    return drawn(scene(mesh, "iso", SIZE), rows, association)


@pytest.mark.parametrize("kind", [22, 23, 24, 25, 26, 27, 29])
def test_quadratic_cells_show_the_values_of_their_points(kind):
    mesh = one_cell(kind)
    ready = scene(mesh, None, SIZE)
    sources = ready.sources("point")
    np.testing.assert_array_equal(mesh.points[sources], ready.surface.points + ready.origin)
    assert len(set(sources)) >= mesh.n_points - (kind == 29)  # hexahedra of 27 have one inside
    assert set(ready.sources("cell")) == {0}


def test_pictures_do_not_depend_on_place_and_size():
    sphere = pv.Sphere(radius=1, theta_resolution=24, phi_resolution=24)
    points = np.asarray(sphere.points, dtype=float)
    near = picture(sphere, points[:, 2]).astype(int)
    assert np.mean(near.min(axis=-1) < 250) > 0.6
    for factor, shift in ((1, 1e6), (1, -3e7), (1e-6, 0), (1e6, 0), (1e-3, 5e3)):
        moved = carrying(sphere, factor * points + shift)
        off = np.abs(picture(moved, points[:, 2]) - near)
        assert np.mean(off > 8) < 0.01, (factor, shift)


def test_stray_points_do_not_move_the_camera():
    alone = pv.PolyData(np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0.5]]), faces=[3, 0, 1, 2])
    points = np.vstack([alone.points, [[5e9, 50, 50]]])
    stray = pv.PolyData(points, faces=[3, 0, 1, 2])
    np.testing.assert_array_equal(picture(stray, [0, 1, 2, 1]), picture(alone, [0, 1, 2]))


@pytest.mark.parametrize("kind", [pv.UnstructuredGrid, pv.PolyData])
def test_points_without_cells_are_a_cloud(kind):
    points = np.random.default_rng(0).random((20, 3))
    mesh = kind()
    mesh.points = points
    image = picture(mesh, points[:, 0])
    np.testing.assert_array_equal(image, picture(pv.PolyData(points), points[:, 0]))
    assert mesh.n_cells in (0, 20)


def test_strips_and_polygons_are_surfaces():
    sphere = pv.Sphere()
    strips = sphere.strip()
    assert strips.n_strips > 0
    heights = np.asarray(strips.points)[:, 2]
    off = np.abs(picture(strips, heights).astype(int) - picture(sphere, sphere.points[:, 2]))
    assert np.mean(off > 8) < 0.01
    corners = np.array([[0, 0, 0], [2, 0, 0], [2, 2, 0], [1, 0.5, 0], [0, 2.0, 0]])
    notched = pv.PolyData(corners, faces=[5, 0, 1, 2, 3, 4])
    image = drawn(scene(notched, "z", SIZE), np.zeros(5))
    height, width = image.shape[:2]
    assert image[height // 4, width // 2].min() == 255  # the notch is not filled
    assert image[height - 20, width // 2].min() < 200


def test_thin_meshes_and_lines_have_pictures():
    plate = pv.Box((0, 100, 0, 100, 0, 1e-3)).cast_to_unstructured_grid()
    assert np.mean(picture(plate, plate.points[:, 0]).min(axis=-1) < 250) > 0.2
    wire = pv.Line((0, 0, 0), (3, 0, 0), resolution=10)
    image = drawn(scene(wire, None, SIZE), wire.points[:, 0])
    assert np.sum(image.max(axis=-1).astype(int) - image.min(axis=-1) > 40) > 300
    for place in (0.0, 1e8):
        dot = pv.PolyData(np.full((1, 3), place))
        assert np.sum(picture(dot, np.ones(1)).min(axis=-1) < 250) > 1000


def test_element_and_node_values_of_real_results():
    mesh = read_mesh(MESHES / "bracket_part.vtu")
    ready = scene(mesh, None, SIZE)
    stress = np.asarray(mesh["Equivalent (von-Mises) Stress (psi)"], dtype=float)
    parents = ready.sources("cell")
    corner = ready.surface.regular_faces if ready.surface.is_all_triangles else None
    assert corner is not None
    centre = (np.asarray(ready.surface.points) + ready.origin)[corner].mean(axis=1)
    for i in range(0, len(parents), 40):  # a face belongs to the cell whose value it has
        points = mesh.get_cell(parents[i]).points
        assert np.all(centre[i] >= points.min(axis=0) - 1e-9)
        assert np.all(centre[i] <= points.max(axis=0) + 1e-9)
    shown = drawn(ready, stress, "cell")
    assert len(np.unique(shown.reshape(-1, 3), axis=0)) > 50


def test_layers_are_drawn_in_mesh_coordinates():
    box = pv.Cube(center=(1e6, 0, 0))
    mark = pv.Sphere(radius=0.2, center=(0, 0, 0))
    places = np.asarray(mark.points, dtype=float) + np.array([1e6, 0, 0])
    mark = carrying(mark, places, rows=np.ones(mark.n_points))
    ready = scene(box, "z", SIZE)
    layer = Layer(mark, field_scale(np.ones(1)))
    image = panel(ready, layers=[layer], opacity=0.2).pixels()
    height, width = image.shape[:2]
    middle = image[height // 2, width // 2].astype(int)
    assert np.ptp(middle) > 40
    assert np.ptp(image[height // 4, width // 4].astype(int)) < 25


def test_points_that_are_no_places_are_named():
    mesh = pv.PolyData(np.array([[0, 0, 0], [np.nan, 0, 0]]))
    with pytest.raises(ValueError, match="points must be finite: 1 of 2 are not"):
        plot_field(mesh, np.zeros(2))


def test_a_file_whose_points_have_moved_already(monkeypatch):
    from flare_geo.viz import displacement

    seen, real = [], displacement.scene
    monkeypatch.setattr(
        displacement, "scene", lambda mesh, *a, **k: (seen.append(mesh), real(mesh, *a, **k))[1]
    )
    can = read_mesh(MESHES / "can_part.vtu")
    plot_displacement(can, "DISPL", scale=1, deformed=True)
    np.testing.assert_allclose(seen[0].points, can.points, atol=1e-5)
    plot_displacement(can, "DISPL", scale=0, deformed=True)
    undeformed = can.points - can["DISPL"]
    np.testing.assert_allclose(seen[1].points, undeformed, atol=1e-5)
    # the file's shape before the crash is a straight can: its points lie in few heights
    assert len(np.unique(np.round(undeformed[:, 2], 3))) < 0.2 * can.n_points
    assert len(np.unique(np.round(can.points[:, 2], 3))) > 0.5 * can.n_points


@pytest.mark.slow
def test_a_million_triangles_in_seconds():
    sphere = pv.Sphere(theta_resolution=1000, phi_resolution=502)
    assert sphere.n_cells == 10**6
    start = time.process_time()  # other processes do not count
    plot_field(sphere, sphere.points[:, 2])
    assert time.process_time() - start < 60  # 3 s by VTK, 4 s without, where it was written
