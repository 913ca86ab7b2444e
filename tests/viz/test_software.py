"""The renderer without OpenGL: against formulas, and against the pictures of VTK."""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flare_geo.mesh import read_mesh
from flare_geo.viz.render import graphics, theme
from flare_geo.viz.render import scene as scenes
from flare_geo.viz.render.colors import ColorScale, field_scale
from flare_geo.viz.render.painted import Painted
from flare_geo.viz.render.scene import Layer, panel, scene
from flare_geo.viz.render.software import paint_by_software
from flare_geo.viz.render.surfaces import carrying, edges, outer

pv = pytest.importorskip("pyvista")
MESHES = Path(__file__).parents[1] / "data" / "meshes"
SIZE = (360, 360)


@pytest.fixture
def software(monkeypatch):
    monkeypatch.setattr(scenes, "paint", paint_by_software)


def gray(low, high):
    """Numbers from `low` to `high` as shades from 0 to 255."""
    matplotlib = theme.import_matplotlib()
    return ColorScale(low, high, matplotlib.colormaps["gray"])


def drawn(ready, rows, association, scale, **options):
    return panel(ready, Painted(rows, association, scale), **options).pixels()


def test_the_outline_of_a_sphere_is_a_circle(software):
    ball = pv.Sphere(radius=1, theta_resolution=120, phi_resolution=120)
    ready = scene(ball, "iso", SIZE)
    image = panel(ready).pixels()
    height, width = image.shape[:2]
    y, x = np.mgrid[:height, :width] + 0.5
    off = np.hypot(x - width / 2, y - height / 2) * ready.frame.pixel
    covered = image.min(axis=-1) < 250
    pixel = ready.frame.pixel
    assert covered[off < 1 - 2 * pixel].all()
    assert not covered[off > 1 + 2 * pixel].any()


def test_the_depth_of_a_sphere_is_seen_in_its_field(software):
    """Painted with the height towards the eye: sqrt(1 - r^2) at the distance r from the middle."""
    ball = pv.Sphere(radius=1, theta_resolution=200, phi_resolution=200)
    ready = scene(ball, "z", SIZE)
    flat = replace(ready, frame=replace(ready.frame, flat=True))  # unlit
    image = drawn(flat, np.asarray(ball.points[:, 2], dtype=float), "point", gray(0, 1))
    height, width = image.shape[:2]
    y, x = np.mgrid[:height, :width] + 0.5
    off = np.hypot(x - width / 2, y - height / 2) * ready.frame.pixel
    inside = off < 0.97
    expected = 255 * np.sqrt(1 - off[inside] ** 2)
    assert np.abs(image[inside][:, 0] - expected).max() < 3


def test_the_field_of_a_plane_is_linear_between_its_corners(software):
    corners = np.array([[0, 0, 0], [4, 0, 0], [4, 3, 0], [0, 3, 0]], dtype=float)
    sheet = pv.PolyData(corners, faces=[3, 0, 1, 2, 3, 0, 2, 3])
    field = 0.1 * corners[:, 0] + 0.2 * corners[:, 1]
    ready = scene(sheet, None, SIZE)
    image = drawn(ready, field, "point", gray(0, 1))
    height, width = image.shape[:2]
    y, x = np.mgrid[:height, :width] + 0.5
    x, y = (x - width / 2) * ready.frame.pixel + 2, (height / 2 - y) * ready.frame.pixel + 1.5
    inside = (x > 0.05) & (x < 3.95) & (y > 0.05) & (y < 2.95)
    expected = 255 * (0.1 * x + 0.2 * y)
    assert np.abs(image[..., 0] - expected)[inside].max() < 1.5
    np.testing.assert_array_equal(image[inside][:, 0], image[inside][:, 1])


def test_values_of_cells_and_values_that_are_missing(software):
    points = np.array([[0, 0, 0], [1, 0, 0], [2, 0, 0], [0, 1, 0], [1, 1, 0], [2, 1, 0]])
    sheet = pv.PolyData(points.astype(float), faces=[4, 0, 1, 4, 3, 4, 1, 2, 5, 4])
    ready = scene(sheet, None, SIZE)
    image = drawn(ready, np.array([0.25, np.nan]), "cell", gray(0, 1))
    height, width = image.shape[:2]
    assert set(image[height // 2, width // 4]) == {64}
    lost = np.round(255 * np.array(theme.import_matplotlib().colors.to_rgb(theme.NAN)))
    np.testing.assert_array_equal(image[height // 2, 3 * width // 4], lost)


def test_what_is_behind_is_hidden_and_what_is_clear_is_seen_through(software):
    back = pv.Plane(center=(0, 0, -1), i_size=2, j_size=2, i_resolution=1, j_resolution=1)
    front = pv.Plane(center=(0, 0, 1), i_size=1, j_size=1, i_resolution=1, j_resolution=1)
    both = back.merge(front, merge_points=False).extract_surface(algorithm=None)
    assert both.n_cells == 2
    z = np.asarray(both.cell_centers().points)[:, 2]
    ready = scene(both, "z", SIZE)
    flat = replace(ready, frame=replace(ready.frame, flat=True))
    image = drawn(flat, (z + 1) / 2, "cell", gray(-1, 1))
    height, width = image.shape[:2]
    assert image[height // 2, width // 2, 0] == 255  # the one in front
    assert image[height // 8, width // 8, 0] == 128  # the one behind
    half = drawn(flat, (z + 1) / 2, "cell", gray(-1, 1), opacity=0.5)
    expected = 0.5 * 255 + 0.5 * (0.5 * 128 + 0.5 * 255)  # over the ground, which is white
    assert abs(half[height // 2, width // 2, 0] - expected) <= 1
    assert abs(half[height // 8, width // 8, 0] - (0.5 * 128 + 0.5 * 255)) <= 1


def test_nothing_to_draw_is_white_paper(software):
    ready = scene(pv.Sphere(), None, SIZE)
    bare = replace(ready, outline=pv.PolyData())
    assert panel(bare, opacity=0.0).pixels().min() == 255


def sphere():
    ball = pv.Sphere(theta_resolution=40, phi_resolution=30)
    return {"mesh": ball, "values": ball.points[:, 2]}


def part():
    mesh = read_mesh(MESHES / "can_part.vtu")
    return {"mesh": mesh, "values": np.linalg.norm(mesh["DISPL"], axis=1), "show_edges": True}


def cells():
    mesh = read_mesh(MESHES / "bracket_part.vtu")
    values = mesh["Equivalent (von-Mises) Stress (psi)"]
    return {"mesh": mesh, "values": values, "association": "cell", "ghost": edges(outer(mesh))}


def sheet():
    plane = pv.Plane(i_resolution=30, j_resolution=30)
    return {"mesh": plane, "values": np.sin(7 * plane.points[:, 0]) * plane.points[:, 1]}


def cloud():
    points = np.random.default_rng(0).random((500, 3))
    return {"mesh": pv.PolyData(points), "values": points[:, 0]}


def curve():
    line = pv.Spline(np.random.default_rng(1).random((6, 3)), 100)
    return {"mesh": line, "values": np.arange(100.0)}


def plain():
    return {"mesh": pv.Cube()}


def gaps():
    ball = sphere()
    return ball | {"values": np.where(ball["values"] > 0.2, np.nan, ball["values"])}


def inside_of_a_solid():
    ball = pv.Sphere(radius=0.3, theta_resolution=20, phi_resolution=20)
    line = pv.Line((-0.4, -0.4, -0.4), (0.4, 0.4, 0.4), resolution=10)
    scale = field_scale(np.array([-0.3, 0.3]))
    layers = [
        Layer(carrying(ball, rows=np.asarray(ball.points)[:, 0]), scale, opacity=0.5),
        Layer(carrying(line, rows=np.linspace(-0.3, 0.3, 11)), scale, width=3.0),
    ]
    return {"mesh": pv.Cube(), "layers": layers, "opacity": 0.2}


KINDS = [sphere, part, cells, sheet, cloud, curve, plain, gaps, inside_of_a_solid]


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_are_those_of_vtk(kind, monkeypatch):
    if not graphics.can_draw():
        pytest.skip("the pictures of VTK are looked at here, and VTK cannot draw on this machine")
    from flare_geo.viz.render.opengl import paint_by_vtk

    options = kind()
    ready = scene(options.pop("mesh"), None, SIZE)
    if "values" in options:
        rows = np.asarray(options.pop("values"), dtype=float)
        association = options.pop("association", "point")
        options["painted"] = Painted(rows, association, field_scale(rows))
    images = []
    for paint in (paint_by_vtk, paint_by_software):
        monkeypatch.setattr(scenes, "paint", paint)
        images.append(panel(ready, **options).pixels().astype(int))
    theirs, ours = images
    assert theirs.shape == ours.shape
    off = np.abs(ours - theirs).max(axis=-1)
    assert (theirs.min(axis=-1) < 250).mean() > 0.02  # there is something
    assert np.mean(off) < 3  # of 255
    # Edges are rounded differently, and by no more than the pixels beside them: in squares of
    # three pixels no picture has a colour that the other one lacks, but for a few.
    assert np.mean(off > 60) < 0.01
    assert np.mean(_away(ours, theirs) > 60) < 0.001
    assert np.mean(_away(theirs, ours) > 60) < 0.001


def _away(one, other):
    """How far each pixel of a picture is from the nearest colour of the other one around it."""
    padded = np.pad(other, ((1, 1), (1, 1), (0, 0)), mode="edge")
    height, width = one.shape[:2]
    shifts = [padded[i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return np.min([np.abs(one - shifted).max(axis=-1) for shifted in shifts], axis=0)


@pytest.mark.slow
def test_a_car_of_180_000_triangles_takes_seconds(software):
    ball = pv.Sphere(theta_resolution=430, phi_resolution=215)
    assert ball.n_cells > 180_000
    ready = scene(ball, None, theme.FIELD_PANEL)
    start = time.process_time()  # other processes do not count
    drawn(ready, np.asarray(ball.points[:, 2], dtype=float), "point", gray(-1, 1))
    assert time.process_time() - start < 30  # 2 s where it was written
