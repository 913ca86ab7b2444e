"""A DataLoader that resumes mid-epoch."""

import signal
from collections.abc import Callable, Iterator
from typing import Any

from torch.utils.data import DataLoader, Dataset, Sampler

from flare_geo.pyg import Batch

GRACE = 120  # seconds that a loading process stays so that a step can be finished


class ResumableLoader(DataLoader[Batch]):
    """A loader that counts its batches; Lightning keeps the count in the saved state.

    After a state from within an epoch was loaded, the first pass skips the batches that were done
    before, without reading them. The length stays that of the whole epoch.

    Args:
        dataset: gives a batch for each item of the plan.
        plan: the items of an epoch; has a `set_epoch`.
        collate_fn: applied to each batch in the loading processes.
        num_workers: number of loading processes; they outlive signals for the run, for a while.
    """

    def __init__(
        self,
        dataset: Dataset[Batch],
        plan: Any,
        *,
        collate_fn: Callable[[Any], Any],
        num_workers: int = 0,
    ) -> None:
        self.done = 0
        self.remaining = _Remaining(plan)
        super().__init__(
            dataset,
            batch_size=None,  # an item is a batch
            sampler=self.remaining,
            collate_fn=collate_fn,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            worker_init_fn=_outlive_signals,
        )

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        """The batches that are left."""
        self.done = self.remaining.skip
        return self._count(super().__iter__())

    def _count(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        for batch in batches:
            self.done += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """The number of batches of the epoch that are done."""
        return {"done": self.done}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Skip the batches that are done in the next pass."""
        self.remaining.skip = state_dict["done"]


class _Remaining(Sampler[Any]):
    def __init__(self, plan: Any) -> None:
        self.plan, self.skip = plan, 0

    def set_epoch(self, epoch: int) -> None:
        self.plan.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.plan)

    def __iter__(self) -> Iterator[Any]:
        skip, self.skip = self.skip, 0
        for i, item in enumerate(self.plan):
            if i >= skip:
                yield item


def _outlive_signals(_: int) -> None:
    """Ignore the signals of a scheduler, which reach all processes of a job: without its loading
    processes the run could not finish its step. SIGTERM ends them later, since the loader uses it.
    """
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(GRACE))
