"""Plans of batches: nothing lost, the same on all processes, evenly filled."""

import random

import numpy as np
import pytest
import torch
from toy import SIZES, ToyDataset, make_toy

from flare_geo.train.batches import BatchPlan, Place, Take
from flare_geo.train.data import Batches, SplitsDataModule


def like_lpbf(count=1100):
    """Sizes with the moments of the LPBF set: 736 to 47,542, mean 20,972, standard deviation
    12,476; a beta distribution between the ends.
    """
    low, high = 736, 47542
    mean, std = (20972 - low) / (high - low), 12476 / (high - low)
    both = mean * (1 - mean) / std**2 - 1
    at = np.random.default_rng(0).beta(mean * both, (1 - mean) * both, count)
    at[at.argmin()], at[at.argmax()] = 0, 1
    return [int(n) for n in low + (high - low) * at]


def clouds_of(plan):
    return sorted(i for batch in plan for own in batch for i in own)


def loads(sizes, plan):
    return torch.tensor([[sum(sizes[i] for i in own) for own in batch] for batch in plan]).double()


def plans(sizes, world, epochs=range(6), **options):
    """The plan of each epoch."""
    made = BatchPlan(sizes, Place.of(0, world), **options)
    for epoch in epochs:
        made.set_epoch(epoch)
        plan = made.plan()
        assert len(plan) == len(made)
        assert clouds_of(plan) == list(range(len(sizes)))
        yield plan


@pytest.mark.parametrize("world", [2, 4, 8])
@pytest.mark.parametrize("share", [60_000, 100_000, 300_000])
def test_points_are_balanced_in_every_batch(world, share):
    sizes = like_lpbf()
    assert abs(np.mean(sizes) - 20972) < 500
    assert abs(np.std(sizes) - 12476) < 500
    counts = set()
    for plan in plans(sizes, world, points_per_batch=world * share):
        points = loads(sizes, plan)
        assert float((points.amax(1) / points.mean(1)).max()) <= 1.05
        most = 1.08 if share == 60_000 else 1.05  # hardly larger than a cloud, or some of them
        assert float(points.max()) <= most * share
        counts.add(len(plan))
    assert counts == {len(BatchPlan(sizes, points_per_batch=world * share))}  # as one process has


def test_few_clouds_leave_no_batch_empty():
    for sizes in ([5, 1, 7], [9], [100] * 10, [30, 1, 1, 1, 1, 1, 1]):
        for world in (1, 2, 4):
            for plan in plans(sizes, world, points_per_batch=world * max(sizes)):
                assert all(any(batch) for batch in plan)
    like = BatchPlan([972] * 1000, points_per_batch=4800)  # four go in, not five
    assert len(like) == 250
    assert all(len(own) == 4 for batch in like.plan() for own in batch)


@pytest.mark.parametrize("options", [{"batch_size": 8}, {"points_per_batch": 400_000}])
def test_epochs_differ_and_repeat(options):
    sizes = like_lpbf(300)
    first, second, *_ = plans(sizes, 4, **options)
    assert first == next(plans(sizes, 4, **options))
    assert first != next(plans(sizes, 4, seed=1, **options))
    together = lambda plan: {frozenset(i for own in batch for i in own) for batch in plan}  # noqa: E731
    assert len(together(first) & together(second)) <= 0.02 * len(first), "the same clouds again"
    fixed = [list(BatchPlan(sizes, shuffle=False, **options)) for _ in range(2)]
    assert fixed[0] == fixed[1]


def test_all_processes_have_one_plan():
    sizes = like_lpbf(50)
    for options in ({"batch_size": 4}, {"points_per_batch": 200_000}):
        ranks = [BatchPlan(sizes, Place.of(r, 4), **options) for r in range(4)]
        plan = ranks[0].plan()
        for rank, own in enumerate(ranks):
            taken = [take.clouds for take in own]
            wanted = [batch[rank] or [sizes.index(min(sizes))] for batch in plan]
            assert taken == wanted


def test_a_number_of_clouds_is_the_same_on_any_number_of_processes():
    sizes = like_lpbf(22)
    sets = lambda plan: [sorted(i for own in batch for i in own) for batch in plan]  # noqa: E731
    for one, four in zip(plans(sizes, 1, batch_size=8), plans(sizes, 4, batch_size=8), strict=True):
        assert sets(one) == sets(four)
        assert [[len(own) for own in batch] for batch in four[:2]] == [[2] * 4] * 2
        assert sorted(len(own) for own in four[2]) == [1, 1, 2, 2]
        ratio = loads(sizes, four[:2])
        assert float((ratio.amax(1) / ratio.mean(1)).max()) < 1.6, "dealt by size"
    in_order = BatchPlan(sizes, batch_size=8, shuffle=False).plan()
    assert sets(in_order)[0] == list(range(8))


@pytest.mark.parametrize(("world", "point_ranks", "accumulate"), [(1, 1, 1), (4, 1, 3), (6, 2, 2)])
@pytest.mark.parametrize("options", [{"batch_size": 6}, {"points_per_batch": 200_000}])
def test_weights_make_a_step_the_mean_of_its_clouds(world, point_ranks, accumulate, options):
    """Short batches, processes without a cloud, and a last step of fewer batches among them."""
    if world == 4 and "batch_size" in options:
        options = {"batch_size": 4}
    sizes = like_lpbf(13)
    error = torch.rand(13, dtype=torch.float64)
    ranks = [
        list(BatchPlan(sizes, Place.of(r, world, point_ranks), accumulate=accumulate, **options))
        for r in range(world)
    ]
    count = len(ranks[0])
    for first in range(0, count, accumulate):
        step = [take for own in ranks for take in own[first : first + accumulate]]
        loss = sum(w * error[i] for t in step for i, w in zip(t.clouds, t.weights, strict=True))
        loss /= world * accumulate  # by DDP and by Lightning
        real = {i for t in step for i, w in zip(t.clouds, t.weights, strict=True) if w}
        torch.testing.assert_close(loss, error[list(real)].mean() * point_ranks)
    for _ in range(count):
        assert {len(own) for own in ranks} == {count}


@pytest.mark.parametrize(
    ("options", "world", "message"),
    [
        (
            {"batch_size": 4},
            3,
            "batch_size 4 cannot be divided evenly among 3 processes: choose a multiple of 3",
        ),
        ({"batch_size": 0}, 1, "batch_size must be at least 1, got 0"),
        ({"points_per_batch": -5}, 1, "points_per_batch must be at least 1, got -5"),
        (
            {"batch_size": 4, "points_per_batch": 900},
            1,
            "batch_size is 4 and points_per_batch 900: give one of them, the other is null",
        ),
        (
            {"points_per_batch": 100},
            2,
            "points_per_batch 100 is 50 per process, and the largest cloud has 75 points: choose "
            "at least 150, or give the data set a num_points",
        ),
        (
            {"point_ranks": 2},
            3,
            "point_ranks 2 does not divide the number of processes, which is 3",
        ),
        (
            {"point_ranks": 0},
            1,
            "point_ranks 0 does not divide the number of processes, which is 1",
        ),
    ],
)
def test_one_line_says_what_does_not_fit(tmp_path, options, world, message):
    toy = ToyDataset(make_toy(tmp_path))
    with pytest.raises(ValueError) as error:
        SplitsDataModule(toy, **options).plan(toy, 0, world)
    assert str(error.value) == message


def test_num_points_caps_the_sizes_and_nothing_is_read(tmp_path, monkeypatch):
    toy = ToyDataset(make_toy(tmp_path))
    capped = ToyDataset(tmp_path, num_points=50)
    splits = SplitsDataModule(capped, points_per_batch=100)
    monkeypatch.setattr(type(toy.store), "rows", None)
    assert toy.sizes == list(SIZES)
    assert toy[1:3].sizes == list(SIZES[1:3])
    assert capped.sizes == [min(n, 50) for n in SIZES]
    assert len(splits.plan(capped, 0, 2)) == 2


def test_loaders_give_every_case_once_an_epoch(tmp_path):
    toy = ToyDataset(make_toy(tmp_path))
    splits = SplitsDataModule(toy, batch_size=3)
    (loader, held_out) = splits.train_dataloader(), splits.val_dataloader()
    for batches in (loader, held_out):
        seen = list(batches)
        assert [batch.num_graphs for batch in seen] == [3, 1]
        assert sorted(n for batch in seen for n in batch.ptr.diff().tolist()) == sorted(SIZES)
        assert [batch.loss_weight.sum().item() for batch in seen] == [1, 1]
    assert SplitsDataModule(toy).batch_size == 4


def test_what_a_transform_draws_belongs_to_seed_epoch_and_case(tmp_path):
    turned = ToyDataset(make_toy(tmp_path), transform=_shake)
    place = Place()
    take = Take(epoch=0, clouds=[0, 1, 2, 3], weights=[0.25] * 4)
    state = torch.get_rng_state(), random.getstate()
    first = Batches(turned, place)[take]
    assert torch.equal(state[0], torch.get_rng_state())
    assert state[1] == random.getstate()
    torch.rand(3)
    random.random()
    assert torch.equal(first.pos, Batches(turned, place)[take].pos)
    assert not torch.equal(first.pos, Batches(turned, place, seed=1)[take].pos)
    assert not torch.equal(first.pos, Batches(turned, place)[take._replace(epoch=1)].pos)
    alone = Batches(turned, place)[take._replace(clouds=[2], weights=[1.0])]
    assert torch.equal(alone.pos, first[2].pos)
    parts = [Batches(turned, Place(0, 1, r, 3))[take] for r in range(3)]
    for i in range(len(SIZES)):
        assert torch.equal(torch.cat([part[i].pos for part in parts]), first[i].pos)


def _shake(data):
    data.pos = data.pos + random.random() + torch.rand(2) + np.random.random()  # noqa: NPY002
    return data
