from pathlib import Path

import numpy as np
import pytest
import torch

from flare_geo.mesh import read_mesh
from flare_geo.viz import isosurface
from flare_geo.viz.isosurface import chosen_levels, level_surfaces, plot_isosurfaces
from flare_geo.viz.render import theme
from flare_geo.viz.render.items import FIELD
from flare_geo.viz.render.surfaces import carrying

pv = pytest.importorskip("pyvista")
MESHES = Path(__file__).parents[1] / "data" / "meshes"


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(theme, "FIELD_PANEL", (420, 320))
    monkeypatch.setattr(theme, "PEELS", 2)


@pytest.fixture
def framed(monkeypatch):
    seen = []
    real = isosurface.picture
    monkeypatch.setattr(
        isosurface,
        "picture",
        lambda panel, **words: (seen.append((panel.pixels(), words)), real(panel, **words))[1],
    )
    return seen


def ball(n=41):
    grid = pv.ImageData(dimensions=(n, n, n), origin=(-1, -1, -1), spacing=3 * (2 / (n - 1),))
    return grid, np.linalg.norm(grid.points, axis=1)


def test_level_surfaces_are_where_the_field_has_the_level():
    grid, radius = ball()
    found = level_surfaces(carrying(grid, rows=radius), [0.3, 0.7])
    at = np.linalg.norm(found.points, axis=1)
    np.testing.assert_allclose(at, found.point_data[FIELD], atol=0.005)
    assert set(found.point_data[FIELD]) == {0.3, 0.7}
    broken = np.where(grid.points[:, 0] > 0.1, np.nan, radius)
    half = level_surfaces(carrying(grid, rows=broken), [0.7])
    assert half.points[:, 0].max() <= 0.1 + 1e-6
    assert half.n_cells > 100


def test_quadratic_cells(framed):
    mesh = read_mesh(MESHES / "bracket_part.vtu")
    field = mesh.points @ np.array([1.0, 2.0, 3.0])
    middle = float(np.median(field))
    found = level_surfaces(carrying(mesh, rows=field.astype(float)), [middle])
    np.testing.assert_allclose(found.points @ np.array([1.0, 2, 3]), middle, atol=1e-5)
    plot_isosurfaces(mesh, "Equivalent (von-Mises) Stress (psi)", label="stress [psi]", levels=3)
    assert framed[0][1]["subtitle"].endswith("[psi]    cell values averaged to points")


def test_lines_on_a_plane_have_the_colour_of_their_level_and_lie_there(square, framed):
    plot_isosurfaces(square, square.pos[:, 0], levels=[0.25, 0.75], label="u [m]", clim=(0, 1))
    panel, words = framed[0]
    panel = panel.astype(int)
    assert words["subtitle"] == "levels 0.25, 0.75 [m]"
    for level in (0.25, 0.75):
        column = round(level * (panel.shape[1] - 8) + 4)
        near = panel[200, column - 3 : column + 4]
        off = np.abs(near - words["scale"].rgb(level)).max(axis=1)
        assert off.min() <= 3
    plain = panel[200, round(0.5 * panel.shape[1])]
    assert np.ptp(plain) < 20  # grey


def test_solids_and_surfaces_of_real_files(framed):
    mesh = read_mesh(MESHES / "notch_part.vtk")
    plot_isosurfaces(mesh, mesh["Nodal Stress"][:, 0], levels=4, label="stress [Pa]")
    car = read_mesh(MESHES / "f1_part.vtp")
    before = car.copy()
    plot_isosurfaces(car, "p", levels=6, title="nose", note="part")
    assert car == before
    for panel, _ in framed:
        spread = panel.max(axis=-1).astype(int) - panel.min(axis=-1)
        assert np.sum(spread > 40) > 200


def test_levels_are_round_and_within():
    assert chosen_levels(5, 0.0, 23.0) == [5, 10, 15, 20]
    assert chosen_levels(1, 2.0, 4.0) == [3]
    assert chosen_levels([3, 1, 3], 0, 9) == [1, 3]
    for wrong in (0, [], [np.nan]):
        with pytest.raises(ValueError, match="levels must be"):
            chosen_levels(wrong, 0, 1)


def test_bad_input_is_named(bar):
    with pytest.raises(ValueError, match=r"range of the field, 0 to 8, got \[99\]"):
        plot_isosurfaces(bar, bar.pos[:, 0], levels=[99])
    with pytest.raises(ValueError, match="all of them are NaN"):
        plot_isosurfaces(bar, torch.full((81,), torch.nan))
    with pytest.raises(ValueError, match="got points alone"):
        plot_isosurfaces(pv.PolyData(np.eye(3)), np.ones(3))
    with pytest.raises(ValueError, match="values is missing"):
        plot_isosurfaces(bar)
