import numpy as np
import pytest
from matplotlib.image import imread

from flare_geo.viz import plot_histograms
from flare_geo.viz.charts.histograms import BINS, histogram


def test_picture(tmp_path):
    rng = np.random.default_rng(0)
    channels = {f"y[{i}] pressure [Pa]": rng.normal(size=500) for i in range(5)}
    channels["with a gap"] = np.array([1.0, np.nan, 2.0])
    path = tmp_path / "some" / "histograms.png"
    picture = plot_histograms(channels, path, title="toy, train split", note="generated data")
    assert (imread(path)[..., :3] * 255).round().astype(np.uint8).shape == picture.shape
    blue = (picture == (0, 0x72, 0xB2)).all(axis=-1)
    assert blue.mean() > 0.05
    one = plot_histograms({"u": rng.normal(size=500)})
    assert one.shape[1] < picture.shape[1] / 2


def test_counts_are_those_of_the_values():
    values = np.array([0.0, 0.0, 3.0, 6.0])
    counts, edges = histogram(values)
    assert len(counts) == BINS
    assert counts.sum() == 4
    assert (counts[0], counts[BINS // 2], counts[-1]) == (2, 1, 1)
    assert (edges[0], edges[-1]) == (0, 6)
    for value in (0.0, 5.0, -3.0):
        counts, edges = histogram(np.full(7, value))
        assert counts.tolist() == [7]
        assert edges[0] < value < edges[1]


def test_nothing_to_draw(tmp_path):
    with pytest.raises(ValueError, match="channels is empty"):
        plot_histograms({})
    with pytest.raises(ValueError, match="channel 'u' has no finite value among 2"):
        plot_histograms({"u": [np.nan, np.inf]})
    with pytest.raises(ValueError, match=r"path must end in .png, got 'a.jpg'"):
        plot_histograms({"u": [1.0]}, tmp_path / "a.jpg")
