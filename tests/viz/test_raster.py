"""Triangles and balls against what geometry says of them, pixel by pixel."""

import numpy as np
import pytest

from flare_geo.viz.render.raster import Canvas, discs, triangles, weights

SIZE = (60, 40)
CENTRES = np.stack(np.meshgrid(np.arange(60) + 0.5, np.arange(40) + 0.5), axis=-1)  # [40, 60, 2]


def drawn(*parts, near=100.0, far=-100.0):
    """Which of some groups of fragments is seen, `[40, 60]`; each is (fragments, first)."""
    canvas = Canvas(*SIZE, near=near, far=far)
    for fragments, first in parts:
        canvas.add(fragments, first)
    return canvas.seen()


def depths(fragments):
    """Depth and owner at each pixel of fragments that do not overlap; NaN, -1 elsewhere."""
    depth, owner = np.full(40 * 60, np.nan), np.full(40 * 60, -1)
    for part in fragments:
        assert np.isnan(depth[part.pixel]).all(), "a pixel is covered twice"
        depth[part.pixel], owner[part.pixel] = part.depth, part.owner
    return depth.reshape(40, 60), owner.reshape(40, 60)


def test_a_triangle_covers_the_pixels_whose_centres_it_holds():
    generator = np.random.default_rng(1)
    for _ in range(50):
        corners = generator.uniform([-20, -20, -50], [80, 60, 50], (3, 3))
        inside = np.ones(CENTRES.shape[:2], dtype=bool)
        turn = np.sign(np.linalg.det(corners[1:, :2] - corners[0, :2]))
        for a, b in zip(corners, np.roll(corners, -1, axis=0)):
            side, off = b[:2] - a[:2], CENTRES - a[:2]
            inside &= turn * (side[0] * off[..., 1] - side[1] * off[..., 0]) >= 0
        depth, owner = depths(triangles(corners[None], SIZE))
        np.testing.assert_array_equal(owner >= 0, inside)
        # The depth is that of the plane through the corners.
        plane = np.linalg.solve(np.column_stack([corners[:, :2], np.ones(3)]), corners[:, 2])
        expected = CENTRES @ plane[:2] + plane[2]
        np.testing.assert_allclose(depth[inside], expected[inside], atol=1e-8)


def test_neighbours_share_no_pixel_and_leave_none():
    generator = np.random.default_rng(2)
    x, y = np.meshgrid(np.linspace(0, 60, 12), np.linspace(0, 40, 9))
    inner = np.s_[1:-1, 1:-1]
    x[inner] += generator.uniform(-1.5, 1.5, x[inner].shape)
    y[inner] += generator.uniform(-1.5, 1.5, y[inner].shape)
    points = np.stack([x.ravel(), y.ravel(), np.zeros(x.size)], axis=1)
    at = np.arange(x.size).reshape(x.shape)
    a, b, c, d = at[:-1, :-1], at[:-1, 1:], at[1:, 1:], at[1:, :-1]
    faces = np.concatenate([np.stack([a, b, c], -1), np.stack([c, a, d], -1)]).reshape(-1, 3)
    _, owner = depths(triangles(points[faces], SIZE))  # fails where one is covered twice
    assert owner.min() >= 0
    # Sides that run exactly through the centres of pixels belong to one of the two as well.
    halves = np.array(
        [[[10.5, 5.5], [30.5, 25.5], [10.5, 25.5]], [[10.5, 5.5], [30.5, 5.5], [30.5, 25.5]]]
    )
    halves = np.concatenate([halves, np.zeros((2, 3, 1))], axis=-1)
    _, owner = depths(triangles(halves, SIZE))
    assert np.sum(owner >= 0) == 20 * 20


def test_a_ball_is_round_and_as_deep_as_a_ball():
    middle, radius = np.array([30.2, 19.7, 4.0]), 12.5
    off = ((CENTRES - middle[:2]) ** 2).sum(axis=-1)
    depth, owner = depths(discs(middle[None], radius, SIZE))
    np.testing.assert_array_equal(owner >= 0, off <= radius**2)
    inside = off <= radius**2
    np.testing.assert_allclose(depth[inside], 4 + np.sqrt(radius**2 - off[inside]), atol=1e-9)


def test_what_is_nearer_is_seen_whatever_the_order():
    big = np.array([[[-99, -99, 0], [199, -99, 0], [30, 300, 0]]], dtype=float)
    small = np.array([[[10, 10, 5], [40, 10, 5], [10, 35, 5]]], dtype=float)
    first = drawn((triangles(big, SIZE), 0), (triangles(small, SIZE), 1))
    second = drawn((triangles(small, SIZE), 1), (triangles(big, SIZE), 0))
    np.testing.assert_array_equal(first, second)
    assert set(np.unique(first)) == {0, 1}
    np.testing.assert_array_equal(first == 1, drawn((triangles(small, SIZE), 1)) == 1)
    hidden = small - [0, 0, 10]
    assert np.all(drawn((triangles(hidden, SIZE), 1), (triangles(big, SIZE), 0)) == 0)


def test_planes_that_cross_meet_on_a_line():
    falling = np.array([[[-100, -100, 130], [200, -100, -170], [30, 400, 0]]], dtype=float)
    rising = falling * [1, 1, -1]
    seen = drawn((triangles(falling, SIZE), 0), (triangles(rising, SIZE), 1))
    # z = 30 - x and x - 30
    np.testing.assert_array_equal(seen, np.where(CENTRES[..., 0] < 30, 0, 1))


def test_two_balls_meet_in_the_plane_between_them():
    centres = np.array([[25.0, 20, 0], [37.0, 20, 0]])
    seen = drawn((discs(centres, 10.0, SIZE), 0))
    row = seen[20]
    assert row[14] == -1
    np.testing.assert_array_equal(row[15:47], np.repeat([0, 1], 16))


def test_shares_of_corners_give_back_a_linear_field():
    generator = np.random.default_rng(3)
    corners = generator.uniform(0, 60, (200, 3, 2))
    mixed = generator.dirichlet([1, 1, 1], 200)
    place = np.einsum("kc,kcd->kd", mixed, corners)
    np.testing.assert_allclose(weights(corners, *place.T), mixed, atol=1e-6)


@pytest.mark.parametrize("flat", [[[5, 5], [5, 5], [9, 9]], [[5, 5], [9, 9], [7, 7]]])
def test_triangles_without_area_and_those_outside_cover_nothing(flat):
    outside = [[-50, -50], [-10, -50], [-50, -10]]
    both = np.pad(np.array([flat, outside], dtype=float), ((0, 0), (0, 0), (0, 1)))
    assert sum(len(part.owner) for part in triangles(both, SIZE)) == 0
    assert sum(len(part.owner) for part in discs(np.array([[-30.0, 5, 0]]), 10.0, SIZE)) == 0
