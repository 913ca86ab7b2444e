"""Forecast the peak memory of the largest training step, before the first one.

Two steps on few random points are measured: every storage that an operator makes is counted while
it lives, forwards and backwards, which works for every model, precision and backend, and with
`checkpoint_blocks`. The peak grows linearly with the points and is extrapolated to the largest
batch; weights, moments and averages are added. Neither memory inside a kernel nor fragmentation of
the allocator is counted: glibc's heap, which holds arrays below 32 MiB, may lose as much again and
more. Above that size the forecast is within 1 % of the resident memory that the system reports
(`tests/train/test_memory.py`).
"""

import weakref
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, WeightAveraging
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from flare_geo.datasets import PackedDataset
from flare_geo.memory import free_bytes
from flare_geo.train.batches import BatchPlan
from flare_geo.train.data import SplitsDataModule
from flare_geo.train.faults import LESS_MEMORY
from flare_geo.train.module import CloudModule

PROBES = (1024, 2048)  # the most points of the two steps; fewer than the batch has
SURE = 1.25  # a run whose forecast exceeds the free memory by more than this cannot fit


class Largest(NamedTuple):
    """The largest batch of a process."""

    points: int
    clouds: int

    def __str__(self) -> str:
        clouds = "1 cloud" if self.clouds == 1 else f"{self.clouds:,} clouds"
        return f"{clouds}, {self.points:,} points"


class LiveBytes(TorchDispatchMode):
    """A context that counts the bytes of all storages that operators make, while they live."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.peak = 0, 0
        self.known: dict[int, int] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operator, then count the new storages."""
        before = {s._cdata for s in _storages((args, kwargs))}
        result = func(*args, **(kwargs or {}))
        for storage in _storages(result):
            key = storage._cdata
            if key not in before and key not in self.known:
                self.known[key] = storage.nbytes()
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._forget, key)
        return result

    def _forget(self, key: int) -> None:
        self.now -= self.known.pop(key)


def _storages(tree: Any) -> list[torch.UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


class MemoryForecast(Callback):
    """Prints the memory that the largest batch needs, and ends a run at once that cannot fit.

    Raises:
        ValueError: when training starts, if the memory cannot suffice.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forecast on the device, with all weights in place."""
        splits = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(pl_module, CloudModule)
        assert isinstance(splits, SplitsDataModule)
        plan = splits.plan(splits.dataset, trainer.global_rank, trainer.world_size)
        largest = largest_batch(plan, sizes_of(splits.dataset))
        try:
            with trainer.precision_plugin.forward_context():
                expected = step_bytes(pl_module, largest) + lasting_bytes(trainer, pl_module)
        except ValueError as error:  # clouds of one size only, as those of a grid
            if trainer.is_global_zero:
                print(f"expected memory: unknown, the model does not take random points ({error})")
            return
        free = free_bytes(pl_module.device)
        if free is not None and pl_module.device.type == "cpu":
            free //= max(1, trainer.num_devices)
        of = "" if free is None else f" of {_gib(free)} free"
        what = f"{_gib(expected)}{of} on {pl_module.device}"
        if free is not None and expected > SURE * free:
            raise ValueError(f"the largest batch ({largest}) needs about {what}: {LESS_MEMORY}")
        if trainer.is_global_zero:
            tight = free is not None and expected > free
            doubt = f"; it may not fit, and if it does not {LESS_MEMORY}" if tight else ""
            print(f"expected memory: {what}, in the largest batch ({largest}){doubt}", flush=True)


def _gib(number: float) -> str:
    return f"{max(0.01, number / 2**30):.2f} GiB"


def sizes_of(dataset: PackedDataset) -> list[int]:
    """Points of the clouds after the transform. One that gives the first cloud another number of
    points, as sampling does, is assumed to give that number to all clouds.
    """
    sizes = dataset.sizes
    if dataset.transform is None:
        return sizes
    first = len(dataset[0].pos)
    return sizes if first == sizes[0] else [first] * len(sizes)


def largest_batch(plan: BatchPlan, sizes: Sequence[int]) -> Largest:
    """The largest batch that a process can get.

    Args:
        plan: the plan of the training split.
        sizes: points of the clouds.
    """
    if plan.batch_size is not None:
        count = min(-(-plan.batch_size // plan.place.data_ranks), len(sizes))
        largest = Largest(sum(sorted(sizes)[-count:]), count)
    else:
        bins = (clouds for batch in plan.plan() for clouds in batch)
        largest = max(Largest(sum(sizes[i] for i in clouds), len(clouds)) for clouds in bins)
    return Largest(-(-largest.points // plan.place.point_ranks), largest.clouds)


def step_bytes(module: CloudModule, batch: Largest) -> int:
    """Peak bytes of the loss and the gradients of a batch, including inputs and gradients.

    The gradients of the module, its buffers and the random state stay as they were.
    """
    sizes = [max(min(points, batch.points // i), batch.clouds) for i, points in zip((4, 2), PROBES)]
    with torch.random.fork_rng(), torch.compiler.set_stance("force_eager"):
        buffers = [buffer.clone() for buffer in module.buffers()]
        first, second = (_peak(module, points, batch.clouds) for points in sizes)
        for buffer, former in zip(module.buffers(), buffers, strict=True):
            buffer.copy_(former)
    slope = (second - first) / max(1, sizes[1] - sizes[0])
    return int(first + slope * (batch.points - sizes[0]))


def _peak(module: CloudModule, points: int, clouds: int) -> int:
    weights = [p for p in module.parameters() if p.requires_grad]
    with LiveBytes() as live:
        batch = module.random_batch(points, clouds)
        loss = module.errors(batch).sum()
        # not backward(), on which a wrapper such as DDP would communicate the gradients
        torch.autograd.grad(loss, weights, allow_unused=True)
    return live.peak


def lasting_bytes(trainer: Trainer, module: CloudModule) -> int:
    """Bytes that stay from step to step: weights, two moments, an average, the buckets of DDP."""
    weights = sum(p.nbytes for p in module.parameters())
    trained = sum(p.nbytes for p in module.parameters() if p.requires_grad)
    averages = sum(isinstance(callback, WeightAveraging) for callback in trainer.callbacks)  # type: ignore[attr-defined]
    buckets = isinstance(trainer.strategy, DDPStrategy)
    return weights * (1 + averages) + trained * (2 + buckets)
