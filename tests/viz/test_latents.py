from pathlib import Path

import numpy as np
import pytest
import torch

from flare_geo.mesh import read_mesh, to_pyvista
from flare_geo.viz import latents as module
from flare_geo.viz.latents import plot_eigenmodes, plot_latents, strongest
from flare_geo.viz.render import theme
from flare_geo.viz.render.colors import field_scale
from flare_geo.viz.render.scene import panel, scene

MESHES = Path(__file__).parents[1] / "data" / "meshes"


@pytest.fixture
def drawn(monkeypatch):
    """The values and colour scale of each panel."""
    seen = []

    def watched(ready, painted):
        seen.append((painted.rows, painted.association, painted.scale))
        return panel(ready, painted)

    monkeypatch.setattr(module, "panel", watched)
    return seen


@pytest.fixture
def bumps(square):
    """Weights of five latents on the square that sum to 1, ever more peaked, and one even."""
    centre = torch.tensor([[0.1, 0.1], [0.9, 0.1], [0.9, 0.9], [0.1, 0.9], [0.5, 0.5]])
    distance = torch.cdist(square.pos, centre)
    sharp = torch.tensor([1.0, 5.0, 20.0, 50.0, 200.0])
    even = torch.ones(441, 1)
    weights = torch.cat([even, torch.exp(-sharp * distance**2)], dim=1)
    return weights / weights.sum(dim=0)


def test_the_most_peaked_come_first_and_are_painted_as_they_are(square, bumps, drawn):
    assert strongest(bumps.numpy(), 4) == [5, 4, 3, 2]
    plot_latents(square, 441 * bumps, count=4, columns=2)
    assert len(drawn) == 4
    for (rows, association, scale), m in zip(drawn, [5, 4, 3, 2], strict=True):
        np.testing.assert_allclose(rows, 441 * bumps[:, m], rtol=1e-6)
        assert association == "point"
        assert scale is drawn[0][2]
    assert drawn[0][2].low == 0
    assert drawn[0][2].above == bool(441 * bumps[:, 2:].max() > 1.01 * drawn[0][2].high)


def test_a_large_share_counts_like_a_peak():
    decode = np.array([[0.9, 0.1, 0.0], [0.9, 0.1, 0.0], [0.9, 0.0, 0.1], [0.9, 0.0, 0.1]])
    assert strongest(decode, 2) == [0, 1]
    assert strongest(decode, 9) == [0, 1, 2]


def test_colours_are_those_of_the_bar_and_equal_where_values_are(square, drawn):
    values = torch.tensor([0.25, 0.75, 0.25]).expand(441, 3)
    image = plot_latents(square, values, chosen=[0, 1, 2], clim=(0, 1)).astype(int)
    ready = scene(to_pyvista(square), None, theme.LATENT_PANEL)
    height, width = panel(ready).pixels().shape[:2]
    colors = [drawn[0][2].rgb(value).astype(int) for value in (0.25, 0.75, 0.25)]
    for i, color in enumerate(colors):
        x = module.MARGIN + i * (width + module.GAP) + width // 2
        y = module.MARGIN + 2 * module.LINE - 14 + height // 2
        np.testing.assert_allclose(image[y, x], color, atol=2)
    assert (colors[0] == colors[2]).all()
    assert np.abs(colors[0] - colors[1]).max() > 50


def test_modes_are_centred_at_zero(square, drawn):
    modes = torch.stack([square.pos[:, 0] - 0.3, torch.ones(441)], dim=1)
    plot_eigenmodes(square, modes, [0.5, 0.25])
    white = drawn[0][2].rgb(0.0).astype(int)
    assert white.min() > 240
    assert (drawn[0][2].low, drawn[0][2].high) == (-1, 1)
    negative, positive = drawn[0][2].rgb(-0.8).astype(int), drawn[0][2].rgb(0.8).astype(int)
    assert negative[2] > negative[0] + 50
    assert positive[0] > positive[2] + 50


def test_signed_weights_take_the_diverging_map(square, drawn):
    plot_latents(square, (square.pos - 0.5), chosen=[0])
    expected = field_scale((square.pos[:, 0] - 0.5).numpy().astype(float))
    assert (drawn[0][2].rgb(-0.4) == expected.rgb(-0.4)).all()


@pytest.mark.parametrize("name", ["f1_part.vtp", "can_part.vtu", "bracket_part.vtu"])
def test_real_meshes_by_point_and_by_cell(name, tmp_path, drawn):
    mesh = read_mesh(MESHES / name)
    path = tmp_path / "new" / "latents.png"
    for n, association in ((mesh.n_points, "point"), (mesh.n_cells, "cell")):
        weights = np.random.default_rng(0).random((n, 3))
        image = plot_latents(mesh, weights, columns=2, path=path, title="a", note="b")
        assert image.shape[0] > 2 * 300
        assert image.shape[1] > 2 * 300
        assert [d[1] for d in drawn[-3:]] == [association] * 3
        for (rows, _, _), m in zip(drawn[-3:], strongest(weights, 3), strict=True):
            np.testing.assert_array_equal(rows, weights[:, m])
        assert len(np.unique(image.reshape(-1, 3) @ np.array([1, 256, 65536]))) > 500
    read = theme.import_matplotlib().image.imread(path)[..., :3]
    np.testing.assert_array_equal(np.round(255 * read).astype(np.uint8), image)


def test_bad_input_is_named(square, bumps, tmp_path):
    with pytest.raises(ValueError, match=r"weights must be \[n, m\], .* got \[441\]"):
        plot_latents(square, bumps[:, 0])
    with pytest.raises(ValueError, match=r"one row per point \(441\) or per cell \(800\), got 6"):
        plot_latents(square, bumps.T)
    with pytest.raises(ValueError, match="chosen must be columns 0 to 5 of weights, got 6"):
        plot_latents(square, bumps, chosen=[0, 6])
    with pytest.raises(ValueError, match="names must be as many as the panels, 2, got 1"):
        plot_latents(square, bumps, chosen=[0, 1], names=["a"])
    with pytest.raises(ValueError, match="nothing to draw: 0 latents"):
        plot_latents(square, bumps, chosen=[])
    with pytest.raises(ValueError, match=r"path must end in \.png"):
        plot_latents(square, bumps, path=tmp_path / "a.jpg")
