import pytest
import torch
import trimesh
from torch_geometric.data import Batch, Data

from flare_geo.transforms import Curvature, Normals


def as_data(mesh):
    pos = torch.tensor(mesh.vertices, dtype=torch.float32)
    return Data(pos=pos, face=torch.tensor(mesh.faces.T.copy()))


def sphere(level, radius=1.0, centre=0.0):
    data = as_data(trimesh.creation.icosphere(subdivisions=level, radius=radius))
    data.pos = data.pos + centre
    return data


def error(found, exact):
    return float((found / exact - 1).square().mean().sqrt())


@pytest.mark.parametrize("radius", [0.5, 20.0])
def test_curvature_of_a_sphere_converges(radius):
    gauss = []
    for level in (1, 2, 3, 4):
        value = Curvature()(sphere(level, radius, centre=3 * radius)).curvature
        assert error(value[:, 0], 1 / radius) < 1e-3  # exact but for rounding of the positions
        gauss.append(error(value[:, 1], 1 / radius**2))
    assert gauss[-1] < 2e-3
    assert all(b < 0.3 * a for a, b in zip(gauss, gauss[1:]))  # of second order


def test_curvature_turns_with_the_side():
    data = sphere(2)
    out = Curvature()(data).curvature
    data.face = data.face.flip(0)
    torch.testing.assert_close(Curvature()(data).curvature, out * torch.tensor([-1.0, 1.0]))


def test_curvature_of_a_torus_converges():
    worst = []
    for n in (15, 30, 60):
        data = as_data(trimesh.creation.torus(3.0, 1.0, major_sections=2 * n, minor_sections=n))
        along = torch.hypot(data.pos[:, 0], data.pos[:, 1])
        gauss = (along - 3) / along  # cos(v) / (r (R + r cos v)), with r = 1
        exact = torch.stack([0.5 * (1 + gauss), gauss], dim=1)
        assert exact[:, 1].min() < -0.4  # on the inside the principal curvatures differ in sign
        worst.append((Curvature()(data).curvature - exact).abs().amax(dim=0))
    assert (worst[2] < 0.005).all()
    assert (worst[1] < 0.35 * worst[0]).all()
    assert (worst[2] < 0.35 * worst[1]).all()


def test_curvature_sums_to_the_euler_number():
    """Gauss and Bonnet: the angle defects of a closed surface add up to 2 pi times 2."""
    data = as_data(trimesh.creation.box(extents=(1, 2, 3)))
    value = Curvature()(data).curvature
    mesh = trimesh.creation.box(extents=(1, 2, 3))
    assert (value[:, 1] > 0).all()
    share = (torch.pi / 2) / value[:, 1]  # the defect of a corner over its curvature is its area
    assert float(share.sum()) == pytest.approx(mesh.area, rel=1e-5)


def open_patch(n=21):
    u = torch.linspace(-1, 1, n)
    x, y = torch.meshgrid(u, u, indexing="ij")
    pos = torch.stack([x, y, 0.5 * x**2 - 0.25 * y**2], dim=-1).reshape(-1, 3)
    i = torch.arange(n * n).reshape(n, n)
    a, b, c, d = i[:-1, :-1], i[1:, :-1], i[1:, 1:], i[:-1, 1:]
    face = torch.stack([torch.stack([a, b, c]), torch.stack([a, c, d])]).permute(1, 0, 2, 3)
    return Data(pos=pos, face=face.reshape(3, -1))


def test_open_surface():
    data = Normals()(Curvature()(open_patch()))
    rim = (data.pos[:, :2].abs() == 1).any(dim=1)
    assert (data.curvature[rim] == 0).all()
    middle = data.curvature[220]  # z = x^2 / 2 - y^2 / 4: principal curvatures 1 and -1/2
    torch.testing.assert_close(middle, torch.tensor([-0.25, -0.5]), rtol=0, atol=0.01)
    x, y, _ = data.pos.T
    exact = torch.nn.functional.normalize(torch.stack([-x, y / 2, torch.ones_like(x)], 1), dim=1)
    assert ((data.normal - exact).norm(dim=1) < 0.07).all()
    assert ((data.normal - exact)[~rim].norm(dim=1) < 0.01).all()


def test_unmerged_triangles_have_no_curvature():
    data = sphere(1)
    soup = Data(pos=data.pos[data.face.T.flatten()], face=torch.arange(240).reshape(-1, 3).T)
    with pytest.raises(ValueError, match=r"every point lies on a rim.*merge equal points first$"):
        Curvature()(soup)


def test_area_weights_the_normal():
    """A thin and a wide triangle at one point: the wide one decides."""
    pos = torch.tensor([[0.0, 0, 0], [10, 0, 0], [0, 10, 0], [0, 0, 0.01], [5, 5, 5]])
    face = torch.tensor([[0, 1, 2], [0, 2, 3]]).T
    normal = Normals()(Data(pos=pos, face=face)).normal
    torch.testing.assert_close(normal[0], torch.tensor([0.001, 0, 1.0]), rtol=0, atol=1e-5)
    assert normal[4].tolist() == [0.0, 0.0, 0.0]  # no triangle


def test_degenerate_triangles_count_for_nothing():
    data = sphere(2)
    line = torch.tensor([[0], [0], [1]])
    worse = Data(pos=data.pos, face=torch.cat([data.face, line], dim=1))
    assert torch.equal(Normals()(worse).normal, Normals()(data).normal)
    value = Curvature()(worse).curvature
    assert value.isfinite().all()


def test_normals_of_a_sphere():
    data = sphere(3, radius=2.0)
    exact = data.pos / 2
    assert ((Normals()(data).normal - exact).norm(dim=1) < 0.02).all()
    cloud = Normals(neighbors=8)(Data(pos=data.pos)).normal
    assert ((cloud - exact).norm(dim=1) < 0.1).all()  # and all of them outwards


def test_normals_of_clouds():
    angle = torch.linspace(0, 6.28, 60)
    circle = torch.stack([angle.cos(), angle.sin()], dim=1)
    found = Normals(neighbors=5)(Data(pos=circle)).normal
    assert ((found - circle).norm(dim=1) < 0.1).all()
    apart = torch.cat([circle, circle + 100])  # two pieces, each with its own outermost point
    found = Normals(neighbors=5)(Data(pos=apart)).normal
    for piece in (found[:60], found[60:]):
        turned = (piece * circle).sum(dim=1)
        assert turned.abs().min() > 0.99
        assert turned.sign().unique().numel() == 1
    saddle = open_patch(15)
    normal = Normals(neighbors=9)(Data(pos=saddle.pos)).normal
    assert normal[:, 2].sign().unique().numel() == 1
    batch = Batch.from_data_list([Data(pos=saddle.pos), Data(pos=torch.rand(2, 3))])
    torch.testing.assert_close(Normals(neighbors=9)(batch).normal[:225], normal)
    assert (Normals(neighbors=9)(batch).normal[225:] == 0).all()
    with pytest.raises(ValueError, match=r"^Normals: neighbors must be a whole number from 3 on"):
        Normals(neighbors=2)
