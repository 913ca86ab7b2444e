import pytest
import torch
from closeness import close
from torch_geometric.data import Batch, Data

from flare_geo.transforms import UnitBox


def cloud(n=200, d=3, seed=0, offset=0.0):
    generator = torch.Generator().manual_seed(seed)
    side = torch.tensor([4.0, 2.0, 1.0])[:d]
    return Data(pos=torch.rand(n, d, generator=generator) * side + offset)


@pytest.mark.parametrize("d", [2, 3])
@pytest.mark.parametrize("interval", [(0.0, 1.0), (-1.0, 1.0), (2.0, 5.0)])
@pytest.mark.parametrize("keep_aspect", [True, False])
def test_box_is_filled(d, interval, keep_aspect):
    transform = UnitBox(interval=interval, keep_aspect=keep_aspect)
    data = cloud(d=d, offset=30)
    pos = transform(data).pos
    assert pos.dtype == torch.float32
    low, high = pos.amin(dim=0), pos.amax(dim=0)
    a, b = interval
    size = data.pos.amax(dim=0) - data.pos.amin(dim=0)
    share = size / size.max() if keep_aspect else torch.ones(d)
    torch.testing.assert_close(high - low, share * (b - a))
    torch.testing.assert_close((low + high) / 2, torch.full((d,), (a + b) / 2))
    assert pos.min() >= a
    assert pos.max() <= b


@pytest.mark.parametrize("offset", [0.0, 1000.0, -1e6])
@pytest.mark.parametrize("keep_aspect", [True, False])
def test_the_inverse_is_exact_to_rounding(offset, keep_aspect):
    data = cloud(offset=offset)
    transform = UnitBox(keep_aspect=keep_aspect)
    back = transform.inverse(transform(data))
    one_rounding = torch.finfo(torch.float32).eps * data.pos.abs().clamp_min(4)
    assert ((back.pos - data.pos).abs() <= one_rounding).all()
    assert "unit_box" not in back


def test_inverse_of_a_batch_put_together_later():
    cases = [cloud(n, seed=n, offset=n) for n in (5, 1, 30)]
    batch = Batch.from_data_list([UnitBox()(case) for case in cases])
    assert batch.unit_box.shape == (3, 6)
    back = UnitBox().inverse(batch)
    close(back.pos, torch.cat([c.pos for c in cases]), terms=3)


def test_flat_sides_go_to_the_middle():
    data = Data(pos=torch.tensor([[3.0, 7.0], [5.0, 7.0]]))
    for transform in (UnitBox(), UnitBox(keep_aspect=False), UnitBox((3, 7), (5, 7))):
        moved = transform(data)
        assert moved.pos.tolist() == [[0.0, 0.5], [1.0, 0.5]]
        assert torch.equal(transform.inverse(moved).pos, data.pos)


def test_fit_reads_case_by_case():
    cases = [cloud(seed=s, offset=s) for s in range(4)] + [Data(pos=torch.zeros(0, 3))]
    transform = UnitBox.fit((case for case in cases), interval=(-1, 1), keep_aspect=False)
    every = torch.cat([case.pos for case in cases])
    assert transform.low == tuple(every.amin(dim=0).tolist())
    assert transform.high == tuple(every.amax(dim=0).tolist())
    assert transform.interval == (-1.0, 1.0)
    assert not transform.keep_aspect
    moved = torch.cat([transform(case).pos for case in cases])
    assert moved.amin(dim=0).tolist() == [-1.0] * 3
    assert moved.amax(dim=0).tolist() == [1.0] * 3
    assert "unit_box" not in transform(cases[0])
    outside = transform(Data(pos=every.amax(dim=0, keepdim=True) + 10))
    assert (outside.pos > 1).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"low": (0, 0)}, "^UnitBox: give both low and high, or neither$"),
        ({"low": (0, 0), "high": (1, -1)}, r"low \(0.0, 0.0\) is not below high \(1.0, -1.0\)"),
        ({"low": (0, 0), "high": (1, 1, 1)}, "is not below"),
        ({"low": "ab", "high": "cd"}, "^UnitBox: low must be numbers, one an axis, got 'ab'$"),
        ({"low": (0, float("nan")), "high": (1, 1)}, "low must be finite"),
        ({"interval": (1, 0)}, r"^UnitBox: interval must be two rising numbers, got \(1, 0\)$"),
        ({"interval": (1,)}, "interval must be two rising numbers"),
        ({"interval": None}, "interval must be two rising numbers"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        UnitBox(**arguments)


def test_wrong_data():
    moved = UnitBox()(cloud())
    with pytest.raises(ValueError, match="'unit_box' is there, undo the earlier UnitBox first"):
        UnitBox()(moved)
    with pytest.raises(ValueError, match="no field 'unit_box', the data were not mapped by it"):
        UnitBox().inverse(cloud())
    with pytest.raises(ValueError, match="the bounds have 2 axes, 'pos' has 3"):
        UnitBox((0, 0), (1, 1))(cloud())
    with pytest.raises(ValueError, match="no points to fit the box to"):
        UnitBox.fit([])
    with pytest.raises(ValueError, match="clouds of dimension 3 and 2"):
        UnitBox.fit([cloud(), cloud(d=2)])
