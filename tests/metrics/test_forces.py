import math

import pytest
import torch

from flare_geo.mesh import polygon_geometry
from flare_geo.metrics import force_coefficients, r2_score, surface_force

RADIUS, HEIGHT = 0.7, 1.3
VOLUME = 2.5 * RADIUS**2 * math.sin(2 * math.pi / 5) * HEIGHT
PRISM = (  # two pentagons, four quadrilaterals, two triangles, counter-clockwise from inside
    *((0, 1, 2, 3, 4), (9, 8, 7, 6, 5)),
    *((0, 5, 6, 1), (1, 6, 7, 2), (2, 7, 8, 3), (3, 8, 9, 4), (4, 9, 0), (9, 5, 0)),
)


def prism(seed=0):
    """Centres and area vectors, into the body, of a prism somewhere, turned."""
    generator = torch.Generator().manual_seed(seed)
    angle = 2 * math.pi * torch.arange(5, dtype=torch.float64) / 5
    ring = torch.stack([RADIUS * angle.cos(), RADIUS * angle.sin(), 0 * angle], dim=1)
    points = torch.cat([ring, ring + torch.tensor([0, 0, HEIGHT])])
    turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))
    turn = turn * turn.det()  # no mirror image
    points = points @ turn.T + torch.randn(3, generator=generator, dtype=torch.float64)
    corners = torch.tensor([i for face in PRISM for i in face])
    offsets = torch.tensor([0, *(len(face) for face in PRISM)]).cumsum(0)
    centre, area = polygon_geometry(points.numpy(), corners.numpy(), offsets.numpy())
    return torch.from_numpy(centre), torch.from_numpy(area)


@pytest.mark.parametrize("seed", range(3))
def test_constant_pressure_pushes_nowhere(seed):
    centre, area = prism(seed)
    force = surface_force(torch.full((len(centre),), 1e5, dtype=torch.float64), None, area)
    torch.testing.assert_close(force, torch.zeros(1, 3).double(), atol=1e-9, rtol=0)


@pytest.mark.parametrize("seed", range(3))
def test_linear_pressure_is_buoyancy(seed):
    """The divergence theorem: p = g x on a closed surface pushes with -g times the volume."""
    centre, area = prism(seed)
    slope = torch.tensor([[0.0, 0.0, 1.0], [0.3, -2.0, 0.5]], dtype=torch.float64)
    pressure = (slope @ centre.T).flatten()
    force = surface_force(pressure, None, area.repeat(2, 1), torch.tensor([0, 8, 16]))
    torch.testing.assert_close(force, -slope * VOLUME)


def test_friction_pulls_against_the_stress_of_the_solver():
    _, area = prism()
    shear = torch.tensor([-0.2, 0.0, 0.1], dtype=torch.float64).expand(8, 3)
    force = surface_force(torch.zeros(8, dtype=torch.float64), shear, area)
    whole = float(area.norm(dim=1).sum())
    torch.testing.assert_close(force[0], torch.tensor([0.2, 0.0, -0.1]).double() * whole)


def test_bodies_do_not_see_each_other():
    torch.manual_seed(0)
    ptr = torch.tensor([0, 3, 3, 4, 10])
    p, tau, area = torch.randn(10), torch.randn(10, 3), torch.randn(10, 3)
    force = surface_force(p, tau, area, ptr)
    assert force.dtype == torch.float32
    for i, (a, b) in enumerate(zip(ptr[:-1], ptr[1:])):
        by_hand = (p[a:b, None] * area[a:b] - tau[a:b] * area[a:b].norm(dim=1)[:, None]).sum(0)
        torch.testing.assert_close(force[i], by_hand, atol=1e-5, rtol=1e-5)
    assert torch.equal(force[1], torch.zeros(3))


def test_large_pressures_cancel_in_float32():
    area = torch.randn(200_000, 3, generator=torch.Generator().manual_seed(0))
    area = torch.cat([area, -area])
    pressure = torch.full((400_000,), 1e5)
    pressure[:200_000] += 1 / 128  # the spacing of float32 there
    force = surface_force(pressure, None, area)[0]
    expected = area[:200_000].double().sum(0) / 128
    torch.testing.assert_close(force.double(), expected, rtol=1e-5, atol=0)


def test_gradients():
    torch.manual_seed(0)
    p, tau, area = (torch.randn(*s, dtype=torch.float64) for s in ((6,), (6, 3), (6, 3)))
    inputs = [t.requires_grad_() for t in (p, tau, area)]
    ptr = torch.tensor([0, 2, 6])
    assert torch.autograd.gradcheck(lambda *x: surface_force(*x, ptr), inputs)


def test_coefficients():
    force = torch.tensor([[4.0, 9.0, -2.0], [8.0, 9.0, 4.0]])
    drag, lift = force_coefficients(force, 2.0, torch.tensor([1.0, 4.0]))
    assert drag.tolist() == [2.0, 1.0]
    assert lift.tolist() == [-1.0, 0.5]
    true = torch.tensor([[2.0], [1.0]])
    assert float(r2_score(drag.unsqueeze(1), true)) == 1.0


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((4, 1), (4, 3), (4, 3)), r"pressure must be \[N\] .*got \[4, 1\], \[4, 3\], \[4, 3\]"),
        (((4,), (4, 3), (5, 3)), r"one row per face, got \[4\], \[4, 3\], \[5, 3\]"),
        (((4,), (4, 1), (4, 3)), r"got \[4\], \[4, 1\], \[4, 3\]"),
    ],
)
def test_wrong_shapes(shapes, message):
    with pytest.raises(ValueError, match=message):
        surface_force(*map(torch.ones, shapes))
    with pytest.raises(ValueError, match="ptr must end at N=4"):
        surface_force(torch.ones(4), None, torch.ones(4, 3), torch.tensor([0, 3]))


def test_wrong_references():
    with pytest.raises(ValueError, match=r"force must be \[B, 3\], got \[3\]"):
        force_coefficients(torch.ones(3), 1.0, 1.0)
    with pytest.raises(ValueError, match=r"reference_area must be a number or \[2\], got \[2, 1\]"):
        force_coefficients(torch.ones(2, 3), 1.0, torch.ones(2, 1))
