"""What a person sees of a run while it runs, and the table that stays."""

import csv
import sys
import time
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from flare_geo.files import write_aside
from flare_geo.train.module import CloudModule


class History(Callback):
    """One row an epoch, counted from 0, in `metrics.csv`; a resumed run continues the table.

    Args:
        path: the CSV file, written whole after every epoch.
    """

    def __init__(self, path: Any) -> None:
        self.path = path
        self.rows: list[dict[str, float]] = []
        self.seconds = 0.0
        self.started = 0.0
        self.validated = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self.started = time.perf_counter()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """No validation yet."""
        self.validated = False

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that this epoch has a validation error of its own."""
        self.validated = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the epoch's row."""
        assert isinstance(pl_module, CloudModule)
        metrics, names = trainer.callback_metrics, [pl_module.train_name, *pl_module.val_names]
        logged = names if self.validated else names[:1]
        self.rows.append(
            {
                "epoch": trainer.current_epoch,
                "step": trainer.global_step,
                "lr": trainer.optimizers[0].param_groups[0]["lr"],
                **{name: float(metrics[name]) for name in logged},
                "seconds": round(self._gone(), 2),
            }
        )
        if trainer.is_global_zero:
            with write_aside(self.path) as aside, aside.open("w", newline="") as file:
                table = csv.DictWriter(file, ["epoch", "step", "lr", *names, "seconds"])
                table.writeheader()
                table.writerows(self.rows)

    def state_dict(self) -> dict[str, Any]:
        """The rows so far."""
        return {"rows": self.rows, "seconds": self._gone()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on below the rows of the run that is resumed."""
        self.rows, self.seconds = state_dict["rows"], state_dict["seconds"]

    def _gone(self) -> float:
        return self.seconds + time.perf_counter() - self.started


class RunProgress(Callback):
    """One bar over the whole run: epoch, errors, time gone and time left.

    On a terminal the bar moves; in a log file it is a line now and then (about 20 in all).

    Args:
        history: the table it reads the errors from; stands before it in the list of callbacks.
    """

    def __init__(self, history: History) -> None:
        self.history = history
        self.bar: Progress | None = None
        self.task: Any = None
        self.latest: dict[str, str] = {}
        self.first_step = 0
        self.started = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the bar."""
        self.first_step, self.started = trainer.global_step, time.perf_counter()
        if not trainer.is_global_zero or not sys.stderr.isatty():
            return
        self.bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(bar_width=20),
            TextColumn("{task.completed}/{task.total} steps"),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[errors]}"),
            console=Console(stderr=True),
        )
        self.bar.start()
        self.task = self.bar.add_task(
            "train",
            total=int(trainer.estimated_stepping_batches),
            completed=trainer.global_step,
            epoch=self._epoch(trainer),
            errors="",
        )

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        """Move the bar."""
        if self.bar is not None:
            self.bar.update(
                self.task,
                completed=trainer.global_step,
                epoch=self._epoch(trainer),
                errors="  ".join(self.latest.values()),
            )

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take up the errors of the epoch; in a log file, say them."""
        row = self.history.rows[-1]
        assert isinstance(pl_module, CloudModule)
        names = (pl_module.train_name, *pl_module.val_names)
        fresh = {key: f"{_words(key)} {row[key]:.4f}" for key in names if key in row}
        self.latest |= fresh
        epoch, epochs = trainer.current_epoch + 1, trainer.max_epochs or 1
        every = max(1, epochs // 20)
        if self.bar is None and trainer.is_global_zero and (epoch % every == 0 or epoch == epochs):
            gone = time.perf_counter() - self.started
            done = max(1, trainer.global_step - self.first_step)
            left = gone / done * (int(trainer.estimated_stepping_batches) - trainer.global_step)
            print(
                f"epoch {epoch}/{epochs}  {'  '.join(fresh.values())}  "
                f"elapsed {_clock(gone)}  ETA {_clock(left)}",
                flush=True,
            )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the finished bar on the screen."""
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: Any) -> None:
        """Give the terminal back; after Ctrl-C, say how to go on."""
        self._close()
        if isinstance(exception, KeyboardInterrupt) and trainer.is_global_zero:
            print(
                f"interrupted in epoch {trainer.current_epoch + 1}; the same command goes on from "
                "the last save",
                file=sys.stderr,
            )

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    @staticmethod
    def _epoch(trainer: Trainer) -> str:
        return f"{min(trainer.current_epoch + 1, trainer.max_epochs or 1)}/{trainer.max_epochs}"


def _words(name: str) -> str:
    """As in "val relative L2", of "val/rel_l2"."""
    split, what = name.split("/")
    return f"{split} {what.replace('rel_l2', 'relative L2').replace('_', ' ')}"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
