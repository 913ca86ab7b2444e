"""The splits of a data set as loaders of packed batches."""

import math
from collections.abc import Iterator

import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DistributedSampler
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader

from flare_geo.datasets import PackedDataset
from flare_geo.nn import Scaler, Surrogate
from flare_geo.nn.surrogate import Field
from flare_geo.transforms import AssembleFeatures
from flare_geo.transforms.channels import Columns

UNUSED = ["face", "cells", "name"]  # for pictures only: not sent through the loader


class EpochSampler(DistributedSampler[Data]):
    """Tells the data set, too, which epoch it is: it may draw its points anew."""

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before every epoch."""
        super().set_epoch(epoch)
        self.dataset.set_epoch(epoch)  # type: ignore[attr-defined]


class SplitsDataModule(LightningDataModule):
    """Training and validation batches of clouds of any sizes, packed by `ptr`.

    The order of an epoch depends on `seed` and the number of the epoch alone.

    Args:
        dataset: the training split; validation is its split ``"val"`` where that has cases.
        batch_size: clouds a batch and process.
        num_workers: loading processes.
        seed: of the order.
    """

    def __init__(
        self, dataset: PackedDataset, *, batch_size: int = 1, num_workers: int = 0, seed: int = 0
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if len(dataset) == 0:
            raise ValueError(f"{dataset.name}: the split '{dataset.split}' has no cases")
        self.dataset, self.batch_size, self.num_workers = dataset, batch_size, num_workers
        self.seed = seed
        self.validation = dataset.with_split("val") if "val" in dataset.splits else None
        if self.validation is not None and len(self.validation) == 0:
            self.validation = None

    def train_dataloader(self) -> DataLoader:
        """Shuffled anew in every epoch, shared among the processes."""
        return self._loader(self.dataset, self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader | list[DataLoader]:
        """In order."""
        if self.validation is None:
            return []
        return self._loader(self.validation, self.batch_size, shuffle=False)

    def _loader(self, dataset: PackedDataset, batch_size: int, shuffle: bool) -> DataLoader:
        world, rank = (
            (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
        )
        sampler = EpochSampler(dataset, world, rank, shuffle=shuffle, seed=self.seed)
        return DataLoader(
            dataset,
            batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            exclude_keys=UNUSED,
        )


def fields_of(dataset: PackedDataset) -> tuple[list[Field], list[Field]]:
    """Input and output channels of a surrogate for this data set: `pos`, `x` if any, and `y`.

    They are those the data set declares. Where its `transform` makes an `x` of its own, the columns
    are called after what :class:`~flare_geo.transforms.AssembleFeatures` took them from, else by
    number.

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
    """Fit the scalers of a surrogate on a training split, but for the fields that stay raw.

    Args:
        surrogate: its `input_scaler` and `output_scaler` are replaced, and the range of its
            inputs is kept in its `info`.
        dataset: the training split.
        raw: fields to leave as they are, of ``"pos"``, ``"x"``, ``"y"``.
    """
    fields = {f.field for f in surrogate.inputs + surrogate.outputs}
    unknown = set(raw) - fields
    if unknown:
        raise ValueError(
            f"raw names the field '{sorted(unknown)[0]}', the data have {', '.join(sorted(fields))}"
        )
    dataset.set_epoch(0)  # the same random points, whatever was done with the data set before
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
