from pathlib import Path

import numpy as np
import pytest
import torch

from flare_geo.mesh import from_pyvista, read_mesh
from flare_geo.viz import gallery
from flare_geo.viz.gallery import plot_gallery

MESHES = Path(__file__).parents[1] / "data" / "meshes"


@pytest.fixture
def drawn(monkeypatch):
    """For each panel the ready scene, its values and the scale; and the words of the page."""
    seen, words = [], []
    real_panel, real_composed = gallery.panel, gallery._composed

    def panel(ready, painted, **kwargs):
        seen.append((ready, painted.rows, painted.scale))
        return real_panel(ready, painted, **kwargs)

    def composed(panels, names, across, colors, label, subtitle, **kwargs):
        words.append((names, across, label, subtitle))
        return real_composed(panels, names, across, colors, label, subtitle, **kwargs)

    monkeypatch.setattr(gallery, "panel", panel)
    monkeypatch.setattr(gallery, "_composed", composed)
    return seen, words


def test_vectors_are_coloured_by_the_vertical_one_with_one_scale(bar, drawn, tmp_path):
    small, large = bar.clone(), bar.clone()
    small.y, large.y = 0.01 * bar.pos, torch.stack([bar.pos[:, 0]] * 2 + [-bar.pos[:, 2]], dim=1)
    small.name = "small"
    image = plot_gallery([small, large], label="displacement [mm]", path=tmp_path / "a.png")
    seen, words = drawn
    np.testing.assert_allclose(seen[0][1], 0.01 * bar.pos[:, 2], rtol=1e-6)
    np.testing.assert_allclose(seen[1][1], -bar.pos[:, 2])
    assert seen[0][2] is seen[1][2]
    assert seen[0][2].low == -2
    assert words[0][0] == ["small", ""]
    assert words[0][2:] == ("displacement, z [mm]", "min −2    max 0.02 [mm]")
    assert (tmp_path / "a.png").stat().st_size > 1000
    assert image.shape[2] == 3
    np.testing.assert_allclose(seen[1][0].surface.bounds[1] + seen[1][0].origin[0], 8)


def test_deformed_parts_share_one_magnification(bar, drawn):
    parts = [bar.clone(), bar.clone()]
    parts[0].y, parts[1].y = torch.zeros(81, 3), torch.zeros(81, 3)
    parts[0].y[:, 2], parts[1].y[:, 2] = 0.001, 0.02
    plot_gallery(parts, scale="auto", component="length")
    (first, second), words = drawn
    assert words[0][3].startswith("deformation × 20    ")  # 0.1 * 8.49 / 0.02 = 42
    assert first[0].origin[2] == pytest.approx(1.02)
    assert second[0].origin[2] == pytest.approx(1.4)


def test_real_parts_of_different_kinds(drawn):
    can, bracket = read_mesh(MESHES / "can_part.vtu"), read_mesh(MESHES / "bracket_part.vtu")
    names = ("EQPS", "Equivalent (von-Mises) Stress (psi)")
    fields = [mesh[name] for mesh, name in zip((can, bracket), names)]
    plot_gallery([can, bracket], fields, names=["can", "bracket"], columns=1, title="parts")
    seen, words = drawn
    np.testing.assert_array_equal(seen[0][1], fields[0])
    assert words[0][1] == 1
    data = from_pyvista(can, y="DISPL")
    image = plot_gallery([data] * 5, names=list("abcde"))
    assert words[1][1] == 3
    assert image.shape[1] < 2000
    assert "NaN" not in words[1][3]


def test_every_part_is_on_the_page(square):
    square.y = square.pos[:, :1]
    one = plot_gallery([square], clim=(0, 1))
    four = plot_gallery([square] * 4, columns=2, clim=(0, 1))
    blue = [68, 1, 84]  # the colour of 0
    near = [np.sum(np.abs(image.astype(int) - blue).max(axis=-1) < 12) for image in (one, four)]
    assert 2.5 < near[1] / near[0] < 4.5  # besides the bar


def test_bad_input_is_named(bar):
    with pytest.raises(ValueError, match="parts is empty"):
        plot_gallery([])
    with pytest.raises(ValueError, match=r"values must be one per part \(2\), got 1"):
        plot_gallery([bar, bar], [bar.pos])
    bar.name = "bar"
    with pytest.raises(ValueError, match="part 1 bar: values must have one row per point"):
        plot_gallery([bar, bar], [bar.pos, bar.pos[:5]])
    with pytest.raises(ValueError, match="part 0 bar: there is no field"):
        plot_gallery([bar])
    with pytest.raises(ValueError, match="with a scale all values must be displacements"):
        plot_gallery([bar], [bar.pos[:, 0]], scale=2)
    with pytest.raises(ValueError, match="component must be"):
        plot_gallery([bar], [bar.pos], component="w")
