"""Fault handling: non-finite steps, out-of-memory, lost processes."""

import json
import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch.optim import Optimizer
from tqdm import tqdm

from flare_geo.files import write_aside
from flare_geo.provenance import provenance
from flare_geo.pyg import Batch
from flare_geo.train.checkpoint import SaveState
from flare_geo.train.module import CloudModule

KEPT = 100  # skipped steps that are listed one by one
OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "bad_alloc")
LOST = ("connection closed by peer", "connection reset by peer", "timed out", "broken pipe", "nccl")


class StepGuard(Callback):
    """Skips steps whose loss or gradient is not finite, and keeps the mean error of the others.

    Before every optimiser step the processes add up five numbers: whether the step is bad, the sum
    of the errors of the clouds and their count, and the two wishes of :class:`SaveState`; so all
    processes decide alike. A step that is skipped loses its gradients: no weight and no moment
    changes, and nothing decays. The mean error of an epoch is over the clouds of its good steps. It
    is part of the saved state, so it is right after an epoch that was interrupted.

    Must precede any callback that reads the training error.

    Args:
        run: folder of the run, for the report `faults.json`.
        saver: writes the state between steps.
        max_bad_steps: bad steps in a row that end the run; so does an epoch without a good step.

    Raises:
        ValueError: during training, when the run ends for this reason; names the cases.
    """

    def __init__(self, run: Path, saver: SaveState, max_bad_steps: int = 10) -> None:
        if max_bad_steps < 1:
            raise ValueError(f"max_bad_steps must be at least 1, got {max_bad_steps}")
        self.path, self.saver, self.max_bad_steps = run / "faults.json", saver, max_bad_steps
        self.error, self.clouds = 0.0, 0.0
        self.skipped, self.in_a_row = 0, 0
        self.faults: list[dict[str, Any]] = []
        self.batch = "the first batch"

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Remember the batch, in case it does not fit into memory."""
        self.batch = f"the training batch of {words(batch)}"

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int, *_: int
    ) -> None:
        """Remember the batch of validation, too."""
        self.batch = f"the validation batch of {words(batch)}"

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Check the step once it has the gradients of all processes, before they are clipped."""
        assert isinstance(pl_module, CloudModule)
        names, errors, weights = pl_module.take_step()
        grads = [p.grad for p in pl_module.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(grads).reshape(1)
        *numbers, size = torch.cat([errors, weights.to(errors), norm.to(errors)]).tolist()  # waits
        values, counted = numbers[: len(names)], numbers[len(names) :]
        worst = [name for name, value in zip(names, values) if not math.isfinite(value)]
        bad = bool(worst) or not (math.isfinite(size) or _scales(trainer))
        good = [value for value, weight in zip(values, counted) if weight and math.isfinite(value)]
        wrong, error, clouds, *wishes = _total(
            trainer, [bad, sum(good), len(good), *self.saver.wishes()]
        )
        self.saver.agree(*wishes)
        if not wrong:
            self.error, self.clouds, self.in_a_row = self.error + error, self.clouds + clouds, 0
            return
        optimizer.zero_grad(set_to_none=True)
        self._count(trainer, _gather(worst, trainer), _gather(names, trainer))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the mean error of the epoch."""
        if not self.clouds:
            self._end(trainer)
        assert isinstance(pl_module, CloudModule)
        pl_module.log(pl_module.train_name, self.error / self.clouds, sync_dist=True)
        self.error, self.clouds = 0.0, 0.0

    def state_dict(self) -> dict[str, Any]:
        """The counts so far."""
        names = ("error", "clouds", "skipped", "in_a_row", "faults")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the counts of the run that is resumed."""
        for name, value in state_dict.items():
            setattr(self, name, value)

    def _count(self, trainer: Trainer, worst: list[str], names: list[str]) -> None:
        what = "loss" if worst else "gradient"
        cases = sorted(set(worst or names))
        epoch, step = trainer.current_epoch, trainer.global_step
        self.skipped, self.in_a_row = self.skipped + 1, self.in_a_row + 1
        fault = {"epoch": epoch, "step": step, "what": what, "cases": cases}
        self.faults = [*self.faults, fault][-KEPT:]
        if self.in_a_row >= self.max_bad_steps:
            self._end(trainer)
        if trainer.is_global_zero:
            self._report()
            tqdm.write(
                f"epoch {epoch + 1}, step {step + 1} left out: the {what} is not finite, "
                f"{_cases(cases)}",
                file=sys.stderr,
            )

    def _end(self, trainer: Trainer) -> None:
        state = self.saver.path
        kept = f"the last good state is {state}" if state.is_file() else "no state was saved yet"
        last = self.faults[-self.in_a_row :]
        cases = sorted({case for fault in last for case in fault["cases"]})
        message = (
            f"the {last[-1]['what']} was not finite in {_times(self.in_a_row)}, the last in epoch "
            f"{trainer.current_epoch + 1}, {_cases(cases)}: lower --lr or look for outliers in "
            f"these cases (flare-geo data inspect); {kept}, the report is {self.path}"
        )
        if trainer.is_global_zero:
            self._report(message)
        raise ValueError(message)

    def _report(self, ended: str | None = None) -> None:
        content = {
            "provenance": provenance(),
            "ended": ended,
            "skipped_steps": self.skipped,
            "in_a_row": self.in_a_row,
            "last_faults": self.faults,
        }
        with write_aside(self.path) as aside:
            aside.write_text(json.dumps(content, indent=1) + "\n")


@contextmanager
def plain_words(guard: StepGuard) -> Iterator[None]:
    """Turn PyTorch's errors about memory, lost processes and foreign states into one line.

    Raises:
        ValueError: with that line; other errors pass.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        line = explain(error, guard.batch)
        if "loading state_dict for" in str(error):
            what = " ".join(str(error).splitlines()[1].split())[:200]
            line = (
                f"{guard.saver.path} is the state of another model ({what}): choose another --run, "
                "or delete the folder"
            )
        if line is None:
            raise
        raise ValueError(line) from error


def explain(error: BaseException, batch: str) -> str | None:
    """What happened to a run and what to change; None for any other error."""
    said = " ".join(str(error).split())
    lower = said.lower()
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(
        words in lower for words in OUT_OF_MEMORY
    ):
        return f"out of memory in {batch}: {LESS_MEMORY}"
    if "dataloader worker" in lower:
        return (
            "a loading process was killed, often for lack of memory: lower --num_workers; the same "
            f"command continues from the last save ({said[:200]})"
        )
    if isinstance(error, dist.DistError) or any(words in lower for words in LOST):
        return (
            "another process of this run is gone or does not answer, so this one ends; the reason "
            "is in the last messages of that one, and the same command continues from the last "
            f"save ({said[:200]})"
        )
    return None


def limit_waiting(trainer: Trainer, minutes: float) -> None:
    """Let a process that waits for the others give up after `minutes`; to be called before the fit.

    Gloo notices at once that a process is gone; NCCL does not always.
    """
    if not minutes > 0:
        raise ValueError(f"wait_minutes must be positive, got {minutes}")
    if hasattr(trainer.strategy, "_timeout"):  # a strategy with several processes; has no setter
        trainer.strategy._timeout = timedelta(minutes=minutes)


LESS_MEMORY = (
    "choose fewer points (--points_per_batch, --batch_size or --data.num_points), or "
    "--model.checkpoint_blocks true, or --precision bf16-mixed"
)


def words(batch: Batch) -> str:
    """The cases of a batch and its points, for a message."""
    names = batch.get("name") or []
    names = [names] if isinstance(names, str) else list(names)
    return f"{batch.num_nodes:,} points, {_cases(names)}"


def _times(steps: int) -> str:
    return "1 step" if steps == 1 else f"{steps} steps in a row"


def _cases(names: Sequence[str]) -> str:
    if not names:
        return "no case"
    shown, more = ", ".join(names[:5]), len(names) - 5
    return f"case{'s' * (len(names) > 1)} {shown}" + (f" and {more} more" if more > 0 else "")


def _scales(trainer: Trainer) -> bool:
    """Whether the loss is scaled up, as for float16, so that a gradient may overflow at times. The
    scaler itself then skips the step and lowers the scale.
    """
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    return scaler is not None and scaler.get_scale() > 1


def _total(trainer: Trainer, values: Sequence[float]) -> list[float]:
    """The sums of the numbers over all processes."""
    if trainer.world_size == 1:
        return list(values)
    total = torch.tensor(values, dtype=torch.float64, device=trainer.strategy.root_device)
    dist.all_reduce(total)
    summed: list[float] = total.tolist()
    return summed


def _gather(names: list[str], trainer: Trainer) -> list[str]:
    """The names of all processes."""
    if trainer.world_size == 1:
        return names
    parts: list[list[str]] = [[] for _ in range(trainer.world_size)]
    dist.all_gather_object(parts, names)
    return [name for part in parts for name in part]
