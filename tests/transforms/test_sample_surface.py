import pytest
import torch
from scipy.stats import chisquare, kstest
from torch_geometric.data import Data

from flare_geo.transforms import SampleSurface


def fan(d=3):
    """Triangles of area 1, 2, 3 and 0 that share the origin, and what is linear on them."""
    pos = torch.tensor([[0.0, 0], [2, 0], [2, 1], [0, 2], [-3, 0]])
    face = torch.tensor([[0, 1, 2], [0, 2, 3], [0, 3, 4], [0, 1, 1]]).T
    y = torch.stack([pos[:, 0] + 2 * pos[:, 1] + 3, pos[:, 0]], dim=1)
    if d == 3:
        pos = torch.cat([pos, pos[:, :1]], dim=1)  # in the plane z = x
    return Data(pos=pos, face=face, y=y, label=torch.arange(5), param=torch.ones(1, 2), name="fan")


@pytest.mark.parametrize("d", [2, 3])
def test_evenly_by_area(d):
    data = SampleSurface(6000, seed=0)(fan(d))
    x, y = data.pos[:, 0], data.pos[:, 1]
    first = (x > 0) & (2 * y < x)
    third = x < 0
    counts = [int(first.sum()), int((~first & ~third).sum()), int(third.sum())]
    assert chisquare(counts, [1000, 2000, 3000]).pvalue > 0.01
    # in the first triangle the distance from the tip along x has the distribution (x / 2)^2
    assert kstest(((x[first] / 2) ** 2).numpy(), "uniform").pvalue > 0.01
    assert kstest((2 * y[first] / x[first]).numpy(), "uniform").pvalue > 0.01


@pytest.mark.parametrize("d", [2, 3])
def test_fields_are_interpolated(d):
    data = SampleSurface(500, seed=0)(fan(d))
    x, y = data.pos[:, 0], data.pos[:, 1]
    torch.testing.assert_close(data.y, torch.stack([x + 2 * y + 3, x], dim=1))
    assert data.label.dtype == torch.int64
    assert set(data.label.tolist()) <= {0, 1, 2, 3, 4}
    corner = (data.pos[:, :2] - torch.tensor([-3.0, 0])).norm(dim=1) < 0.3
    assert corner.any()
    assert (data.label[corner] == 4).all()
    assert data.param.shape == (1, 2)
    assert "face" not in data
    torch.testing.assert_close(data.area.sum(), torch.tensor(6.0 * (2**0.5 if d == 3 else 1)))
    if d == 2:
        assert "normal" not in data
        return
    torch.testing.assert_close(data.pos[:, 2], x)
    expected = torch.tensor([-1.0, 0, 1]) / 2**0.5
    torch.testing.assert_close(data.normal, expected.repeat(500, 1))


def test_normals_and_areas_of_the_mesh_are_replaced():
    data = fan()
    data.normal, data.area = torch.full((5, 3), 9.0), torch.full((5, 1), 9.0)
    sampled = SampleSurface(10, seed=0)(data)
    torch.testing.assert_close(sampled.normal.norm(dim=1), torch.ones(10))
    assert sampled.area.shape == (10, 1)
    assert sampled.area.max() < 1


def test_seed():
    one, again = (SampleSurface(50, seed=0)(fan()).pos for _ in range(2))
    assert torch.equal(one, again)
    assert not torch.equal(SampleSurface(50, seed=1)(fan()).pos, one)
    transform = SampleSurface(50)
    assert not torch.equal(transform(fan()).pos, transform(fan()).pos)
