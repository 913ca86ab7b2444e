"""The table of a run, one row per epoch, and its progress bar."""

import csv
import sys
import time
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from tqdm import tqdm

from flare_geo.files import write_aside
from flare_geo.train.module import CloudModule


class History(Callback):
    """One row per epoch, counted from 0, in `metrics.csv`; a resumed run continues the table.

    Args:
        path: the CSV file; the whole of it is written after every epoch.
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
        """Note that this epoch has no validation error yet."""
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
        """Continue below the rows of the run that is resumed."""
        self.rows, self.seconds = state_dict["rows"], state_dict["seconds"]

    def _gone(self) -> float:
        return self.seconds + time.perf_counter() - self.started


class RunProgress(Callback):
    """One bar over the whole run: epoch, steps, time gone and left, errors.

    On a terminal the bar moves; in a log file it is a line now and then (about 20 in total).

    Args:
        history: the table that the errors are read from; must precede this in the callbacks.
    """

    def __init__(self, history: History) -> None:
        self.history = history
        self.bar: tqdm[Any] | None = None
        self.latest: dict[str, str] = {}
        self.first_step = 0
        self.started = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the bar."""
        self.first_step, self.started = trainer.global_step, time.perf_counter()
        if trainer.is_global_zero and sys.stderr.isatty():
            steps = int(trainer.estimated_stepping_batches)
            self.bar = tqdm(total=steps, initial=self.first_step, unit=" steps", dynamic_ncols=True)

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        """Move the bar."""
        if self.bar is not None:
            epochs = trainer.max_epochs or 1
            epoch = min(trainer.current_epoch + 1, epochs)
            self.bar.set_description(f"epoch {epoch}/{epochs}", refresh=False)
            self.bar.set_postfix_str("  ".join(self.latest.values()), refresh=False)
            self.bar.update(trainer.global_step - self.bar.n)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take up the errors of the epoch; in a log file, print them."""
        row = self.history.rows[-1]
        assert isinstance(pl_module, CloudModule)
        names = (pl_module.train_name, *pl_module.val_names)
        fresh = {key: f"{_words(key)} {row[key]:.4f}" for key in names if key in row}
        self.latest |= fresh
        epoch, epochs = trainer.current_epoch + 1, trainer.max_epochs or 1
        every = max(1, epochs // 20)
        if self.bar is not None:
            self.bar.set_postfix_str("  ".join(self.latest.values()))
        elif trainer.is_global_zero and (epoch % every == 0 or epoch == epochs):
            gone = time.perf_counter() - self.started
            done = max(1, trainer.global_step - self.first_step)
            left = gone / done * (int(trainer.estimated_stepping_batches) - trainer.global_step)
            print(
                f"epoch {epoch}/{epochs}  {'  '.join(fresh.values())}  "
                f"elapsed {tqdm.format_interval(gone)}  ETA {tqdm.format_interval(left)}",
                flush=True,
            )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the finished bar on the screen."""
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: Any) -> None:
        """Give the terminal back; after Ctrl-C, say how to continue."""
        self._close()
        if isinstance(exception, KeyboardInterrupt) and trainer.is_global_zero:
            print(
                f"interrupted in epoch {trainer.current_epoch + 1}; the same command continues "
                "from the last save",
                file=sys.stderr,
            )

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None


def _words(name: str) -> str:
    """The words for a name: "val relative L2" for "val/rel_l2"."""
    split, what = name.split("/")
    return f"{split} {what.replace('rel_l2', 'relative L2').replace('_', ' ')}"
