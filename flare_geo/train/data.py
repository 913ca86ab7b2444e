"""The splits of a data set as loaders of packed batches."""

import hashlib
import math
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from lightning import LightningDataModule
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from flare_geo.datasets import PackedDataset
from flare_geo.nn import Scaler, Surrogate
from flare_geo.nn.surrogate import Field
from flare_geo.pyg import Batch, Data
from flare_geo.train.batches import BatchPlan, Place, Take, check_budget
from flare_geo.train.resume import ResumableLoader
from flare_geo.transforms import AssembleFeatures
from flare_geo.transforms.channels import Columns

UNUSED = ["face", "cells"]  # needed for pictures only, so the loader leaves them out


class Batches(Dataset[Batch]):
    """The clouds of a :class:`Take` as one `Batch`, or the shard of them that a process has.

    A batch has `loss_weight [B]`, see :class:`BatchPlan`. The random numbers of a transform depend
    only on `seed`, the epoch and the case, whichever process reads it and in whatever order.
    """

    def __init__(self, dataset: PackedDataset, place: Place, seed: int = 0) -> None:
        self.dataset, self.place, self.seed = dataset, place, seed

    def __getitem__(self, take: Take) -> Batch:
        self.dataset.set_epoch(take.epoch)
        clouds = [self._read(cloud, take.epoch) for cloud in take.clouds]
        batch = Batch.from_data_list(clouds, exclude_keys=UNUSED)
        batch.loss_weight = torch.tensor(take.weights)
        return batch

    def _read(self, cloud: int, epoch: int) -> Data:
        if self.dataset.transform is None:
            return self._share(cloud)
        with random_numbers_of(self.seed, epoch, cloud):
            return self._share(cloud)

    def _share(self, cloud: int) -> Data:
        if self.place.point_ranks == 1:
            return self.dataset[cloud]
        return self.dataset.shard(cloud, self.place.point_rank, self.place.point_ranks)


@contextmanager
def random_numbers_of(*numbers: int) -> Iterator[None]:
    """Seed the global generators of the CPU with these numbers, and restore them afterwards."""
    digest = hashlib.sha256(repr(numbers).encode()).digest()
    start = int.from_bytes(digest[:4], "little")
    with isolate_rng(include_cuda=False):
        torch.default_generator.manual_seed(start)
        np.random.seed(start)  # noqa: NPY002  (the one that third-party transforms use)
        random.seed(start)
        yield


class SplitsDataModule(LightningDataModule):
    """Training and validation batches of clouds of any sizes, packed by `ptr`.

    The order of an epoch depends only on `seed` and the number of the epoch. Clouds are divided
    among processes here, so the trainer needs `use_distributed_sampler=False`.

    Args:
        dataset: the training split; validation is its split ``"val"`` where that has cases.
        batch_size: clouds per batch, over all processes; 4 if neither is given.
        points_per_batch: points per batch, over all processes, see :class:`BatchPlan`.
        point_ranks: number of processes that shard the points of each cloud.
        num_workers: number of loading processes.
        seed: seed of the order, and of the random numbers of transforms.

    Raises:
        ValueError: if an option does not fit, or the training split has no cases.
    """

    def __init__(
        self,
        dataset: PackedDataset,
        *,
        batch_size: int | None = None,
        points_per_batch: int | None = None,
        point_ranks: int = 1,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_budget(batch_size, points_per_batch)
        if len(dataset) == 0:
            raise ValueError(f"{dataset.name}: the split '{dataset.split}' has no cases")
        if batch_size is None and points_per_batch is None:
            batch_size = 4
        self.dataset, self.batch_size, self.points_per_batch = dataset, batch_size, points_per_batch
        self.point_ranks, self.num_workers, self.seed = point_ranks, num_workers, seed
        self.validation = dataset.with_split("val") if "val" in dataset.splits else None
        if self.validation is not None and len(self.validation) == 0:
            self.validation = None

    def train_dataloader(self) -> DataLoader[Batch]:
        """Training batches, shuffled anew in every epoch and divided among the processes."""
        return self._loader(self.dataset, shuffle=True)

    def val_dataloader(self) -> DataLoader[Batch] | list[DataLoader[Batch]]:
        """Validation batches: the same every time, each case once."""
        return [] if self.validation is None else self._loader(self.validation, shuffle=False)

    def plan(
        self,
        dataset: PackedDataset,
        rank: int = 0,
        world_size: int = 1,
        *,
        accumulate: int = 1,
        shuffle: bool = True,
    ) -> BatchPlan:
        """The plan that divides the clouds of a split among the processes.

        Raises:
            ValueError: if they cannot be divided among that many processes.
        """
        return BatchPlan(
            dataset.sizes,
            Place.of(rank, world_size, self.point_ranks),
            batch_size=self.batch_size,
            points_per_batch=self.points_per_batch,
            accumulate=accumulate,
            shuffle=shuffle,
            seed=self.seed,
        )

    def _loader(self, dataset: PackedDataset, shuffle: bool) -> DataLoader[Batch]:
        rank, world, accumulate = 0, 1, 1
        if self.trainer is not None:
            rank, world = self.trainer.global_rank, self.trainer.world_size
            accumulate = self.trainer.accumulate_grad_batches if shuffle else 1
        plan = self.plan(dataset, rank, world, accumulate=accumulate, shuffle=shuffle)
        batches = Batches(dataset, plan.place, self.seed)
        return ResumableLoader(batches, plan, collate_fn=_as_it_is, num_workers=self.num_workers)


def _as_it_is(batch: Batch) -> Batch:
    return batch


def fields_of(dataset: PackedDataset) -> tuple[list[Field], list[Field]]:
    """Input and output channels of a surrogate for this data set: `pos`, `x` if any, and `y`.

    The data set declares them. Where its `transform` makes its own `x`, the columns are named after
    those that :class:`~flare_geo.transforms.AssembleFeatures` took, otherwise by number.

    Raises:
        ValueError: if the data set has no targets.
    """
    if not dataset.channels.get("y"):
        raise ValueError(f"{dataset.name} has no targets to train on")
    declared = {
        key: [Field(key, c.name, c.unit) for c in channels]
        for key, channels in dataset.channels.items()
    }
    inputs = [*declared["pos"], *declared.get("x", ())]
    if dataset.transform is not None:
        first = dataset[0]
        inputs = [f for key in ("pos", "x") for f in _columns(key, first, declared, dataset)]
    return inputs, declared["y"]


def _columns(
    key: str, data: Data, declared: dict[str, list[Field]], dataset: PackedDataset
) -> list[Field]:
    value = data.get(key)
    width = 0 if value is None else value.shape[1]
    steps = getattr(dataset.transform, "transforms", [dataset.transform])
    for step in reversed(steps):
        if isinstance(step, AssembleFeatures) and step.into == key:
            taken = [Columns.parse(name) for name in step.names]
            if all(c.field in declared for c in taken):
                named = [field for c in taken for field in declared[c.field][c.part]]
                return [Field(key, field.name, field.unit) for field in named]
            break
    if len(declared.get(key, ())) == width:
        return declared.get(key, [])
    return [Field(key, f"{key}[{i}]", "1") for i in range(width)]


def fit_scalers(surrogate: Surrogate, dataset: PackedDataset, raw: tuple[str, ...] = ()) -> None:
    """Fit the scalers of a surrogate on a training split, except for the fields that stay raw.

    Args:
        surrogate: its `input_scaler` and `output_scaler` are replaced, and the range of its inputs
            is kept in its `info`.
        dataset: the training split.
        raw: fields not to standardise, out of ``"pos"``, ``"x"``, ``"y"``.
    """
    fields = {f.field for f in surrogate.inputs + surrogate.outputs}
    unknown = set(raw) - fields
    if unknown:
        raise ValueError(
            f"raw names the field '{sorted(unknown)[0]}', the data have {', '.join(sorted(fields))}"
        )
    dataset.set_epoch(0)  # the same random points, whatever the data set was used for before
    low, high = (torch.full((len(surrogate.inputs),), end) for end in (math.inf, -math.inf))

    def rows() -> Iterator[Tensor]:
        for data in dataset:
            x = surrogate.assemble(data)
            torch.minimum(low, x.amin(0), out=low)
            torch.maximum(high, x.amax(0), out=high)
            yield torch.cat([x, data.y], dim=1)

    both = Scaler.fit(rows())
    surrogate.info["range"] = {"low": low.tolist(), "high": high.tolist()}
    for column, channel in enumerate(surrogate.inputs + surrogate.outputs):
        if channel.field in raw:
            both.mean[column], both.std[column] = 0.0, 1.0
    n = len(surrogate.inputs)
    surrogate.input_scaler = Scaler(both.mean[:n].clone(), both.std[:n].clone())
    surrogate.output_scaler = Scaler(both.mean[n:].clone(), both.std[n:].clone())
