import pytest
import torch
from torch_geometric.data import Data

from flare_geo.transforms import Subsample


def case(n=100, name="run_1"):
    row = torch.arange(n)
    return Data(
        pos=row[:, None].repeat(1, 3).float(),
        y=row[:, None].float(),
        index_of=row,
        param=torch.tensor([[4.0, 5.0]]),
        face=torch.zeros(3, n, dtype=torch.int64),
        cells=torch.zeros(n, 4, dtype=torch.int64),
        edge_index=torch.zeros(2, n, dtype=torch.int64),
        name=name,
    )


def test_rows_stay_together_and_none_comes_twice():
    data = Subsample(30, seed=0)(case())
    assert data.pos.shape == (30, 3)
    assert data.index_of.unique().numel() == 30
    assert torch.equal(data.pos[:, 2], data.y[:, 0])
    assert torch.equal(data.y[:, 0].long(), data.index_of)
    assert data.param.tolist() == [[4.0, 5.0]]
    assert {"face", "cells", "edge_index"}.isdisjoint(data.keys())
    assert data.name == "run_1"


def test_a_case_keeps_its_points():
    transform = Subsample(30, seed=0)
    first = transform(case()).index_of
    torch.manual_seed(99)
    assert torch.equal(transform(case()).index_of, first)
    assert not torch.equal(transform(case(name="run_2")).index_of, first)
    assert not torch.equal(Subsample(30, seed=1)(case()).index_of, first)
    assert torch.equal(Subsample(10, seed=0)(case()).index_of, first[:10])


def test_the_points_are_the_same_in_any_process():
    """Written down: they must not hang on Python's hash seed, the machine or the version."""
    assert Subsample(5, seed=3)(case()).index_of.tolist() == [54, 41, 17, 96, 61]


def test_without_seed_every_access_differs():
    transform = Subsample(30)
    assert not torch.equal(transform(case()).index_of, transform(case()).index_of)


def test_every_point_is_as_likely():
    count = torch.zeros(20)
    for i in range(2000):
        count[Subsample(5, seed=0)(case(20, f"run_{i}")).index_of] += 1
    # 2000 draws with probability 1/4: standard deviation 19
    assert (count - 500).abs().max() < 80


def test_small_clouds_are_kept_whole():
    data = Subsample(200, seed=0)(case(3))
    assert sorted(data.index_of.tolist()) == [0, 1, 2]
    assert "face" not in data


@pytest.mark.parametrize("wrong", [0, -1, 2.5, "3", True])
def test_wrong_arguments(wrong):
    with pytest.raises(ValueError, match=r"Subsample: num_points must be a whole number from 1"):
        Subsample(wrong)
    with pytest.raises(ValueError, match=r"^Subsample: seed must be a whole number from 0 on"):
        Subsample(3, seed=-1)
