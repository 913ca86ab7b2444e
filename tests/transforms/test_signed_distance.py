import pickle

import pytest
import torch
import trimesh
from torch_geometric.data import Data

from flare_geo.transforms import SignedDistance, signed_distance
from flare_geo.transforms.signed_distance import _distance, _to_triangles


def arrays(mesh):
    return torch.tensor(mesh.vertices), torch.tensor(mesh.faces.T.copy())


def box_distance(points, half):
    """The distance to a box around the origin in closed form."""
    q = points.abs() - torch.tensor(half, dtype=points.dtype)
    return q.clamp_min(0).norm(dim=1) + q.amax(dim=1).clamp_max(0)


def some_points(n=500, size=3.0):
    generator = torch.Generator().manual_seed(0)
    return (torch.rand(n, 3, generator=generator, dtype=torch.float64) - 0.5) * 2 * size


def test_box_exactly():
    points = torch.cat([some_points(), torch.zeros(1, 3).double()])
    for offset in (0.0, 1000.0):
        vertices, face = arrays(trimesh.creation.box(extents=(2, 3, 4)))
        found = signed_distance(points + offset, vertices + offset, face)
        torch.testing.assert_close(found, box_distance(points, (1, 1.5, 2)), rtol=0, atol=1e-10)
    assert found[-1] == pytest.approx(-1.0)


def test_sphere():
    vertices, face = arrays(trimesh.creation.icosphere(subdivisions=3))
    points = some_points(300, 1.5)
    found = signed_distance(points, vertices, face)
    torch.testing.assert_close(found, points.norm(dim=1) - 1, rtol=0, atol=0.01)


def test_what_does_not_matter():
    """Inside out, unmerged, each triangle twice, one hole, triangles of no area."""
    mesh = trimesh.creation.box(extents=(2, 3, 4)).subdivide().subdivide()
    vertices, face = arrays(mesh)
    points = some_points(200)
    exact = box_distance(points, (1, 1.5, 2))
    soup = vertices[face.T.flatten()], torch.arange(face.numel()).reshape(-1, 3).T
    flat = torch.cat([face, face[:1].repeat(3, 1)], dim=1)
    for v, f in ((vertices, face.flip(0)), soup, (vertices, face.repeat(1, 2)), (vertices, flat)):
        torch.testing.assert_close(signed_distance(points, v, f), exact, rtol=0, atol=1e-10)
    away = (points - vertices[face[:, 0]].mean(dim=0)).norm(dim=1) > 1
    found = signed_distance(points, vertices, face[:, 1:])
    assert torch.equal(found.sign()[away], exact.sign()[away])


def test_overlap_and_cavity():
    big, small = (arrays(trimesh.creation.box(extents=(s, s, s))) for s in (4, 2))
    vertices = torch.cat([big[0], small[0]])
    n = len(big[0])
    probe = torch.tensor([[0.0, 0, 0], [1.5, 0, 0], [3, 0, 0]])
    overlap = signed_distance(probe, vertices, torch.cat([big[1], small[1] + n], dim=1))
    assert overlap.tolist() == [-1.0, -0.5, 1.0]
    cavity = signed_distance(probe, vertices, torch.cat([big[1], small[1].flip(0) + n], dim=1))
    assert cavity.tolist() == [1.0, -0.5, 1.0]


def test_triangles_of_all_sizes():
    """Against all pairs, with triangles from 1e-4 to 10: what one search radius gets wrong."""
    generator = torch.Generator().manual_seed(1)
    size = 10 ** (torch.rand(400, 1, 1, generator=generator, dtype=torch.float64) * 5 - 4)
    place = torch.rand(400, 1, 3, generator=generator, dtype=torch.float64) * 4 - 2
    corners = torch.randn(400, 3, 3, generator=generator, dtype=torch.float64) * size + place
    corners[:5, 2] = corners[:5, 1]  # lines
    corners[5:10] = corners[5:10, :1]  # points
    corners, points = corners.numpy(), some_points(200).numpy()
    pairs = _to_triangles(points.repeat(400, axis=0), corners[list(range(400)) * 200])
    found = _distance(points, corners)
    assert abs(found - pairs.reshape(200, 400).min(axis=1)).max() < 1e-12


def test_distance_of_a_triangle_by_sampling():
    generator = torch.Generator().manual_seed(2)
    corners = torch.randn(40, 3, 3, generator=generator, dtype=torch.float64)
    points = torch.randn(40, 3, generator=generator, dtype=torch.float64) * 2
    u = torch.linspace(0, 1, 201, dtype=torch.float64)
    weights = torch.cartesian_prod(u, u)
    weights = weights[weights.sum(dim=1) <= 1]
    weights = torch.cat([weights, 1 - weights.sum(dim=1, keepdim=True)], dim=1)
    nearest = (weights @ corners - points[:, None]).norm(dim=2).amin(dim=1)
    found = torch.from_numpy(_to_triangles(points.numpy(), corners.numpy()))
    assert (found <= nearest + 1e-12).all()
    torch.testing.assert_close(found, nearest, rtol=0, atol=0.01)


def test_own_triangles_and_file(tmp_path):
    vertices, face = arrays(trimesh.creation.box(extents=(2, 3, 4)))
    points = some_points(100)
    data = Data(pos=torch.cat([vertices, points]).float(), face=face)
    own = SignedDistance()(data)
    assert own.sdf.shape == (108, 1)
    assert own.sdf.dtype == torch.float32
    exact = box_distance(data.pos.double(), (1, 1.5, 2)).float()
    torch.testing.assert_close(own.sdf[:, 0], exact, rtol=0, atol=1e-6)
    for suffix in ("stl", "ply", "obj"):
        path = tmp_path / f"box.{suffix}"
        trimesh.creation.box(extents=(2, 3, 4)).export(path)
        transform = SignedDistance(path)
        assert repr(transform) == f"SignedDistance(mesh={str(path)!r})"
        found = transform(Data(pos=data.pos)).sdf[:, 0]
        torch.testing.assert_close(found, exact, rtol=0, atol=1e-6)
    path.unlink()  # a copy in a worker needs no file
    again = pickle.loads(pickle.dumps(transform))
    torch.testing.assert_close(again(Data(pos=data.pos)).sdf[:, 0], found)


def test_files_that_are_none(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"SignedDistance: there is no file .*no.stl"):
        SignedDistance(tmp_path / "no.stl")
    for name, content in (("bad.ply", b"ply\nnonsense"), ("text.xyz9", b"x"), ("empty.stl", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"SignedDistance: .*{name}") as caught:
            SignedDistance(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="the surface has no triangles"):
        signed_distance(torch.zeros(1, 3), torch.zeros(3, 3), torch.zeros(3, 0).long())
