import numpy as np
import pytest

from flare_geo.viz.compare import relative_l2
from flare_geo.viz.render import theme
from flare_geo.viz.render.colors import error_scale, field_scale
from flare_geo.viz.render.labels import exponent, extremes, number, scaled_label


def test_fields_of_one_sign_are_sequential_from_end_to_end():
    scale = field_scale(np.array([2.0, 5.0, 3.0]))
    assert (scale.low, scale.high, scale.cmap.name) == (2, 5, theme.SEQUENTIAL)
    assert not scale.below
    assert not scale.above


def test_zero_is_in_the_middle_of_a_diverging_map_even_of_a_lopsided_field():
    scale = field_scale(np.linspace(-1.0, 3.0, 401))
    assert (scale.low, scale.high) == (-1, 3)
    assert scale.rgb(0).min() > 240
    blue, red = scale.rgb(-1).astype(int), scale.rgb(1).astype(int)
    assert blue[2] > red[2] + 20
    assert red[0] > blue[0] + 20
    full = field_scale(np.linspace(-3.0, 3.0, 601))
    for value in (-1, -0.5, 0.5, 2, 3):  # the same colour per unit as on a bar of both sides
        np.testing.assert_allclose(scale.rgb(value), full.rgb(value).astype(int), atol=4)


def test_noise_below_zero_does_not_make_a_stress_diverge():
    assert field_scale(np.array([-0.001, 0.5, 1.0])).cmap.name == theme.SEQUENTIAL


def test_a_few_extremes_are_clipped_and_the_bar_says_so():
    values = np.append(np.linspace(0, 1, 1000), 50.0)
    scale = field_scale(values)
    assert scale.high < 1.1
    assert scale.above
    assert not scale.below
    assert field_scale(values, clim=(0, 60)).high == 60


@pytest.mark.parametrize("value", [0.0, 4.0, -4.0])
def test_a_constant_field_has_a_range(value):
    scale = field_scale(np.full(5, value))
    assert scale.low <= value <= scale.high
    assert scale.low < scale.high


def test_nothing_but_nan_has_a_range():
    scale = field_scale(np.full(5, np.nan))
    assert scale.low < scale.high


def test_errors_are_centred_at_zero():
    scale = error_scale(np.array([-1.0, 0.0, 4.0]), signed=True)
    assert (scale.low, scale.high) == (-4, 4)
    assert error_scale(np.array([0.0, 4.0]), signed=False).low == 0
    assert error_scale(np.zeros(3), signed=True, size=50.0).high == pytest.approx(0.5)


@pytest.mark.parametrize("clim", [(1, 1), (2, 1), (0, np.nan), (1,), "ab"])
def test_a_bad_range_is_named(clim):
    with pytest.raises(ValueError, match=r"clim must be two finite numbers"):
        field_scale(np.zeros(3), clim=clim)


def test_relative_l2():
    assert relative_l2(np.array([3.0, 4.0]), np.array([3.0, 4.5])) == pytest.approx(0.1)
    assert relative_l2(np.zeros(2), np.zeros(2)) == 0


@pytest.mark.parametrize(
    ("size", "power"), [(0, 0), (5, 0), (9999, 0), (2e4, 3), (3e8, 6), (5e-3, -3), (np.inf, 0)]
)
def test_powers_of_ten_come_in_threes(size, power):
    assert exponent(size) == power


def test_labels_carry_the_power_in_front_of_the_unit():
    assert scaled_label("stress [Pa]", 6) == "stress [10⁶ Pa]"
    assert scaled_label("strain [-]", -3) == "strain [10⁻³]"
    assert scaled_label("p", 3) == "p [10³]"
    assert scaled_label("stress [Pa]", 0) == "stress [Pa]"


def test_extremes_are_those_of_the_field_not_of_the_bar():
    scale = field_scale(np.array([0.0, 1.0]), clim=(0, 1))
    words = extremes(np.array([-2.0, np.nan, 3.0]), scale, "p [Pa]")
    assert words.split("    ") == ["min −2", "max 3 [Pa]", "1 of 3 values are not finite"]
    assert number(-1e-17, beside=1.0) == "0"
