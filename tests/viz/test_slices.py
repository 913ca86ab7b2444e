from pathlib import Path

import numpy as np
import pytest
import torch

from flare_geo.mesh import read_mesh, to_pyvista
from flare_geo.viz import slices
from flare_geo.viz.render import theme
from flare_geo.viz.render.colors import field_scale
from flare_geo.viz.slices import direction, plot_clip, plot_slice

pv = pytest.importorskip("pyvista")
MESHES = Path(__file__).parents[1] / "data" / "meshes"
STRESS = "Equivalent (von-Mises) Stress (psi)"


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(theme, "FIELD_PANEL", (420, 320))
    monkeypatch.setattr(theme, "SMALLEST_PANEL", 40)
    monkeypatch.setattr(theme, "PEELS", 2)


@pytest.fixture
def drawn(monkeypatch):
    """What each picture was made of: the mesh drawn, its values, the scale, and the panel."""
    seen = []
    real_scene, real_panel, real_picture = slices.scene, slices.panel, slices.picture

    def scene(mesh, *args, **kwargs):
        seen.append({"mesh": mesh})
        return real_scene(mesh, *args, **kwargs)

    def panel(ready, painted=None, **kwargs):
        made = real_panel(ready, painted, **kwargs)
        seen[-1] |= {"ready": ready, "panel": made.pixels(), **kwargs}
        seen[-1] |= vars(painted) if painted else {}
        return made

    def picture(panel, **words):
        seen[-1] |= words
        return real_picture(panel, **words)

    for name, fake in (("scene", scene), ("panel", panel), ("picture", picture)):
        monkeypatch.setattr(slices, name, fake)
    return seen


def test_a_slice_shows_the_field_at_its_place_in_the_colours_of_the_bar(bar, drawn):
    values = bar.pos[:, 0] + 10 * bar.pos[:, 2]  # 0 to 28; y is 1 at the cut
    plot_slice(bar, values, label="T [K]")
    seen = drawn[0]
    points = np.asarray(seen["mesh"].points)
    np.testing.assert_array_equal(points[:, 1], 1)
    np.testing.assert_allclose(seen["rows"], points[:, 0] + 10 * points[:, 2], atol=1e-12)
    assert (seen["scale"].low, seen["scale"].high) == (0, 28)
    assert seen["subtitle"] == "cut at y = 1    min 0    max 28 [K]"
    assert seen["ready"].frame.flat
    panel = seen["panel"].astype(int)  # x to the right, z up
    height, width = panel.shape[:2]
    for x, z in ((2, 1.5), (6, 0.5), (7.5, 1.9)):
        row, column = (1 - z / 2) * (height - 8) + 4, x / 8 * (width - 8) + 4
        found = panel[round(row), round(column)]
        np.testing.assert_allclose(found, seen["scale"].rgb(x + 10 * z), atol=5)


def test_a_slice_keeps_cell_values_and_its_own_range_is_said(bar, drawn):
    values = torch.arange(32.0)
    plot_slice(bar, values, normal="x", origin=(2.5, 0, 0))
    mesh = to_pyvista(bar, v=values)
    met = mesh.cell_data["v"][np.abs(mesh.cell_centers().points[:, 0] - 2.5) < 0.1]
    assert drawn[0]["association"] == "cell"
    assert sorted(drawn[0]["rows"]) == sorted(met)
    assert (drawn[0]["scale"].low, drawn[0]["scale"].high) == (0, 31)


@pytest.mark.parametrize("normal", [(1.0, 2.0, -0.5), "z"])
def test_quadratic_cells_are_cut_at_the_right_values(normal, drawn):
    mesh = read_mesh(MESHES / "bracket_part.vtu")
    assert set(mesh.celltypes) == {24}
    plane = np.array([3.0, -1.0, 2.0])
    origin = mesh.cell_centers().points[7]
    plot_slice(mesh, mesh.points @ plane, normal=normal, origin=origin)
    rows, points = drawn[0]["rows"], np.asarray(drawn[0]["mesh"].points)
    assert len(rows) > 20
    np.testing.assert_allclose(rows, points @ plane, atol=1e-6)
    heights = points @ direction(normal)
    np.testing.assert_allclose(heights, heights[0], atol=1e-6)
    plot_slice(mesh, STRESS, normal=normal, origin=origin)
    assert set(drawn[1]["rows"]) <= set(mesh[STRESS].astype(float))


def test_surfaces_are_cut_along_curves(drawn):
    mesh = read_mesh(MESHES / "f1_part.vtp")
    before = mesh.copy()
    image = plot_slice(mesh, "p", label="p [m²/s²]")
    assert drawn[0]["mesh"].GetNumberOfPolys() == 0
    assert drawn[0]["mesh"].n_lines > 50
    spread = drawn[0]["panel"].max(axis=-1).astype(int) - drawn[0]["panel"].min(axis=-1)
    assert np.sum(spread > 40) > 100
    several = plot_slice(mesh, "p", cuts=3, normal="x")
    assert several.shape[2] == image.shape[2] == 3
    assert drawn[1]["opacity"] == theme.SEE_THROUGH
    heights = np.unique(np.round(drawn[1]["layers"][0].mesh.points[:, 0], 6))
    assert len(heights) == 3
    assert drawn[1]["subtitle"].startswith("3 cuts at x = ")
    assert mesh == before


def test_a_clip_takes_away_what_the_normal_points_to(bar, drawn):
    values = bar.pos[:, 0] + 10 * bar.pos[:, 2]
    plot_clip(bar, values, normal="x", origin=(3.5, 0, 0))
    seen, points = drawn[0], np.asarray(drawn[0]["mesh"].points)
    assert (points[:, 0].min(), points[:, 0].max()) == (0, 3.5)
    np.testing.assert_allclose(seen["rows"], points[:, 0] + 10 * points[:, 2], atol=1e-6)
    assert seen["ready"].frame.towards[0] > 0  # the eye looks at what was opened
    plot_clip(bar, values, normal="-x", origin=(3.5, 0, 0))
    assert drawn[1]["mesh"].points[:, 0].min() == 3.5
    assert drawn[1]["ready"].frame.towards[0] < 0
    assert seen["subtitle"] == "cut at x = 3.5    min 0    max 23.5"


def test_clips_of_real_meshes_and_clouds(drawn):
    mesh = read_mesh(MESHES / "can_part.vtu")
    plot_clip(mesh, "EQPS", label="EQPS [-]", normal="x", title="can", note="part")
    assert set(drawn[0]["rows"]) <= set(mesh["EQPS"].astype(float))
    colors = drawn[0]["panel"].reshape(-1, 3)
    assert not np.any(np.all(colors == [255, 0, 200], axis=-1))
    plot_clip(read_mesh(MESHES / "notch_part.vtk"), None)
    cloud = pv.PolyData(np.random.default_rng(0).normal(size=(200, 3)))
    plot_clip(cloud, cloud.points[:, 0], normal="z", origin=(0, 0, 0))
    assert drawn[2]["mesh"].n_points == np.sum(cloud.points[:, 2] <= 0)


def test_limits_are_shared_between_cuts(bar, drawn):
    values = bar.pos[:, 0] ** 2
    for x in (1.5, 6.5):
        plot_slice(bar, values, normal="x", origin=(x, 0, 0))
    first, second = (seen["scale"] for seen in drawn)
    whole = field_scale(values.numpy().astype(float))
    assert (first.low, first.high) == (second.low, second.high) == (whole.low, whole.high)


def test_bad_input_is_named(bar, tmp_path):
    with pytest.raises(ValueError, match="cut at x = 20 meets none of it, it reaches from 0 to 8"):
        plot_slice(bar, bar.pos[:, 0], normal="x", origin=(20, 0, 0))
    with pytest.raises(ValueError, match="cut at x = −20 meets none"):
        plot_clip(bar, bar.pos[:, 0], normal="x", origin=(-20, 0, 0))
    with pytest.raises(ValueError, match="normal must be one of x, -x"):
        plot_slice(bar, bar.pos[:, 0], normal="up")
    with pytest.raises(ValueError, match="not all zero"):
        plot_clip(bar, bar.pos[:, 0], normal=(0, 0, 0))
    with pytest.raises(ValueError, match="origin must be a point of three"):
        plot_slice(bar, bar.pos[:, 0], origin=(0, 0))
    with pytest.raises(ValueError, match="cuts must be from 1"):
        plot_slice(bar, bar.pos[:, 0], cuts=0)
    with pytest.raises(ValueError, match="got points alone"):
        plot_slice(pv.PolyData(np.eye(3)), np.ones(3))
    with pytest.raises(ValueError, match=r"path must end in \.png"):
        plot_clip(bar, bar.pos[:, 0], path=tmp_path / "a.jpg")
    assert not list(tmp_path.iterdir())
