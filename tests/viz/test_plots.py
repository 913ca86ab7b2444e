import numpy as np
import pytest
from matplotlib.image import imread

from flare_geo.viz.charts import axes as module
from flare_geo.viz.charts.histograms import plot_error_histogram
from flare_geo.viz.charts.points import (
    agreement,
    fitted_slope,
    plot_error_against_size,
    plot_parity,
    plot_scaling,
)
from flare_geo.viz.render import theme

BLUE = [int(theme.SERIES[0][i : i + 2], 16) for i in (1, 3, 5)]


@pytest.fixture
def charts(monkeypatch):
    """The charts that are drawn, to look at what is on their axes."""
    made = []
    real = module.Chart.__init__
    monkeypatch.setattr(
        module.Chart,
        "__init__",
        lambda self, *args, **kwargs: (made.append(self), real(self, *args, **kwargs))[1],
    )
    return made


def words(figure):
    import matplotlib.text

    return " | ".join(t.get_text() for t in figure.findobj(matplotlib.text.Text) if t.get_text())


def points(axes):
    return np.asarray(axes.collections[0].get_offsets())


def test_histogram_counts_every_case_and_says_median_mean_and_worst(charts, tmp_path):
    errors = np.random.default_rng(0).normal(30, 5, 200)
    path = tmp_path / "errors.png"
    image = plot_error_histogram(errors, path, label="relative L2 error [%]", note="generated data")
    counts = charts[0].axes[0].patches[0].get_data().values
    assert counts.sum() == 200
    text = words(charts[0].figure)
    for word, value in (("median", np.median(errors)), ("mean", errors.mean())):
        assert f"{word} {value:.4g}" in text
    assert f"worst {errors.max():.4g}" in text
    assert "relative L2 error [%]" in text
    assert "generated data" in text
    np.testing.assert_array_equal(np.round(255 * imread(path)[..., :3]).astype(np.uint8), image)


def test_a_few_cases_and_errors_that_are_no_numbers(charts):
    plot_error_histogram([0.2, np.nan, np.inf])
    assert charts[0].axes[0].patches[0].get_data().values.sum() == 1
    assert "errors that are not finite: 2" in words(charts[0].figure)
    with pytest.raises(ValueError, match="errors has no finite value among 2"):
        plot_error_histogram([np.nan, np.nan])


def test_parity_shows_the_pairs_the_line_and_the_agreement(charts):
    true, predicted = np.array([[0.2, 0.3, 0.4], [0.2, 0.31, 0.38]])
    image = plot_parity({"Cd": (true, predicted), "drag [N]": (true, true)})
    left = charts[0].axes[0]
    np.testing.assert_allclose(points(left), np.column_stack([true, predicted]))
    assert left.get_xlim() == left.get_ylim()
    x, y = left.lines[0].get_data()
    assert (x[0], x[1]) == (y[0], y[1]) == left.get_xlim()
    text = words(charts[0].figure)
    assert "Cd: R2 0.975, largest error 0.02" in text  # 1 - 0.0005 / 0.02
    assert "drag: R2 1, largest error 0 N" in text
    assert "predicted drag [N]" in text
    assert (np.abs(image.astype(int) - BLUE).max(axis=-1) < 60).sum() > 200


def test_agreement_of_values_that_do_not_differ_has_no_r2():
    r2, worst = agreement(np.ones(3), np.array([1.0, 1.5, 1.0]))
    assert np.isnan(r2)
    assert worst == 0.5
    plot_parity({"Cl": (np.ones(1), np.ones(1))})


def test_error_against_size_names_the_worst(charts):
    plot_error_against_size(
        [100, 2000, 50_000, 10], [1.0, 9.0, 3.0, 0.0], names=["a", "$b_1$", "c", "d"]
    )
    axes = charts[0].axes[0]
    np.testing.assert_allclose(points(axes), [[100, 1], [2000, 9], [50_000, 3]])
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert [t.get_text() for t in axes.texts] == ["$b_1$"]
    assert axes.texts[0].xy == (2000, 9)
    assert "cases that cannot be drawn: 1" in words(charts[0].figure)


def test_one_size_and_one_error_is_a_picture():
    assert plot_error_against_size([972], [0.5]).dtype == np.uint8


def test_scaling_prints_the_slope_that_was_fitted(charts):
    n = 2.0 ** np.arange(10, 18)
    plot_scaling(
        {"FLARE": (n, 3e-6 * n), "softmax": (n[:4], 1e-9 * n[:4] ** 2), "one": (n[:1], [1.0])},
        x_label="points",
        y_label="time per step [s]",
        note="one H100",
    )
    text = words(charts[0].figure)
    assert "FLARE, slope 1.00" in text
    assert "softmax, slope 2.00" in text
    assert "one |" in text
    assert "time per step [s]" in text


def test_slope():
    x = np.array([1.0, 10.0, 100.0])
    assert fitted_slope(x, 5 * x**-0.5) == pytest.approx(-0.5)
    assert np.isnan(fitted_slope(np.ones(3), x))


def test_runs_that_failed_are_left_out(charts):
    plot_scaling({"a": ([1, 2, 4], [1.0, 2.0, np.nan])}, x_label="n", y_label="s")
    assert charts[0].axes[0].lines[0].get_xdata().tolist() == [1, 2]


def test_bad_input_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"path must end in \.png, got 'a\.jpg'"):
        plot_error_histogram([1.0], tmp_path / "a.jpg")
    with pytest.raises(ValueError, match=r"errors must be one number per case \[n\], got \[1, 2\]"):
        plot_error_histogram([[1.0, 2.0]])
    with pytest.raises(ValueError, match="Cd: expected as many of both, got 2 and 1"):
        plot_parity({"Cd": ([1.0, 2.0], [1.0])})
    with pytest.raises(ValueError, match="Cd: no pair of finite values among 1"):
        plot_parity({"Cd": ([np.nan], [1.0])})
    with pytest.raises(ValueError, match="pairs is empty"):
        plot_parity({})
    with pytest.raises(ValueError, match="sizes and errors: no pair of positive values among 1"):
        plot_error_against_size([10], [0.0])
    with pytest.raises(ValueError, match="series must be 1 to 7, got 0"):
        plot_scaling({}, x_label="n", y_label="s")
