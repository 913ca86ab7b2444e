"""Checkpoints that survive a full disk and a kill, and are read without running code."""

from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback

from flare_geo.files import write_aside
from flare_geo.train.module import SurrogateModule


class SafeCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint of a run, written aside and renamed, read as weights only."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Write the checkpoint; the former one stays whole until the new one is on the disk."""
        buffer = BytesIO()  # a full disk is then an OSError, and not one of torch's own
        torch.save(checkpoint, buffer)
        with write_aside(path) as aside:
            aside.write_bytes(buffer.getbuffer())

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read it; tensors, numbers, strings and containers of them only."""
        return torch.load(path, map_location=map_location or "cpu", weights_only=True)


class SaveBest(Callback):
    """Keeps the surrogate with the lowest validation error in a folder.

    Runs before any weight averaging swaps its weights back: put it first in the list.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.best = float("inf")

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save when the error is the lowest so far."""
        if trainer.sanity_checking or "val/rel_l2" not in trainer.callback_metrics:
            return
        error = float(trainer.callback_metrics["val/rel_l2"])
        if error < self.best:
            self.best = error
            if trainer.is_global_zero and isinstance(pl_module, SurrogateModule):
                pl_module.surrogate.save_pretrained(self.folder)

    def state_dict(self) -> dict[str, Any]:
        """The lowest error so far."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the lowest error of a run that is resumed."""
        self.best = state_dict["best"]
