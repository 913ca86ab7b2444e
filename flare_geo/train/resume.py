"""Batches that go on in the midst of an epoch."""

import signal
from collections.abc import Callable, Iterator
from typing import Any

from torch.utils.data import DataLoader, Dataset, Sampler

from flare_geo.pyg import Batch

GRACE = 120  # seconds that a loading process stays for the end of a step


class ResumableLoader(DataLoader[Batch]):
    """A loader that knows its place in the epoch, which Lightning keeps in the saved state.

    After a state of the midst of an epoch was loaded, the first pass leaves out what was done
    before, without reading it. The length stays that of the whole epoch.

    Args:
        dataset: gives a batch for each item of the plan.
        plan: the items of an epoch, with a `set_epoch`.
        collate_fn: what the loading processes do to a batch.
        num_workers: loading processes; they outlive signals meant for the run, for a while.
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
        """How many batches of the epoch are done."""
        return {"done": self.done}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Leave out so many batches in the next pass."""
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
    """A scheduler signals all processes of a job; loading ones die from it, and take the step that
    shall be finished with them. SIGTERM ends them later, as the loader may want to end them by it.
    """
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(GRACE))
