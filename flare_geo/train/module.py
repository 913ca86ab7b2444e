"""The training step: relative L2 on fields in physical units."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from lightning import LightningModule
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch_geometric.data import Batch, Data

from flare_geo.distributed import shard_points, sum_across
from flare_geo.metrics import relative_l2
from flare_geo.nn import Surrogate


class SurrogateModule(LightningModule):
    """Trains a :class:`flare_geo.nn.Surrogate`; the loss is the mean relative L2 of the clouds.

    Args:
        surrogate: what is trained; its scalers must be fitted already.
        optimizer: :func:`flare_geo.train.optimizer.make_optimizer` with its options filled in;
            called with the surrogate and `fused`. (To ask Lightning for the number of steps here
            makes it start the loader before it knows where a resumed run is.)
        point_ranks: processes that share the points of each cloud, see
            :class:`flare_geo.train.batches.Place`.
        compile: whether the model is compiled when the fit begins, on the device it is then on.
        seed: everything random in a step starts from `seed`, the epoch and the number of the batch,
            so a resumed run repeats what an uninterrupted one does.
    """

    def __init__(
        self,
        surrogate: Surrogate,
        optimizer: Callable[..., tuple[Optimizer, LRScheduler]],
        *,
        point_ranks: int = 1,
        compile: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.surrogate, self.make_optimizer, self.seed = surrogate, optimizer, seed
        self.point_ranks, self.compiles = point_ranks, compile
        self.total: Callable[[Tensor], Tensor] | None = None
        self.step: list[tuple[list[str], Tensor, Tensor]] = []

    def on_fit_start(self) -> None:
        """Spread the points over processes and compile, where that was asked for."""
        if self.point_ranks > 1:
            patience = getattr(self.trainer.strategy, "_timeout", None)  # as the group of all has
            group, _ = dist.new_subgroups(self.point_ranks, timeout=patience)
            shard_points(self.surrogate.model, group)
            self.total = partial(sum_across, group=group)
        if self.compiles:
            with self.trainer.precision_plugin.forward_context():  # it matters what is cast
                self.surrogate.model.compile()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Start the random numbers of this step."""
        epoch = (self.seed + 1) * 1_000_003 + self.current_epoch
        torch.manual_seed(epoch * 1_000_003 + batch_idx & 0x7FFF_FFFF_FFFF_FFFF)

    def training_step(self, batch: Batch) -> Tensor:
        """Loss of one batch: weighted so that a step is the mean over its clouds."""
        errors = self.errors(batch)
        self.step.append((batch.name, errors.detach(), batch.loss_weight))
        loss = (batch.loss_weight * errors).sum()
        if len(batch.y) == 0:  # of no cloud a point: DDP waits for a gradient of every weight
            loss = loss + sum(0 * p.sum() for p in self.parameters() if p.requires_grad)
        return loss

    def take_step(self) -> tuple[list[str], Tensor, Tensor]:
        """Names, errors and loss weights of the clouds since it was last asked, on this process."""
        names, errors, weights = zip(*self.step)
        self.step = []
        return [name for some in names for name in some], torch.cat(errors), torch.cat(weights)

    def validation_step(self, batch: Batch) -> None:
        """Errors on the validation split."""
        self._log("val/rel_l2", self.errors(batch), batch)

    def configure_optimizers(self) -> Any:
        """AdamW and one-cycle, stepped with every optimiser step."""
        optimizer, schedule = self.make_optimizer(
            self.surrogate,
            fused=not str(self.trainer.precision).endswith("mixed"),  # Lightning clips between
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def errors(self, batch: Data) -> Tensor:
        """Relative L2 of each cloud `[B]`, of whole clouds also where their points are spread."""
        return relative_l2(self.surrogate(batch), batch.y, batch.ptr, total=self.total)

    def _log(self, name: str, errors: Tensor, batch: Batch) -> None:
        own = errors[batch.loss_weight > 0]  # a process may have a cloud only to keep step
        clouds = float(len(own))  # Lightning would round the mean of an integer over processes
        mean = own.sum() / max(clouds, 1.0)
        self.log(name, mean, on_step=False, on_epoch=True, batch_size=clouds, sync_dist=True)  # type: ignore[arg-type]
