"""The training step: relative L2 on fields in physical units."""

from collections.abc import Callable
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch_geometric.data import Batch

from flare_geo.metrics import relative_l2
from flare_geo.nn import Surrogate


class SurrogateModule(LightningModule):
    """Trains a :class:`flare_geo.nn.Surrogate`; the loss is the mean relative L2 of the clouds.

    Args:
        surrogate: what is trained; its scalers must be fitted already.
        optimizer: :func:`flare_geo.train.optimizer.make_optimizer` with its options filled in;
            called with the surrogate, `total_steps` and `fused`.
        compile: whether the model is compiled when the fit begins, on the device it is then on.
        seed: everything random in an epoch starts from `seed` and the number of the epoch, so a
            resumed run repeats what an uninterrupted one does.
    """

    def __init__(
        self,
        surrogate: Surrogate,
        optimizer: Callable[..., tuple[Optimizer, LRScheduler]],
        *,
        compile: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.surrogate, self.make_optimizer, self.seed = surrogate, optimizer, seed
        self.compiles = compile

    def on_fit_start(self) -> None:
        """Compile, where that was asked for."""
        if self.compiles:
            with self.trainer.precision_plugin.forward_context():  # it matters what is cast
                self.surrogate.model.compile()

    def on_train_epoch_start(self) -> None:
        """Start the random numbers of this epoch."""
        torch.manual_seed((self.seed + 1) * 1_000_003 + self.current_epoch)

    def training_step(self, batch: Batch) -> Tensor:
        """Loss of one batch."""
        loss = self._errors(batch).mean()
        self._log("train/rel_l2", loss, batch.num_graphs)
        return loss

    def on_train_epoch_end(self) -> None:
        """Stop at once when the loss is not a number any more."""
        loss = self.trainer.callback_metrics["train/rel_l2"]
        if not torch.isfinite(loss):
            raise ValueError(
                f"the training loss is {float(loss)} in epoch {self.current_epoch}: lower --lr or "
                "look for outliers in the data (flare-geo data inspect)"
            )

    def validation_step(self, batch: Batch) -> None:
        """Errors on the validation split."""
        self._log("val/rel_l2", self._errors(batch).mean(), batch.num_graphs)

    def configure_optimizers(self) -> Any:
        """AdamW and one-cycle, stepped with every optimiser step."""
        optimizer, schedule = self.make_optimizer(
            self.surrogate,
            total_steps=int(self.trainer.estimated_stepping_batches),
            fused=not str(self.trainer.precision).endswith("mixed"),  # Lightning clips between
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def _errors(self, batch: Batch) -> Tensor:
        return relative_l2(self.surrogate(batch), batch.y, batch.ptr)

    def _log(self, name: str, value: Tensor, clouds: int) -> None:
        self.log(name, value, on_step=False, on_epoch=True, batch_size=clouds, sync_dist=True)
