"""The plan of an epoch: the clouds that each process takes in each batch; the same on all."""

import heapq
import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Self

import torch
from torch import Generator
from torch.utils.data import Sampler

Plan = list[list[list[int]]]
"""The clouds of each process in each batch."""

TOLERANCE = 1.05
NOISE = (0.3, 0.2, 0.1, 0.05, 0.02, 0.01)


class Place(NamedTuple):
    """The place of a process: which clouds it takes, and which shard of their points."""

    data_rank: int = 0
    data_ranks: int = 1
    point_rank: int = 0
    point_ranks: int = 1

    @classmethod
    def of(cls, rank: int, world_size: int, point_ranks: int = 1) -> Self:
        """The place of a rank; `point_ranks` consecutive ranks shard the points of their clouds.

        Raises:
            ValueError: if `point_ranks` does not divide the number of processes.
        """
        if point_ranks < 1 or world_size % point_ranks:
            raise ValueError(
                f"point_ranks {point_ranks} does not divide the number of processes, which is "
                f"{world_size}"
            )
        return cls(rank // point_ranks, world_size // point_ranks, rank % point_ranks, point_ranks)


class Take(NamedTuple):
    """The clouds that a process takes for a batch, and the weight of each error in the loss."""

    epoch: int
    clouds: list[int]
    weights: list[float]


class BatchPlan(Sampler[Take]):
    r"""The batches of an epoch, divided among processes.

    Every cloud is in one batch of an epoch. The plan depends only on the sizes, on `seed` and on
    the number of the epoch; the number of batches depends only on the sizes.

    Gradients are averaged over processes and over the batches of an optimiser step, however many
    clouds those hold. The weights make the step the mean over all its clouds: with W processes and
    A batches that together hold n clouds,

    .. math::
        \frac1{WA} \sum_{w,a} \sum_i \frac{WA}{n} e_i = \frac1n \sum_i e_i .

    Where the points of a cloud are sharded over P of the W processes, each of these P has the
    gradient of its own points; their sum is the gradient of the cloud, and the formula still holds.

    A process for which a batch has no cloud takes the smallest one with weight 0, so that all
    processes keep step.

    Args:
        sizes: number of points of each cloud.
        place: the place of this process.
        batch_size: clouds per batch, over all processes.
        points_per_batch: points per batch, over all processes, in place of `batch_size`: clouds
            are packed so that every process has about as many points.
        accumulate: batches per optimiser step.
        shuffle: whether the order is random, and another one in every epoch.
        seed: seed of the order.

    Raises:
        ValueError: if the clouds cannot be divided so, or not exactly one of `batch_size` and
            `points_per_batch` is given.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        place: Place = Place(),  # noqa: B008
        *,
        batch_size: int | None = None,
        points_per_batch: int | None = None,
        accumulate: int = 1,
        shuffle: bool = True,
        seed: int = 0,
    ) -> None:
        self.sizes, self.place, self.accumulate = sizes, place, accumulate
        self.shuffle, self.seed, self.epoch = shuffle, seed, 0
        self.batch_size = batch_size
        check_budget(batch_size, points_per_batch)
        if batch_size is not None:
            check_clouds(batch_size, place.data_ranks)
            self.count = math.ceil(len(sizes) / batch_size)
        elif points_per_batch is not None:
            check_points(max(sizes, default=0), points_per_batch, place)
            self.count = count_batches(sizes, points_per_batch)
        else:
            raise ValueError("give batch_size or points_per_batch")
        self.share = (points_per_batch or 0) / place.data_ranks

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch; Lightning calls this before every epoch."""
        if self.shuffle:
            self.epoch = epoch

    def plan(self) -> Plan:
        """The whole epoch, for all processes."""
        random = None
        if self.shuffle:
            random = Generator().manual_seed((self.seed + 1) * 1_000_003 + self.epoch)
        ranks = self.place.data_ranks
        if self.batch_size is not None:
            return deal_clouds(self.sizes, self.batch_size, ranks, random)
        return pack_points(self.sizes, self.count, ranks, self.share, random)

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Take]:
        plan = self.plan()
        world = self.place.data_ranks * self.place.point_ranks
        for first in range(0, len(plan), self.accumulate):
            step = plan[first : first + self.accumulate]
            weight = (
                world * self.accumulate / sum(len(clouds) for batch in step for clouds in batch)
            )
            for batch in step:
                clouds = batch[self.place.data_rank]
                if clouds:
                    yield Take(self.epoch, clouds, [weight] * len(clouds))
                else:
                    yield Take(self.epoch, [self.sizes.index(min(self.sizes))], [0.0])


def deal_clouds(
    sizes: Sequence[int], batch_size: int, ranks: int, random: Generator | None
) -> Plan:
    """Batches of `batch_size` clouds (the last may be smaller); in order without a generator.

    Clouds are assigned to ranks in snake order of size: each rank has as many clouds, and about as
    many points as that allows.
    """
    n = len(sizes)
    order = (torch.arange(n) if random is None else torch.randperm(n, generator=random)).tolist()
    plan: Plan = []
    for first in range(0, n, batch_size):
        clouds = sorted(order[first : first + batch_size], key=lambda i: -sizes[i])
        rounds = [clouds[at : at + ranks] for at in range(0, len(clouds), ranks)]
        dealt: list[list[int]] = [[] for _ in range(ranks)]
        for number, some in enumerate(rounds):
            for rank, cloud in zip(range(ranks)[:: -1 if number % 2 else 1], some):
                dealt[rank].append(cloud)
        plan.append(dealt)
    return plan


def pack_points(
    sizes: Sequence[int], count: int, ranks: int, share: float, random: Generator | None
) -> Plan:
    """`count` batches with about equal numbers of points.

    The clouds go into `count * ranks` bins, the largest first, each into the bin with the fewest
    points; bins with similar numbers of points form a batch. Strictly by size the bins would be the
    same in every epoch. So the sizes are multiplied by random factors before they are sorted: the
    most random ones with which no process has over 5 % more points than `share` and than the mean
    of the batch, or than it would have strictly by size.
    """
    plan = _pack(sizes, [float(n) for n in sizes], count, ranks)
    if random is None:
        return plan
    points = _points(sizes, plan)
    most = max(TOLERANCE * share, *(max(batch) for batch in points))
    spread = max(TOLERANCE, *(_spread(batch) for batch in points))
    for noise in (*NOISE, 0.0):
        factors = (noise * torch.randn(len(sizes), generator=random)).exp().tolist()
        plan = _pack(sizes, [n * f for n, f in zip(sizes, factors)], count, ranks)
        points = _points(sizes, plan)
        if all(max(batch) <= most and _spread(batch) <= spread for batch in points):
            break
    return [plan[i] for i in torch.randperm(count, generator=random).tolist()]


def count_batches(sizes: Sequence[int], points: int) -> int:
    """The number of batches of at most `points` points, whatever the number of processes."""
    order = sorted(range(len(sizes)), key=lambda i: -sizes[i])
    least = math.ceil(sum(sizes) / points)

    def fits(count: int) -> bool:
        return max(sum(sizes[i] for i in bin_) for bin_ in _bins(sizes, order, count)) <= points

    return least + bisect_left(range(least, len(sizes)), True, key=fits)


def _pack(sizes: Sequence[int], keys: Sequence[float], count: int, ranks: int) -> Plan:
    order = sorted(range(len(sizes)), key=lambda i: -keys[i])
    bins = [clouds for clouds in _bins(sizes, order, count * ranks) if clouds]
    bins.sort(key=lambda clouds: -sum(sizes[i] for i in clouds))
    cuts = [len(bins) * i // count for i in range(count + 1)]
    batches = [bins[a:b] for a, b in zip(cuts, cuts[1:])]
    return [batch + [[]] * (ranks - len(batch)) for batch in batches]


def _bins(sizes: Sequence[int], order: Sequence[int], count: int) -> list[list[int]]:
    """Put each cloud in turn into the bin with the fewest points."""
    bins: list[list[int]] = [[] for _ in range(count)]
    filled = [(0, number) for number in range(count)]
    for cloud in order:
        points, number = filled[0]
        bins[number].append(cloud)
        heapq.heapreplace(filled, (points + sizes[cloud], number))
    return bins


def _points(sizes: Sequence[int], plan: Plan) -> list[list[int]]:
    return [[sum(sizes[i] for i in clouds) for clouds in batch] for batch in plan]


def _spread(points: Sequence[int]) -> float:
    """The largest number of points of a process over their mean."""
    return max(points) * len(points) / max(1, sum(points))


def check_budget(batch_size: int | None, points_per_batch: int | None) -> None:
    """Raise a ValueError if both are given, or one is not positive."""
    if batch_size is not None and points_per_batch is not None:
        raise ValueError(
            f"batch_size is {batch_size} and points_per_batch {points_per_batch}: give one of "
            "them, the other is null"
        )
    for name, value in (("batch_size", batch_size), ("points_per_batch", points_per_batch)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")


def check_clouds(batch_size: int, ranks: int) -> None:
    """Raise a ValueError if processes would get different numbers of clouds of a whole batch."""
    if batch_size % ranks:
        raise ValueError(
            f"batch_size {batch_size} cannot be divided evenly among {ranks} processes: choose a "
            f"multiple of {ranks}"
        )


def check_points(largest: int, points_per_batch: int, place: Place) -> None:
    """Raise a ValueError if a cloud has more points than a process may get."""
    if largest * place.data_ranks > points_per_batch:
        raise ValueError(
            f"points_per_batch {points_per_batch} is {points_per_batch // place.data_ranks} per "
            f"process, and the largest cloud has {largest} points: choose at least "
            f"{largest * place.data_ranks}, or give the data set a num_points"
        )
