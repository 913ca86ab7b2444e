import numpy as np
import pytest
import torch

from flare_geo.ops import spectrum
from flare_geo.viz.charts import spectra as module
from flare_geo.viz.charts.spectra import COLORS, effective_rank, plot_spectra
from flare_geo.viz.render import theme


@pytest.fixture
def blocks():
    index = torch.arange(16.0)
    slow, fast = torch.exp(-0.2 * index), torch.exp(-1.5 * index)
    return [torch.stack([slow, fast]), torch.stack([fast, fast**2])]


@pytest.fixture
def figures(monkeypatch):
    """The figures of the pictures that are drawn."""
    seen = []
    matplotlib = theme.import_matplotlib()
    real = matplotlib.figure.Figure

    def figure(**options):
        seen.append(real(**options))
        return seen[-1]

    monkeypatch.setattr(matplotlib.figure, "Figure", figure)
    return seen


def test_the_lines_are_the_eigenvalues_and_ranks_stand_above(blocks, figures):
    plot_spectra(blocks, tolerance=0.01)
    axes = figures[0].axes
    assert len(axes) == 2
    for each, values in zip(axes, blocks, strict=True):
        lines = each.get_lines()
        assert len(lines) == 3  # two heads and the tolerance
        for line, expected in zip(lines, values):
            np.testing.assert_array_equal(line.get_xdata(), np.arange(1, 17))
            np.testing.assert_allclose(line.get_ydata(), expected)
        np.testing.assert_array_equal(lines[2].get_ydata(), 0.01)
        assert each.get_yscale() == "log"
        assert each.get_ylim() == axes[0].get_ylim()
    ranks = spectrum.effective_rank(blocks[0])
    low, high = sorted(ranks.tolist())
    assert axes[0].get_title(loc="left") == f"block 0: effective rank {low:.3g} to {high:.3g}"


def test_effective_rank_is_that_of_ops(blocks):
    for values in (*blocks, torch.tensor([[1.0, 1, 0, 0]])):
        expected = spectrum.effective_rank(values)
        np.testing.assert_allclose(effective_rank(values.numpy()), expected, rtol=1e-6)


def test_each_head_has_its_colour_and_many_heads_share_one(blocks, tmp_path):
    path = tmp_path / "new" / "spectra.png"
    image = plot_spectra(blocks, path, title="a", note="b")
    for color in COLORS[:2]:
        rgb = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
        assert np.sum(np.all(image == rgb, axis=-1)) > 50
    read = theme.import_matplotlib().image.imread(path)[..., :3]
    np.testing.assert_array_equal(np.round(255 * read).astype(np.uint8), image)
    many = plot_spectra([torch.rand(32, 8).sort(descending=True).values])
    other = [int(COLORS[1][i : i + 2], 16) for i in (1, 3, 5)]
    assert not np.any(np.all(many == other, axis=-1))


def test_zeros_and_one_latent_are_pictures(figures):
    plot_spectra([torch.tensor([[1.0, 0.5, 0.0]]), torch.ones(1, 1)])
    assert figures[0].axes[0].get_ylim()[0] == pytest.approx(module.FLOOR / 10)
    assert figures[0].axes[0].get_title(loc="left").endswith("effective rank 1.89")


def test_bad_input_is_named(tmp_path, blocks):
    with pytest.raises(ValueError, match=r"eigenvalues is empty: expected \[H, M\]"):
        plot_spectra([])
    with pytest.raises(ValueError, match=r"must be \[H, M\] for each block, got \[16\]"):
        plot_spectra(blocks[0])
    with pytest.raises(ValueError, match=r"path must end in \.png"):
        plot_spectra(blocks, tmp_path / "a.pdf")
