"""Saved states that survive a full disk and a kill, and are read without running code."""

import math
import signal
import sys
import threading
import time
from io import BytesIO
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback

from flare_geo.files import write_aside
from flare_geo.train.module import CloudModule


class SafeCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint of a run, written aside and renamed, and read as weights only."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Write the checkpoint; the former one stays intact until the new one is on the disk."""
        buffer = BytesIO()  # a full disk then raises an OSError, not an error of torch
        torch.save(checkpoint, buffer)
        with write_aside(path) as aside:
            aside.write_bytes(buffer.getvalue())

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read the checkpoint: tensors, numbers, strings and containers of them only.

        Raises:
            ValueError: if it is damaged.
        """
        content = BytesIO(Path(path).read_bytes())  # outside of try: errors of the disk pass
        try:
            return torch.load(content, map_location=map_location or "cpu", weights_only=True)
        except (RuntimeError, ValueError, EOFError, UnpicklingError) as error:
            line = " ".join(str(error).split())[:200]
            raise ValueError(
                f"the state in {path} cannot be read ({line}): delete it to train anew"
            ) from error


class SaveBest(Callback):
    """Saves the module with the lowest validation error in a folder.

    Must precede a callback that averages weights, which swaps its weights back afterwards.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.best = float("inf")

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save when the error is the lowest so far."""
        assert isinstance(pl_module, CloudModule)
        name = pl_module.val_names[-1]
        if trainer.sanity_checking or name not in trainer.callback_metrics:
            return
        error = float(trainer.callback_metrics[name])
        if error < self.best:
            self.best = error
            if trainer.is_global_zero:
                pl_module.save(self.folder)

    def state_dict(self) -> dict[str, Any]:
        """The lowest error so far."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the lowest error of the run that is resumed."""
        self.best = state_dict["best"]


class SaveState(Callback):
    """Saves the state of a run between two steps, by the clock and on a signal that ends the run.

    SIGTERM and SIGUSR1, with which schedulers announce the end of a job, are only noted. The step
    is finished, all processes agree (see :class:`flare_geo.train.faults.StepGuard`), the state is
    saved, and the run ends with status 128 + the number of the signal: 143 after SIGTERM, 138 after
    SIGUSR1. After the last step of an epoch the state is that of the end of the epoch, after its
    validation. Lightning's own handler of SIGTERM is replaced: it saves nothing, and it sends a
    message from inside the handler, while other processes may be sending messages of their own.

    Must follow any callback that changes weights at the end of a step, as weight averaging does.

    Args:
        path: the file of the state.
        minutes: minutes between saves within an epoch; None saves at its end only.
    """

    def __init__(self, path: Path, minutes: float | None = None) -> None:
        if minutes is not None and not minutes >= 0:
            raise ValueError(f"save_minutes must be a number of minutes or null, got {minutes}")
        self.path, self.seconds = path, math.inf if minutes is None else 60 * minutes
        self.noted = 0
        self.ends, self.saves = False, False
        self.saved_at = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Install the handlers; Lightning restores the former ones when the fit ends."""
        self.saved_at = time.monotonic()
        if trainer.is_global_zero:
            for half in self.path.parent.glob(f".{self.path.stem}-*{self.path.suffix}"):
                half.unlink()  # of a process that was killed while it wrote
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGUSR1):
                signal.signal(number, self._note)

    def wishes(self) -> tuple[bool, bool]:
        """Whether this process wants the run to end, and the state to be saved."""
        return self.noted > 0, time.monotonic() - self.saved_at >= self.seconds

    def agree(self, ends: float, saves: float) -> None:
        """Take up what the processes want together."""
        self.ends, self.saves = ends > 0, ends + saves > 0

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Save, if that was agreed before the step; after the last batch the epoch saves anyway."""
        if self.saves and not trainer.is_last_batch:
            self.saves = False
            trainer.save_checkpoint(self.path)
            self.saved_at = time.monotonic()
            self._end(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restart the clock: the state was saved at the end of the former epoch."""
        self.saved_at = time.monotonic()
        self._end(trainer)

    def _note(self, number: int, _: Any) -> None:
        self.noted = number

    def _end(self, trainer: Trainer) -> None:
        if not self.ends:
            return
        if trainer.is_global_zero:
            name = signal.Signals(self.noted).name if self.noted else "a signal elsewhere"
            print(
                f"ended by {name}; the state is saved in {self.path}, "
                "and the same command continues",
                file=sys.stderr,
                flush=True,
            )
        raise SystemExit(128 + (self.noted or signal.SIGTERM))
