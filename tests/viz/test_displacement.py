import numpy as np
import pytest
import torch

from flare_geo.mesh import to_pyvista
from flare_geo.viz import displacement, plot_displacement
from flare_geo.viz.displacement import magnification, warp


@pytest.fixture
def framed(monkeypatch):
    """Pixels and texts of each picture."""
    seen = []
    real = displacement.picture
    monkeypatch.setattr(
        displacement,
        "picture",
        lambda panel, **words: (seen.append((panel.pixels(), words)), real(panel, **words))[1],
    )
    return seen


def colored(panel):
    """Columns and rows that hold something else than white, grey or black."""
    spread = panel.max(axis=-1).astype(int) - panel.min(axis=-1)
    return np.flatnonzero((spread > 40).any(axis=0)), np.flatnonzero((spread > 40).any(axis=1))


def test_points_move_by_the_factor_and_the_mesh_stays(bar):
    mesh = to_pyvista(bar)
    before = np.array(mesh.points)
    moved = np.tile([0.0, 0.0, 2.0], (81, 1))
    np.testing.assert_allclose(warp(mesh, moved, 3.0).points, before + np.array([0, 0, 6]))
    plot_displacement(mesh, moved)
    np.testing.assert_array_equal(mesh.points, before)


def test_the_picture_moves_to_the_right_and_says_how_much(square, framed):
    moved = torch.tensor([0.01, 0.0]).expand(441, 2)
    plot_displacement(square, moved, scale=50, label="displacement [mm]")
    panel, words = framed[0]
    assert words["subtitle"].split("    ")[0] == "deformation × 50"
    columns, _ = colored(panel)
    width = panel.shape[1]
    assert columns.min() / width == pytest.approx(1 / 3, abs=0.02)  # 0.5 of 1.5
    assert columns.max() / width == pytest.approx(1, abs=0.02)
    outline = np.flatnonzero((panel < 200).any(axis=(0, 2)))
    assert outline.min() < 10  # the undeformed square is still in sight


def test_up_is_up(square, framed):
    moved = torch.tensor([0.0, 0.01]).expand(441, 2)
    plot_displacement(square, moved, scale=50)
    _, rows = colored(framed[0][0])
    assert rows.min() < 10
    assert rows.max() / framed[0][0].shape[0] == pytest.approx(2 / 3, abs=0.02)


def test_colours_show_the_displacement_itself(square, framed):
    square.y = torch.stack([-square.pos[:, 0], 0 * square.pos[:, 0]], dim=1) * 1e-3
    plot_displacement(square, component="x", label="u [mm]")
    words = framed[0][1]
    assert words["label"] == "u, x [mm]"
    assert (words["scale"].low, words["scale"].high) == (pytest.approx(-1e-3), 0)
    assert words["subtitle"] == "deformation × 100    min −1    max 0 [10⁻³ mm]"


def test_clouds_and_missing_values_are_drawn(bar):
    moved = 0.1 * torch.ones(81, 3)
    moved[3] = torch.nan
    del bar.cells
    image = plot_displacement(bar, moved)
    assert np.any(np.all(image == [255, 0, 200], axis=-1))


@pytest.mark.parametrize(
    ("largest", "factor"), [(0, 1), (0.1, 1), (0.5, 1), (0.04, 2), (0.01, 10), (0.0019, 50)]
)
def test_magnification_is_round_and_never_shrinks(largest, factor):
    assert magnification(largest, 1.0) == factor


def test_bad_input_is_named(square):
    with pytest.raises(ValueError, match=r"one vector per point \[441, 2|3\], got \[441\]"):
        plot_displacement(square, torch.zeros(441))
    with pytest.raises(ValueError, match="scale must be 'auto' or a finite number, got inf"):
        plot_displacement(square, torch.zeros(441, 2), scale=float("inf"))
    with pytest.raises(ValueError, match="component must be 'x', 'y', 'z' or None, got 'w'"):
        plot_displacement(square, torch.zeros(441, 2), component="w")
