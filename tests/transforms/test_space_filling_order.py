import pytest
import torch
from torch_geometric.data import Batch, Data

from flare_geo.transforms import SpaceFillingOrder, hilbert_index, morton_index


def grid(d, bits):
    axis = torch.arange(2**bits)
    return torch.cartesian_prod(*[axis] * d)


@pytest.mark.parametrize(("d", "bits"), [(2, 1), (2, 5), (3, 1), (3, 4), (4, 2)])
def test_curves_visit_every_cell_once(d, bits):
    cells = grid(d, bits)
    for curve in (hilbert_index, morton_index):
        place = curve(cells, bits)
        assert torch.equal(place.sort().values, torch.arange(2 ** (d * bits)))
    along = cells[hilbert_index(cells, bits).argsort()]
    assert (along.diff(dim=0).abs().sum(dim=1) == 1).all()  # neighbours share a side
    assert along[0].tolist() == [0] * d


@pytest.mark.parametrize("d", [2, 3])
def test_curves_are_nested(d):
    """The coarser curve is the finer one with its last d bits cut off; so each cube is a run."""
    fine = grid(d, 4)
    assert torch.equal(morton_index(fine, 4) >> d, morton_index(fine >> 1, 3))
    part = (hilbert_index(fine, 4) >> d).unique(return_inverse=True)[1]
    for run in range(2 ** (3 * d)):
        inside = fine[part == run]
        assert (inside >> 1 == inside[0] >> 1).all()


def test_morton_interleaves():
    cells = torch.tensor([[0b101, 0b010], [0b111, 0b000]])
    assert morton_index(cells, 3).tolist() == [0b100110 + 0, 0b101010]
    big = torch.tensor([[2**20 - 1] * 3])
    assert morton_index(big, 20).tolist() == [2**60 - 1]


@pytest.mark.parametrize("curve", ["hilbert", "morton"])
@pytest.mark.parametrize("d", [2, 3])
def test_rows_and_triangles_follow(curve, d):
    generator = torch.Generator().manual_seed(0)
    n = 300
    data = Data(
        pos=torch.rand(n, d, generator=generator) * 50 - 20,
        y=torch.arange(float(n))[:, None],
        face=torch.randint(n, (3, 80), generator=generator),
        cells=torch.randint(n, (80, 4), generator=generator),
        edge_index=torch.randint(n, (2, 80), generator=generator),
        param=torch.ones(1, 2),
    )
    transform = SpaceFillingOrder(curve)
    moved = transform(data)
    assert not torch.equal(moved.pos, data.pos)
    assert torch.equal(moved.pos, data.pos[moved.curve_order[:, 0]])
    assert torch.equal(moved.y[:, 0].long(), moved.curve_order[:, 0])
    for key in ("face", "cells", "edge_index"):
        assert torch.equal(moved.pos[moved[key]], data.pos[data[key]])
    back = transform.inverse(moved)
    assert set(back.keys()) == set(data.keys())
    for key, value in data.to_dict().items():
        assert torch.equal(back[key], value)


@pytest.mark.parametrize(("curve", "reach"), [("hilbert", 0.05), ("morton", 0.06)])
def test_neighbours_in_the_order_are_neighbours_in_space(curve, reach):
    pos = torch.rand(4000, 3, generator=torch.Generator().manual_seed(0))
    moved = SpaceFillingOrder(curve)(Data(pos=pos)).pos
    step = moved.diff(dim=0).norm(dim=1)
    assert step.mean() < 1.5 * reach  # random order: 0.66; nearest neighbours: about 0.035
    if curve == "hilbert":
        assert step.max() < 0.35  # Morton jumps across the cube


def test_large_coordinates_keep_their_order():
    """Cells are finer than float32 tells apart, wherever the cloud stands."""
    pos = torch.tensor([[1000.0, 0.0]]) + torch.linspace(0, 1, 50)[:, None] * torch.tensor([1.0, 0])
    shuffled = pos[torch.randperm(50)]
    moved = SpaceFillingOrder("morton")(Data(pos=shuffled)).pos
    assert torch.equal(moved, pos)


def test_equal_points_keep_their_order():
    moved = SpaceFillingOrder()(Data(pos=torch.ones(10, 3)))
    assert moved.curve_order[:, 0].tolist() == list(range(10))


def test_wrong_use():
    with pytest.raises(ValueError, match="curve must be hilbert or morton, got 'peano'"):
        SpaceFillingOrder("peano")
    data = Data(pos=torch.rand(5, 3), cells=torch.zeros(1, 4, dtype=torch.int64))
    moved = SpaceFillingOrder()(data)
    with pytest.raises(ValueError, match="'curve_order' is there, the points are sorted"):
        SpaceFillingOrder()(moved)
    with pytest.raises(ValueError, match="no field 'curve_order', nothing was sorted by it"):
        SpaceFillingOrder().inverse(data)
    part = Data(pos=moved.pos[1:], curve_order=moved.curve_order[1:])
    if int(moved.curve_order[0]) != 4:  # else what is left are the numbers from 0 on
        with pytest.raises(ValueError, match="points are missing, the order cannot be undone"):
            SpaceFillingOrder().inverse(part)
    with pytest.raises(ValueError, match="a batch with 'cells'; sort before batching"):
        SpaceFillingOrder()(Batch.from_data_list([data, data]))
