import numpy as np
import pytest

from flare_geo.mesh import point_geometry, polygon_geometry, polygons


def ring(corners, turn=0.0):
    angle = turn + 2 * np.pi * np.arange(corners) / corners
    return np.stack([np.cos(angle), np.sin(angle), np.zeros(corners)], axis=1)


def mixed(seed=0):
    """Regular polygons of 3 to 9 corners, moved, scaled and turned in space."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(3, 10, 50)
    points, centre, area = [], [], []
    for m in sizes:
        q, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        q *= np.sign(np.linalg.det(q))
        radius, middle = rng.uniform(0.1, 3), rng.normal(size=3) * 10
        points.append(radius * ring(m, rng.uniform()) @ q.T + middle)
        centre.append(middle)
        area.append(m / 2 * np.sin(2 * np.pi / m) * radius**2 * q[:, 2])
    return np.concatenate(points), sizes, np.array(centre), np.array(area)


@pytest.mark.parametrize("block", [1, 7, 2**20])
def test_regular_polygons_of_any_size(monkeypatch, block):
    monkeypatch.setattr(polygons, "BLOCK_CORNERS", block)
    points, sizes, centre, area = mixed()
    offsets = np.append(0, np.cumsum(sizes))
    order = np.random.default_rng(1).permutation(len(points))  # points need not lie in order
    c, a = polygon_geometry(points[order], np.argsort(order), offsets)
    assert c.dtype == a.dtype == np.float64
    np.testing.assert_allclose(c, centre, atol=1e-12)
    np.testing.assert_allclose(a, area, atol=1e-12)


def test_a_concave_polygon_and_one_that_is_not_plane():
    # an L of 3 unit squares; a square with one corner lifted, whose area vector is its shadows'
    ell = np.array([[0, 0, 0], [2, 0, 0], [2, 1, 0], [1, 1, 0], [1, 2, 0], [0, 2, 0]])
    bent = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 1], [0, 1, 0]])
    points = np.concatenate([ell, bent])
    _, area = polygon_geometry(points, np.arange(10), np.array([0, 6, 10]))
    np.testing.assert_allclose(area, [[0, 0, 3], [-0.5, -0.5, 1]])


@pytest.mark.parametrize("block", [1, 3, 2**20])
def test_cells_without_area_or_corners_are_zero_and_quiet(monkeypatch, block):
    monkeypatch.setattr(polygons, "BLOCK_CORNERS", block)
    points = np.array([[1, 1, 1], [2, 1, 1], [3, 1, 1], [1, 2, 1]], dtype=np.float32)
    cells = [[], [0, 1, 2], [0], [0, 1, 3], [1, 1, 1], [], [0, 1], []]
    offsets = np.append(0, np.cumsum([len(c) for c in cells]))
    centre, area = polygon_geometry(points, np.concatenate(cells).astype(int), offsets)
    np.testing.assert_array_equal(np.linalg.norm(area, axis=1), [0, 0, 0, 0.5, 0, 0, 0, 0])
    np.testing.assert_allclose(
        centre[[0, 1, 2, 4, 6]], [[0] * 3, [2, 1, 1], [1] * 3, [2, 1, 1], [1.5, 1, 1]]
    )
    normal, share = point_geometry(area, np.concatenate(cells).astype(int), offsets, 4)
    np.testing.assert_allclose(share, [1 / 6, 1 / 6, 0, 1 / 6])
    np.testing.assert_allclose(normal, [[0, 0, 1], [0, 0, 1], [0, 0, 0], [0, 0, 1]])


def test_far_from_the_origin_nothing_is_lost():
    points = ring(6) * 1e-3 + np.array([1e4, -1e4, 1e4])
    _, area = polygon_geometry(points, np.arange(6), np.array([0, 6]))
    assert np.linalg.norm(area) == pytest.approx(1e-6 * 1.5 * 3**0.5, rel=1e-8)


@pytest.mark.parametrize(
    ("points", "connectivity", "offsets", "message"),
    [
        (np.zeros((3, 2)), [0, 1, 2], [0, 3], r"points must be \[n, 3\], got \[3, 2\]"),
        (np.zeros((3, 3)), [0, 1, 3], [0, 3], r"points 0\.\.2, got 0\.\.3"),
        (np.zeros((3, 3)), [-1, 1, 2], [0, 3], r"points 0\.\.2, got -1\.\.2"),
        (np.zeros((3, 3)), [0, 1, 2], [0, 2], "from 0 to the 3 entries"),
        (np.zeros((3, 3)), [0, 1, 2], [0, 3, 2, 3], "must rise from 0"),
        (np.zeros((3, 3)), [0, 1, 2], [], "offsets .f . 1., got .3. and .0."),
    ],
)
def test_bad_arrays_are_named(points, connectivity, offsets, message):
    with pytest.raises(ValueError, match=message):
        polygon_geometry(points, np.array(connectivity), np.array(offsets, dtype=int))
