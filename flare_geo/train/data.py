"""The splits of a data set as loaders of packed batches."""

import torch
from lightning import LightningDataModule
from torch.utils.data import DistributedSampler
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader

from flare_geo.datasets import PackedDataset
from flare_geo.nn import Scaler, Surrogate
from flare_geo.nn.surrogate import Field

UNUSED = ["face", "cells", "name"]  # for pictures only: not sent through the loader


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
        sampler: DistributedSampler[Data] = DistributedSampler(
            dataset, world, rank, shuffle=shuffle, seed=self.seed
        )
        return DataLoader(
            dataset,
            batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            exclude_keys=UNUSED,
        )


def fields_of(dataset: PackedDataset) -> tuple[list[Field], list[Field]]:
    """Input and output channels of a surrogate for this data set: `pos`, `x` if any, and `y`."""
    inputs = [
        Field(field, channel.name, channel.unit)
        for field in ("pos", "x")
        for channel in dataset.channels.get(field, ())
    ]
    outputs = [Field("y", channel.name, channel.unit) for channel in dataset.channels["y"]]
    return inputs, outputs


def fit_scalers(surrogate: Surrogate, dataset: PackedDataset, raw: tuple[str, ...] = ()) -> None:
    """Fit the scalers of a surrogate on a training split, but for the fields that stay raw.

    Args:
        surrogate: its `input_scaler` and `output_scaler` are replaced.
        dataset: the training split.
        raw: fields to leave as they are, of ``"pos"``, ``"x"``, ``"y"``.
    """
    fields = {f.field for f in surrogate.inputs + surrogate.outputs}
    unknown = set(raw) - fields
    if unknown:
        raise ValueError(
            f"raw names the field '{sorted(unknown)[0]}', the data have {', '.join(sorted(fields))}"
        )
    both = Scaler.fit(torch.cat([surrogate.assemble(data), data.y], dim=1) for data in dataset)
    for column, channel in enumerate(surrogate.inputs + surrogate.outputs):
        if channel.field in raw:
            both.mean[column], both.std[column] = 0.0, 1.0
    n = len(surrogate.inputs)
    surrogate.input_scaler = Scaler(both.mean[:n].clone(), both.std[:n].clone())
    surrogate.output_scaler = Scaler(both.mean[n:].clone(), both.std[n:].clone())
