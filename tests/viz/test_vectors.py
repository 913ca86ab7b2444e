from pathlib import Path

import numpy as np
import pytest
import torch

from flare_geo.mesh import read_mesh
from flare_geo.viz import vectors
from flare_geo.viz.render import theme
from flare_geo.viz.render.items import FIELD
from flare_geo.viz.vectors import even_sample, plot_streamlines, plot_vectors, stream_lines

pv = pytest.importorskip("pyvista")
MESHES = Path(__file__).parents[1] / "data" / "meshes"


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(theme, "FIELD_PANEL", (420, 320))
    monkeypatch.setattr(theme, "PEELS", 2)


@pytest.fixture
def drawn(monkeypatch):
    seen = []
    real_panel, real_picture = vectors.panel, vectors.picture

    def panel(ready, **kwargs):
        made = real_panel(ready, **kwargs)
        seen.append({"ready": ready, "panel": made.pixels(), **kwargs})
        return made

    def picture(panel, **words):
        seen[-1] |= words
        return real_picture(panel, **words)

    monkeypatch.setattr(vectors, "panel", panel)
    monkeypatch.setattr(vectors, "picture", picture)
    return seen


def test_a_sample_is_even_and_within_the_count():
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.random((5000, 3)), 0.05 * rng.random((5000, 3))])
    kept, apart = even_sample(points, 300)
    assert 150 < len(kept) <= 300
    assert len(set(kept)) == len(kept)
    crowd = np.all(points[kept] < 0.05, axis=1).sum()
    assert crowd <= 2  # half of the points, but next to none of the arrows
    assert 0.1 < apart < 0.3
    assert len(even_sample(points[:7], 300)[0]) == 7
    assert even_sample(np.ones((5, 3)), 3)[0].tolist() == [0]


def test_arrows_start_at_points_and_are_as_long_as_is_said(bar, drawn):
    flow = torch.stack([torch.ones(81), 0 * bar.pos[:, 0], bar.pos[:, 0] / 8], dim=1)
    plot_vectors(bar, flow, scale=0.5, count=1000, label="v [m/s]")
    arrows = drawn[0]["layers"][0].mesh
    reach = np.asarray(arrows.points)
    assert reach[:, 0].max() == pytest.approx(8.5, abs=0.02)  # from x = 8, 0.5 * 1 along x
    assert reach[:, 2].max() == pytest.approx(2.5, abs=0.05)
    assert drawn[0]["opacity"] == theme.SEE_THROUGH
    said = drawn[0]["subtitle"].split("    ")
    assert said[:2] == ["81 arrows of 81", "longest 1.414 [m/s], drawn 0.7071 mesh units long"]
    np.testing.assert_allclose(np.unique(arrows[FIELD])[[0, -1]], [1, 2**0.5])


def test_arrows_on_real_meshes(drawn):
    car = read_mesh(MESHES / "f1_part.vtp")
    before = car.copy()
    plot_vectors(car, "U", count=150, label="U [m/s]", title="nose", note="part")
    assert drawn[0]["opacity"] == 1
    can = read_mesh(MESHES / "can_part.vtu")
    rows = np.ones((can.n_cells, 3))
    rows[:5] = np.nan
    plot_vectors(can, rows, count=10**6)
    assert drawn[1]["subtitle"].startswith(f"{can.n_cells - 5} arrows of {can.n_cells}")
    cloud = pv.PolyData(np.random.default_rng(0).normal(size=(50, 3)))
    plot_vectors(cloud, np.zeros((50, 3)))
    assert car == before
    spread = drawn[0]["panel"].max(axis=-1).astype(int) - drawn[0]["panel"].min(axis=-1)
    assert np.sum(spread > 40) > 2000


def test_a_plane_stays_flat_with_arrows(square, drawn):
    plot_vectors(square, torch.ones(441, 2), count=50)
    assert drawn[0]["ready"].frame.flat


def test_streamlines_of_a_vortex_are_circles(square, drawn):
    off = square.pos - 0.5
    flow = torch.stack([-off[:, 1], off[:, 0]], dim=1)
    plot_streamlines(square, flow, count=20, label="v [m/s]")
    lines = drawn[0]["layers"][0].mesh
    assert lines.n_lines >= 10
    for i in range(lines.n_lines):
        radius = np.linalg.norm(lines.get_cell(i).points[:, :2] - 0.5, axis=1)
        assert np.ptp(radius) < 0.02
        values = lines.point_data[FIELD][lines.get_cell(i).point_ids]
        np.testing.assert_allclose(values, radius, atol=0.02)
    assert drawn[0]["opacity"] == 1


def test_streamlines_go_through_solids_and_along_surfaces(bar, drawn):
    plot_streamlines(bar, torch.tensor([[2.0, 0.0, 0.0]]).expand(81, 3), count=30)
    lines = drawn[0]["layers"][0].mesh
    assert np.ptp(lines.points[:, 0]) > 7.9
    np.testing.assert_allclose(lines.point_data[FIELD], 2)
    assert drawn[0]["opacity"] == theme.SEE_THROUGH
    sphere = pv.Sphere(theta_resolution=40, phi_resolution=40)
    found = stream_lines(sphere, np.tile([0.0, 0.0, 1.0], (sphere.n_points, 1)), "point", 20)
    at = np.linalg.norm(found.points, axis=1)
    np.testing.assert_allclose(at, 0.5, atol=0.01)  # along the surface, not off it
    assert np.ptp(found.points[:, 2]) > 0.9
    quadratic = read_mesh(MESHES / "bracket_part.vtu")
    plot_streamlines(quadratic, np.tile([1.0, 0, 0], (quadratic.n_cells, 1)), count=20)
    assert drawn[1]["subtitle"].endswith("cell values averaged to points")


def test_streamlines_of_a_real_surface(drawn):
    car = read_mesh(MESHES / "f1_part.vtp")
    plot_streamlines(car, "U", count=40, label="U [m/s]")
    assert drawn[0]["layers"][0].mesh.n_lines > 10


def test_bad_input_is_named(bar):
    with pytest.raises(ValueError, match=r"vectors must be \[n, 2|3\], got a scalar"):
        plot_vectors(bar, bar.pos[:, 0])
    with pytest.raises(ValueError, match="vectors is missing"):
        plot_streamlines(bar)
    with pytest.raises(ValueError, match="all of them are NaN"):
        plot_vectors(bar, np.full((81, 3), np.nan))
    with pytest.raises(ValueError, match="there is no streamline"):
        plot_streamlines(bar, np.zeros((81, 3)))
    with pytest.raises(ValueError, match="got points alone"):
        plot_streamlines(pv.PolyData(np.eye(3)), np.ones((3, 3)))
    with pytest.raises(ValueError, match="scale must be 'auto' or a positive"):
        plot_vectors(bar, bar.pos, scale=-1)
    for plot in (plot_vectors, plot_streamlines):
        with pytest.raises(ValueError, match="count must be at least 1"):
            plot(bar, bar.pos, count=0)
