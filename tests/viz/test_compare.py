import numpy as np
import pytest
import torch

from flare_geo.viz import Comparison, compare, plot_comparison, plot_comparison_grid
from flare_geo.viz.render import theme
from flare_geo.viz.render.colors import field_scale


@pytest.fixture
def rows(monkeypatch):
    """The rows that were drawn, panels and scales, as they went onto the page."""
    seen = []
    put = compare._Row.put
    monkeypatch.setattr(
        compare._Row, "put", lambda row, *args: (seen.append(row), put(row, *args))[1]
    )
    return seen


def test_a_perfect_prediction_looks_like_the_truth_and_its_error_is_blank(square, rows):
    truth = square.pos[:, 0] + square.pos[:, 1]
    plot_comparison(square, truth, truth.clone())
    left, middle, right = rows[0].panels
    np.testing.assert_array_equal(left, middle)
    inside = right[10:-10, 10:-10].reshape(-1, 3)
    assert len(np.unique(inside, axis=0)) == 1
    assert inside.min() > 240  # the middle of the map, nearly white
    assert rows[0].heads[2][0] == "error, relative L2 0 %"


def test_truth_and_prediction_share_the_range_of_the_truth(square, rows):
    truth = 1 + square.pos[:, 0]
    plot_comparison(square, truth, 1 + 0.5 * square.pos[:, 0])
    scale, error = rows[0].fields.truth.scale, rows[0].fields.error.scale
    assert (scale.low, scale.high) == (1, 2)
    assert (error.low, error.high) == (-0.5, 0.5)
    end = rows[0].panels[1][190, -10].astype(int)  # the prediction is 1.5 at the right
    np.testing.assert_allclose(end, field_scale(truth.numpy()).rgb(1.49), atol=6)
    assert not scale.above
    plot_comparison(square, truth, 3 * truth)
    assert rows[1].fields.prediction.scale.above


def test_relative_l2_is_stated(square, rows):
    truth = torch.ones(square.num_nodes, 1)
    plot_comparison(square, truth, 1.0025 * truth[:, 0], label="p [Pa]")
    assert rows[0].heads[2] == ("error, relative L2 0.25 %", "min 2.5    max 2.5 [10⁻³ Pa]")


def test_the_sign_of_the_error_is_prediction_minus_truth(square, rows):
    truth = torch.ones(square.num_nodes)
    plot_comparison(square, truth, truth + (square.pos[:, 0] - 0.5))
    error = rows[0].panels[2][190].astype(int)
    assert error[-10, 0] > error[-10, 2]  # too high: orange
    assert error[10, 2] > error[10, 0]  # too low: violet


def test_vectors_have_the_length_of_their_difference(square, rows):
    truth = torch.ones(square.num_nodes, 2)
    plot_comparison(square, truth, -truth)
    assert rows[0].fields.error.scale.cmap.name == theme.ERROR_MAGNITUDE
    assert rows[0].heads[2] == ("error, relative L2 200 %", "min 2.828    max 2.828")


def test_several_cases_are_rows_of_one_picture(square, bar, rows, tmp_path):
    cases = [
        Comparison(square, square.pos[:, 0], square.pos[:, 1], "best"),
        Comparison(bar, np.arange(32.0), np.arange(32.0), "worst"),  # per cell
    ]
    path = tmp_path / "grid.png"
    image = plot_comparison_grid(cases, label="p [Pa]", title="t", note="n", path=path)
    assert [row.name for row in rows] == ["best", "worst"]
    assert rows[0].fields.truth.scale.high != rows[1].fields.truth.scale.high
    assert image.shape[0] > sum(row.panels[0].shape[0] for row in rows)
    assert path.stat().st_size > 0
    plot_comparison_grid(cases, clim=(0, 9), error_limit=2)
    ends = [(row.fields.truth.scale.high, row.fields.error.scale.high) for row in rows[2:]]
    assert ends == [(9, 2), (9, 2)]


def test_the_panels_are_on_the_page_pixel_by_pixel(square, rows):
    image = plot_comparison(square, square.pos[:, 0], square.pos[:, 1])
    found = 0
    assert not np.array_equal(rows[0].panels[0], rows[0].panels[1])
    for panel in rows[0].panels:
        height, width = panel.shape[:2]
        y = image.shape[0] - compare.MARGIN - height
        for x in range(image.shape[1] - width):
            if np.array_equal(image[y : y + height, x + width // 2], panel[:, width // 2]):
                found += np.array_equal(image[y : y + height, x : x + width], panel)
    assert found == 3


def test_bad_input_is_named(square):
    with pytest.raises(ValueError, match="truth must have one row per point"):
        plot_comparison(square, torch.zeros(3), torch.zeros(3))
    with pytest.raises(ValueError, match=r"same shape, got \[441\] and \[441, 2\]"):
        plot_comparison(square, torch.zeros(441), torch.zeros(441, 2))
    with pytest.raises(ValueError, match="cases is empty"):
        plot_comparison_grid([])
