import numpy as np
import pytest

from flare_geo.datasets.generators.panel import (
    Mirror,
    induced,
    influence,
    panels_of,
    surface_flow,
)

ALONG = np.array([1.0, 0.0, 0.0])


def ellipsoid(rings, around, axes=(1.0, 1.0, 1.0), middle=(0.0, 0.0, 0.0), half=False, pear=0.0):
    """Panels of an ellipsoid with its poles on the x axis, or of its half at positive y."""
    s = np.linspace(0, np.pi, rings + 1)[:, None]
    t = np.linspace(0, np.pi if half else 2 * np.pi, around + 1)[None]
    unit = [-np.cos(s) + 0 * t, np.sin(s) * np.sin(t), np.sin(s) * -np.cos(t)]
    p = np.stack(unit, axis=-1) * axes
    p[..., 1:] *= 1 + pear * p[..., :1]
    p += middle
    corners = np.stack([p[:-1, :-1], p[:-1, 1:], p[1:, 1:], p[1:, :-1]], axis=2)
    return panels_of(corners.reshape(-1, 4, 3))


def rms(error, area):
    return np.sqrt(np.sum(area * error**2) / np.sum(area))


def orders(errors):
    return np.log2(np.divide(errors[:-1], errors[1:]))


# One panel


def square(size=1.0):
    corners = np.array([[[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]]) * size / 2
    return panels_of(corners)


def test_panel_against_quadrature():
    panel = panels_of(np.array([[[0.0, 0, 0], [2, 0.2, 0], [1.5, 1, 0], [0.1, 0.7, 0]]]))
    points = np.random.default_rng(0).uniform(-2, 3, (50, 3))
    points = points[np.abs(points[:, 2]) > 0.3]
    node, weight = np.polynomial.legendre.leggauss(60)
    u, v = np.meshgrid((node + 1) / 2, (node + 1) / 2)
    a, b, c, d = panel.corners[0]
    y = (
        np.multiply.outer((1 - u) * (1 - v), a)
        + np.multiply.outer(u * (1 - v), b)
        + np.multiply.outer(u * v, c)
        + np.multiply.outer((1 - u) * v, d)
    )
    yu = np.multiply.outer(1 - v, b - a) + np.multiply.outer(v, c - d)
    yv = np.multiply.outer(1 - u, d - a) + np.multiply.outer(u, c - b)
    share = np.linalg.norm(np.cross(yu, yv), axis=-1) * np.outer(weight, weight) / 4
    r = points[:, None, None] - y
    kernel = r / (4 * np.pi * np.linalg.norm(r, axis=-1, keepdims=True) ** 3)
    want = np.einsum("puvc,uv->pc", kernel, share)
    np.testing.assert_allclose(influence(points, panel)[:, 0], want, rtol=1e-7, atol=1e-10)
    assert panel.area[0] == pytest.approx(share.sum())
    assert np.allclose(panel.centre[0], np.einsum("uvc,uv->c", y, share) / share.sum())


def test_panel_from_far_is_a_point_source():
    point = np.array([[300.0, -400.0, 1200.0]])
    want = point / (4 * np.pi * 1300**3)
    np.testing.assert_allclose(influence(point, square())[:, 0], want, rtol=1e-6)


def test_velocity_through_the_panel_jumps_by_its_strength():
    above = influence(np.array([[0.1, 0.2, 1e-7]]), square())[0, 0]
    below = influence(np.array([[0.1, 0.2, -1e-7]]), square())[0, 0]
    np.testing.assert_allclose(above - below, [0, 0, 1], atol=1e-6)
    own = influence(np.zeros((1, 3)), square(), own=True)[0, 0]
    np.testing.assert_allclose(own, [0, 0, 0.5], atol=1e-15)


def test_warped_and_triangular_quadrilaterals():
    warped = panels_of(np.array([[[0.0, 0, 0.1], [1, 0, -0.1], [1, 1, 0.1], [0, 1, -0.1]]]))
    np.testing.assert_allclose(warped.normal, [[0, 0, 1]], atol=1e-15)
    np.testing.assert_allclose(warped.corners[0, :, 2], 0, atol=1e-15)
    triangle = panels_of(np.array([[[0.0, 0, 0], [0, 0, 0], [1, 0, 0], [0, 1, 0]]]))
    np.testing.assert_allclose(triangle.centre, [[1 / 3, 1 / 3, 0]], atol=1e-15)
    assert triangle.area[0] == pytest.approx(0.5)
    assert np.isfinite(influence(np.array([[0.3, 0.3, 0.0], [2, 1, 1]]), triangle)).all()


def test_blocks_of_points_give_the_same(monkeypatch):
    from flare_geo.datasets.generators import panel

    ball = ellipsoid(4, 6)
    whole = influence(ball.centre, ball, own=True)
    monkeypatch.setattr(panel, "PAIRS", 5 * len(ball.area))
    parts = influence(ball.centre, ball, own=True)
    np.testing.assert_allclose(parts, whole, rtol=0, atol=1e-13 * np.abs(whole).max())


# Bodies with a known flow


def test_sphere_converges_to_the_exact_pressure():
    errors = []
    for n in (8, 16, 24):
        ball = ellipsoid(n, 2 * n)
        _, velocity = surface_flow(ball, ALONG)
        sin2 = 1 - (ball.centre[:, 0] / np.linalg.norm(ball.centre, axis=1)) ** 2
        cp = 1 - np.sum(velocity**2, axis=1)
        errors.append(rms(cp - (1 - 9 / 4 * sin2), ball.area))
        np.testing.assert_allclose(np.sum(velocity * ball.normal, axis=1), 0, atol=1e-12)
    assert errors[-1] < 0.01
    assert errors == sorted(errors, reverse=True)
    assert np.log(errors[0] / errors[-1]) / np.log(3) > 0.95  # flat panels: first order


def test_ellipsoid_converges_to_the_exact_velocity():
    axes = np.array([2.0, 1.0, 0.6])
    # on an ellipsoid v = (1 + k) (U - (U.n) n), k = a0 / (2 - a0) (Lamb, Hydrodynamics, 114)
    x, w = np.polynomial.legendre.leggauss(400)
    t = (1 + x) / (1 - x)  # 0 to infinity
    kernel = 1 / ((axes[0] ** 2 + t) * np.sqrt(np.prod(axes**2 + t[:, None], axis=1)))
    a0 = np.prod(axes) * np.sum(w * 2 / (1 - x) ** 2 * kernel)
    errors = []
    for n in (6, 12, 24):
        body = ellipsoid(n, 2 * n, axes)
        _, velocity = surface_flow(body, ALONG)
        normal = body.centre / axes**2
        normal /= np.linalg.norm(normal, axis=1, keepdims=True)
        want = (1 + a0 / (2 - a0)) * (ALONG - normal[:, :1] * normal)
        errors.append(rms(np.linalg.norm(velocity - want, axis=1), body.area))
    assert errors[-1] < 0.02
    assert (orders(errors) > 0.8).all()


def test_drag_vanishes():
    """d'Alembert: no force in a potential flow; here a body without fore-and-aft symmetry."""
    drags = []
    for n in (6, 12, 24):
        body = ellipsoid(n, 2 * n, (1.5, 0.8, 0.6), pear=0.3)
        _, velocity = surface_flow(body, ALONG)
        cp = 1 - np.sum(velocity**2, axis=1)
        force = -np.sum(cp * body.area * body.normal[:, 0]) / (np.pi * 0.8 * 0.6)
        drags.append(abs(force))
        assert np.sum(np.abs(cp * body.area * body.normal[:, 0])) > 0.5  # it has to cancel
    assert drags[-1] < 0.02
    assert (orders(drags) > 1).all()
    assert abs(2 * drags[2] - drags[1]) < 0.004  # what first order leaves in the limit


# Mirrors


def test_ground_is_the_same_as_a_second_body():
    ball = ellipsoid(8, 12, middle=(0, 0, 1.15))
    twin = panels_of(np.concatenate([ball.corners, (ball.corners * [1, 1, -1])[:, ::-1]]))
    _, alone = surface_flow(ball, ALONG, [Mirror(2, 0.0)])
    _, both = surface_flow(twin, ALONG)
    np.testing.assert_allclose(alone, both[: len(alone)], atol=1e-12)
    _, free = surface_flow(ball, ALONG)
    under = np.argmin(ball.centre[:, 2])
    assert np.linalg.norm(alone[under]) > 1.1 * np.linalg.norm(free[under])  # faster in the gap


def test_nothing_flows_through_the_mirrors():
    half = ellipsoid(8, 6, middle=(0, 0.5, 0.2), half=True)
    mirrors = [Mirror(1, 0.5), Mirror(2, -1.0)]
    strength, _ = surface_flow(half, ALONG, mirrors)
    rng = np.random.default_rng(0)
    for axis, at in mirrors:
        points = rng.uniform(-3, 3, (40, 3))
        points[:, axis] = at
        points = points[np.linalg.norm(points - [0, 0.5, 0.2], axis=1) > 1.05]
        velocity = np.einsum("pnc,n->pc", induced(points, half, mirrors), strength)
        assert np.abs(velocity).max() > 1e-2
        np.testing.assert_allclose(velocity[:, axis], 0, atol=1e-14)


def test_half_a_symmetric_body_is_enough():
    whole, half = ellipsoid(8, 12), ellipsoid(8, 6, half=True)
    _, want = surface_flow(whole, ALONG)
    _, velocity = surface_flow(half, ALONG, [Mirror(1, 0.0)])
    want = want.reshape(8, 12, 3)[:, :6].reshape(-1, 3)
    np.testing.assert_allclose(velocity, want, atol=1e-12)
