"""Drawing into a plotter, or on axes, that the caller gives."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from without_graphics import run_without_graphics

from flare_geo import viz
from flare_geo.mesh import read_mesh
from flare_geo.viz.render import graphics
from flare_geo.viz.render.colors import field_scale
from flare_geo.viz.render.opengl import offscreen_plotter

pv = pytest.importorskip("pyvista")
MESHES = Path(__file__).parents[1] / "data" / "meshes"
PICTURES = {
    "plot_field": {},
    "plot_displacement": {},
    "plot_slice": {"normal": "z"},
    "plot_clip": {},
    "plot_isosurfaces": {"levels": 3},
    "plot_vectors": {"count": 20},
    "plot_streamlines": {"count": 5},
}


class Recorder:
    """A plotter that keeps what is added to it: it needs no OpenGL and cannot render."""

    def __init__(self):
        self.added, self.camera, self.renderer = [], Recorded(), Recorded()

    def add_mesh(self, mesh, **look):
        self.added.append((mesh, look, Recorded()))
        return self.added[-1][2]


class Recorded:
    def __getattr__(self, name):
        return lambda *arguments: setattr(self, f"called_{name}", arguments)


@pytest.mark.parametrize("name", PICTURES)
def test_every_picture_of_one_panel_can_be_drawn_into_a_plotter(name, bar, monkeypatch):
    monkeypatch.setattr("flare_geo.viz.render.scene.paint", None)  # nothing is rendered
    bar.pos += torch.tensor([500.0, 0.0, 0.0])
    flow = torch.stack([1 + bar.pos[:, 0] - 500, bar.pos[:, 1], bar.pos[:, 2]], dim=1)
    plotter = Recorder()
    function = getattr(viz, name)
    assert function(bar, flow, label="v [m/s]", plotter=plotter, **PICTURES[name]) is plotter
    low = np.min([mesh.points.min(axis=0) + actor.position for mesh, _, actor in plotter.added], 0)
    high = np.max([mesh.points.max(axis=0) + actor.position for mesh, _, actor in plotter.added], 0)
    assert 499 < low[0] < high[0] < 521  # in the coordinates of the mesh
    assert 500 < plotter.camera.focal_point[0] < 511
    bars = [look for _, look, _ in plotter.added if look["show_scalar_bar"]]
    assert [look["scalar_bar_args"]["title"] for look in bars] == ["v [m/s]"]
    assert not any(look["render"] for _, look, _ in plotter.added)
    for word in ("path", "title", "note"):
        with pytest.raises(ValueError, match=f"{word} must be None with plotter"):
            function(bar, flow, plotter=plotter, **{word: "a.png"})


def test_what_the_caller_adds_stands_beside_the_field(square):
    if not graphics.can_draw():
        pytest.skip("the plotter's own picture is looked at here, and VTK cannot draw")
    square.pos += torch.tensor([1000.0, -7.0])
    x = square.pos[:, 0]
    scale = field_scale(x.numpy().astype(float))
    with offscreen_plotter((600, 300)) as made:
        plotter = viz.plot_field(square, x, label="x [m]", plotter=made)
        assert plotter is made
        assert list(made.scalar_bars.keys()) == ["x [m]"]
        made.add_mesh(pv.PolyData([[1000.5, -6.5, 0.1]]), color="red", point_size=30)
        image = made.screenshot(None, return_img=True).astype(int)
    height, width = image.shape[:2]
    np.testing.assert_allclose(image[height // 2, width // 2], [255, 0, 0], atol=3)
    near = np.abs(image - scale.rgb(1000.3)).max(axis=-1) < 8
    assert near.sum() > 100


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux libraries are hidden")
def test_a_plotter_is_filled_where_there_is_no_opengl():
    """pyvista itself cannot make a window there, so its plotter is one that records."""
    code = """
import pyvista as pv
from test_own_plotter import Recorder
from flare_geo.viz import plot_field
mesh, plotter = pv.Sphere(), Recorder()
assert plot_field(mesh, mesh.points[:, 2], plotter=plotter) is plotter
print(len(plotter.added))
"""
    code = f"import sys; sys.path[:0] = {[str(Path(__file__).parent), *sys.path]!r}\n{code}"
    done = run_without_graphics("all", code)
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) >= 1


N = 2.0 ** np.arange(4)
CHARTS = {
    "plot_error_histogram": (([0.1, 0.2, 0.4],), {}, 1),
    "plot_error_against_size": (([10, 20], [0.1, 0.2]), {}, 1),
    "plot_scaling": (({"a": (N, N)},), {"x_label": "points", "y_label": "s"}, 1),
    "plot_parity": (({"Cd": (N, N), "Cl": (N, N)},), {}, 2),
    "plot_histograms": (({"p": N, "u": N, "v": N},), {}, 3),
    "plot_spectra": (([np.array([[1.0, 0.5]])] * 2,), {}, 2),
    "plot_learning_curves": (({"train/loss": [1.0, 0.5], "lr": [0.1, 0.2]},), {}, 2),
}


@pytest.mark.parametrize("name", CHARTS)
def test_every_chart_can_be_drawn_on_axes_of_the_caller(name, monkeypatch):
    arguments, words, count = CHARTS[name]
    figure = Figure()
    axes = figure.subplots(1, count)
    monkeypatch.setattr("flare_geo.viz.charts.axes.write_png", None)
    function = getattr(viz, name)
    assert function(*arguments, axes=axes, **words) is axes
    assert all(each.has_data() for each in np.ravel(axes))
    assert len(figure.axes) == count
    with pytest.raises(ValueError, match="path must be None with axes"):
        function(*arguments, "a.png", axes=axes, **words)
    with pytest.raises(ValueError, match=rf"one per panel \({count}\), got {count + 1}"):
        function(*arguments, axes=Figure().subplots(1, count + 1), **words)


def test_what_is_shown_of_a_file_is_left_alone():
    mesh = read_mesh(MESHES / "f1_part.vtp")
    before = mesh.copy()
    viz.plot_field(mesh, "p", plotter=Recorder())
    assert mesh == before
