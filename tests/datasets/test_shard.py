"""The shard of a case's points that one of several ranks reads."""

import pytest
import torch
from toy import SIZES, ToyDataset, make_toy

from flare_geo.datasets import PackedStore
from flare_geo.datasets.store import writer
from flare_geo.transforms import UnitBox


@pytest.fixture(params=[False, True], ids=["in order", "shuffled"])
def root(request, tmp_path, monkeypatch):
    if request.param:
        monkeypatch.setattr(writer, "SHUFFLE_ABOVE", 50)
    ToyDataset(make_toy(tmp_path))
    return tmp_path


def rows_of(*cases):
    """All points with their targets, sorted."""
    rows = torch.cat([torch.cat([case.pos, case.y], dim=1) for case in cases])
    return sorted(map(tuple, rows.tolist()))


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize(
    "options",
    [{}, {"num_points": 30}, {"transform": UnitBox([0, 0], [2, 2])}, {"transform": UnitBox()}],
)
def test_ranks_have_every_point_once(root, ranks, options):
    toy = ToyDataset(root, **options)
    for epoch in range(3):
        toy.set_epoch(epoch)
        for i, n in enumerate(toy.sizes):
            shards = [toy.shard(i, rank, ranks) for rank in range(ranks)]
            sizes = [len(shard.pos) for shard in shards]
            assert sum(sizes) == n
            assert max(sizes) - min(sizes) <= 1
            assert rows_of(*shards) == rows_of(toy[i])
            assert {shard.name for shard in shards} == {toy[i].name}
    part = toy[1:]
    assert rows_of(*(part.shard(1, rank, ranks) for rank in range(ranks))) == rows_of(toy[2])


BOX = UnitBox([0, 0], [2, 2])  # pointwise: the other points are not needed


@pytest.mark.parametrize("transform", [None, BOX])
@pytest.mark.parametrize("num_points", [None, 30])
def test_only_the_rows_of_the_shard_are_read(root, num_points, transform, monkeypatch):
    toy = ToyDataset(root, transform=transform, num_points=num_points)
    read, into = [], PackedStore._read_into
    monkeypatch.setattr(
        PackedStore,
        "_read_into",
        lambda self, view, offset: (read.append(len(view)), into(self, view, offset))[1],
    )
    for i, n in enumerate(SIZES):
        for rank in range(3):
            read.clear()
            held = len(toy.shard(i, rank, 3).pos)
            drawn = num_points is not None and num_points < n and not toy.store.shuffled[i]
            assert sum(read) == 4 * 3 * (n if drawn else held)  # x, y, wave


def test_no_such_rank(root):
    with pytest.raises(ValueError, match="rank must be 0 to 1, got 2"):
        ToyDataset(root).shard(0, 2, 2)
