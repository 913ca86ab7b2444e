import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from flare_geo.mesh import to_pyvista
from flare_geo.viz import plot_field
from flare_geo.viz.render import graphics, theme
from flare_geo.viz.render.camera import fit
from flare_geo.viz.render.colors import field_scale
from flare_geo.viz.render.composition import write_png
from flare_geo.viz.render.painted import Painted
from flare_geo.viz.render.scene import panel as panel_of
from flare_geo.viz.render.scene import scene
from flare_geo.viz.render.surfaces import outer

pv = pytest.importorskip("pyvista")
NAN = np.array([255, 0, 200])
SIZE = (400, 400)


def panel(data, values, **kwargs):
    """The pixels of the mesh alone, without page or outline."""
    ready = scene(to_pyvista(data), None, SIZE)
    rows = np.asarray(values, dtype=float)
    association = "point" if len(rows) == data.num_nodes else "cell"
    field = Painted(rows, association, field_scale(rows, **kwargs))
    return panel_of(ready, field).pixels()


def test_x_is_to_the_right_and_y_is_up_and_known_values_have_known_colours(square):
    x, y = square.pos.numpy().T
    scale = field_scale(x, clim=(0, 1))
    image = panel(square, x, clim=(0, 1)).astype(int)
    for share in (0.1, 0.5, 0.9):
        at = round(theme.PADDING + share * (image.shape[1] - 2 * theme.PADDING))
        np.testing.assert_allclose(image[200, at], scale.rgb(share), atol=6)
        np.testing.assert_allclose(image[60, at], image[340, at], atol=6)
    image = panel(square, y, clim=(0, 1)).astype(int)
    np.testing.assert_allclose(image[40, 200], scale.rgb(0.91), atol=8)  # row 40 is near the top


def test_a_constant_field_has_one_colour(square):
    image = panel(square, np.full(441, 7.0))
    inside = image[10:-10, 10:-10].reshape(-1, 3)
    assert len(np.unique(inside, axis=0)) == 1
    np.testing.assert_allclose(inside[0], field_scale(np.full(441, 7.0)).rgb(7), atol=1)


def test_one_value_per_face_is_flat_on_each_face(square):
    values = np.zeros(800)
    values[:400] = 1.0  # the lower triangles
    image = panel(square, values).astype(int)
    colors = np.unique(image[10:-10, 10:-10].reshape(-1, 3), axis=0, return_counts=True)
    two = sorted(colors[0][np.argsort(colors[1])[-2:]].tolist())
    scale = field_scale(values)
    np.testing.assert_allclose(two, [scale.rgb(0), scale.rgb(1)], atol=1)


def test_what_is_not_a_number_has_its_own_colour(square):
    values = square.pos[:, 0].clone()
    clean = plot_field(square, values)
    values[200:240] = torch.nan
    values[0] = torch.inf
    image = plot_field(square, values)
    assert not np.any(np.all(clean == NAN, axis=-1))
    assert np.sum(np.all(image == NAN, axis=-1)) > 1000


def test_vectors_are_drawn_by_their_length(square):
    value = square.pos[:, 0]
    vector = torch.stack([0.6 * value, -0.8 * value], dim=1)
    page = plot_field(square, vector).astype(int)
    assert np.mean(np.abs(page - plot_field(square, value)) > 3) < 1e-3


def test_data_y_and_names_are_found(square):
    square.y = square.pos[:, :1]
    square.pred = square.pos[:, 0]
    expected = plot_field(square, square.y)
    np.testing.assert_array_equal(plot_field(square), expected)
    np.testing.assert_array_equal(plot_field(square, "pred"), expected)
    mesh = to_pyvista(square, pred=square.pred)
    np.testing.assert_array_equal(plot_field(mesh, "pred"), expected)
    with pytest.raises(ValueError, match="no field 'q', only"):
        plot_field(square, "q")


def test_solids_surfaces_and_clouds_are_drawn_and_left_alone(bar):
    mesh = to_pyvista(bar, p=bar.pos[:, 0])
    before = mesh.copy()
    for thing in (mesh, outer(mesh), pv.PolyData(mesh.points)):
        image = plot_field(thing, np.arange(thing.n_points), show_edges=True, title="a", note="b")
        assert len(np.unique(image @ np.array([1, 256, 65536]))) > 100
    assert mesh == before


def test_a_cloud_has_balls_as_large_as_its_spacing():
    grid = np.stack(np.meshgrid(np.arange(5.0), np.arange(5.0)), axis=-1).reshape(-1, 2)
    data = Data(pos=torch.tensor(grid))
    image = panel(data, np.ones(25))
    filled = np.mean(np.any(image < 250, axis=-1))
    assert filled == pytest.approx(25 * np.pi * 0.45**2 / 4.9**2, abs=0.02)  # diameter 0.9


def test_one_point_is_a_picture():
    image = plot_field(Data(pos=torch.ones(1, 3)), torch.ones(1))
    assert np.any(image[300:-300, 300:-400] < 200)


def test_views():
    points = np.random.default_rng(0).normal(size=(100, 3))
    for view in ("iso", "x", "-x", "y", "-y", "z", "-z", (1.0, 2.0, 3.0), (0.0, 0.0, 2.0)):
        frame = fit(points, view, SIZE)
        assert frame.up @ frame.towards == pytest.approx(0, abs=1e-12)
        assert not frame.flat
    assert fit(points * [1, 0, 1], None, SIZE).towards.tolist() == [0, -1, 0]
    with pytest.raises(ValueError, match="view must be one of iso, x"):
        fit(points, "top", SIZE)
    with pytest.raises(ValueError, match="not all zero"):
        fit(points, (0.0, 0.0, 0.0), SIZE)


def test_bad_input_is_named(square, tmp_path):
    message = r"values must have one row per point \(441\) or per cell \(800\), got 5"
    with pytest.raises(ValueError, match=message):
        plot_field(square, torch.zeros(5))
    with pytest.raises(ValueError, match=r"got \[441, 6\]: pass one column"):
        plot_field(square, torch.zeros(441, 6))
    with pytest.raises(ValueError, match="the mesh is empty"):
        plot_field(pv.PolyData(), torch.zeros(0))
    with pytest.raises(ValueError, match=r"path must end in \.png, got 'a\.jpg'"):
        plot_field(square, torch.zeros(441), path=tmp_path / "a.jpg")
    with pytest.raises(ValueError, match="cmap must name a matplotlib colour map"):
        plot_field(square, torch.zeros(441), cmap="nope")
    with pytest.raises(TypeError, match=r"expected a PyG Data with pos or a mesh of .*, got str"):
        plot_field("mesh.vtu")


def test_the_file_is_the_picture_and_is_written_in_one_piece(square, tmp_path, monkeypatch):
    path = tmp_path / "new" / "picture.png"
    image = plot_field(square, square.pos[:, 0], path=path)
    matplotlib = theme.import_matplotlib()
    read = np.round(255 * matplotlib.image.imread(path)[..., :3]).astype(np.uint8)
    np.testing.assert_array_equal(read, image)
    assert [file.name for file in path.parent.iterdir()] == ["picture.png"]

    before = path.read_bytes()

    def broken(name, *args, **kwargs):
        name.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(matplotlib.image, "imsave", broken)
    with pytest.raises(OSError, match="disk full"):
        write_png(image, path)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["picture.png"]


def test_without_a_display_nothing_is_printed_and_nothing_is_left_set():
    code = """
import os, sys
import flare_geo.viz as viz
assert not {"pyvista", "vtkmodules", "matplotlib"} & set(sys.modules), "imported too early"
import numpy as np, pyvista as pv
mesh = pv.Sphere()
first = viz.plot_field(mesh, mesh.points[:, 2])
second = viz.plot_field(mesh, mesh.points[:, 2])
assert np.array_equal(first, second)
assert "VTK_DEFAULT_OPENGL_WINDOW" not in os.environ
assert "pyvista.plotting" not in sys.modules or not pv.plotting.plotter._ALL_PLOTTERS
"""
    hidden = ("DISPLAY", "WAYLAND_DISPLAY", "VTK_DEFAULT_OPENGL_WINDOW")
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={name: value for name, value in os.environ.items() if name not in hidden},
        capture_output=True,
        text=True,
        timeout=120,
    )
    said = "" if graphics.can_draw() else f"{graphics.NOTICE}\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, "", said)


def test_missing_pyvista_is_one_line(monkeypatch, square):
    monkeypatch.setitem(sys.modules, "pyvista", None)
    with pytest.raises(ImportError, match=r'pip install "flare-geo\[viz\]"'):
        plot_field(square, square.pos[:, 0])
