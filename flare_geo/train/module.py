"""The training step: relative L2 on fields in physical units, cross-entropy on classes."""

from abc import abstractmethod
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from lightning import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from flare_geo.distributed import shard_points, sum_across
from flare_geo.metrics import accuracy, cross_entropy, relative_l2
from flare_geo.nn import SequenceClassifier, Surrogate
from flare_geo.pyg import Batch, Data


class CloudModule(LightningModule):
    """Trains a module on batches of clouds; the loss is the mean of one error per cloud.

    Args:
        net: the module to train; has a `save_pretrained`.
        optimizer: :func:`flare_geo.train.optimizer.make_optimizer` with its options filled in;
            called with the net and `fused`. (Asking Lightning for the number of steps here would
            start the loader before it knows where a resumed run continues.)
        point_ranks: processes that share the points of each cloud, see
            :class:`flare_geo.train.batches.Place`.
        compile: whether the model is compiled when the fit begins, on the device it is then on.
        seed: seed of all random numbers of a step, together with the epoch and the number of the
            batch, so that a resumed run repeats what an uninterrupted one does.
    """

    train_name: ClassVar[str]
    """The name of the loss in the table of the run."""

    val_names: ClassVar[tuple[str, ...]]
    """The names of the means of :meth:`measures`; the lowest of the last one is the best epoch."""

    def __init__(
        self,
        net: nn.Module,
        optimizer: Callable[..., tuple[Optimizer, LRScheduler]],
        *,
        point_ranks: int = 1,
        compile: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.net, self.make_optimizer, self.seed = net, optimizer, seed
        self.point_ranks, self.compiles = point_ranks, compile
        self.total: Callable[[Tensor], Tensor] | None = None
        self.step: list[tuple[list[str], Tensor, Tensor]] = []

    def on_fit_start(self) -> None:
        """Shard the points over processes and compile, where that was asked for."""
        if self.point_ranks > 1:
            patience = getattr(self.trainer.strategy, "_timeout", None)  # as the group of all has
            group, _ = dist.new_subgroups(self.point_ranks, timeout=patience)
            shard_points(self.model, group)
            self.total = partial(sum_across, group=group)
        if self.compiles:
            with self.trainer.precision_plugin.forward_context():  # it matters what is cast
                self.model.compile()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed the random numbers of this step."""
        epoch = (self.seed + 1) * 1_000_003 + self.current_epoch
        torch.manual_seed(epoch * 1_000_003 + batch_idx & 0x7FFF_FFFF_FFFF_FFFF)

    def training_step(self, batch: Batch) -> Tensor:
        """The loss of one batch, weighted so that a step is the mean over its clouds."""
        errors = self.errors(batch)
        self.step.append((batch.name, errors.detach(), batch.loss_weight))
        loss = (batch.loss_weight * errors).sum()
        if len(batch.pos) == 0:  # no points on this rank: DDP waits for a gradient of every weight
            loss = loss + sum(0 * p.sum() for p in self.parameters() if p.requires_grad)
        return loss

    def take_step(self) -> tuple[list[str], Tensor, Tensor]:
        """Names, errors and loss weights of the clouds on this process since the last call."""
        names, errors, weights = zip(*self.step)
        self.step = []
        return [name for some in names for name in some], torch.cat(errors), torch.cat(weights)

    def validation_step(self, batch: Batch) -> None:
        """Errors on the validation split."""
        counted = batch.loss_weight > 0  # a process may have a cloud only to keep step
        clouds = float(counted.sum())  # Lightning would round the mean of an integer over processes
        for name, errors in zip(self.val_names, self.measures(batch), strict=True):
            mean = errors[counted].sum() / max(clouds, 1.0)
            how = {"on_step": False, "on_epoch": True, "sync_dist": True}
            self.log(name, mean, batch_size=clouds, **how)  # type: ignore[arg-type]

    def configure_optimizers(self) -> Any:
        """AdamW, and the one-cycle schedule, which advances with every optimiser step."""
        optimizer, schedule = self.make_optimizer(
            self.net,
            fused=not str(self.trainer.precision).endswith("mixed"),  # Lightning clips between
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    @property
    def model(self) -> nn.Module:
        """The module with the blocks, to be compiled or sharded over processes."""
        return self.net

    def save(self, folder: Path) -> None:
        """Write the module as it is now, as a checkpoint of its own."""
        self.net.save_pretrained(folder)  # type: ignore[operator]

    @abstractmethod
    def errors(self, batch: Data) -> Tensor:
        """The loss of each cloud `[B]`."""

    def measures(self, batch: Data) -> tuple[Tensor, ...]:
        """The measures of each cloud in validation, each `[B]`; the loss if not overridden."""
        return (self.errors(batch),)

    @abstractmethod
    def random_batch(self, points: int, clouds: int) -> Data:
        """A batch of random numbers of that size, on the device, for the memory forecast."""


class SurrogateModule(CloudModule):
    """Trains a :class:`flare_geo.nn.Surrogate`, whose scalers are fitted, on the relative L2."""

    train_name, val_names = "train/rel_l2", ("val/rel_l2",)
    net: Surrogate

    @property
    def model(self) -> nn.Module:
        """The model inside the surrogate."""
        return self.net.model

    def errors(self, batch: Data) -> Tensor:
        """Relative L2 of each cloud `[B]`, of whole clouds also where their points are sharded."""
        return relative_l2(self.net(batch), batch.y, batch.ptr, total=self.total)

    def random_batch(self, points: int, clouds: int) -> Data:
        """Random fields with the channels of the surrogate."""
        widths = Counter(channel.field for channel in self.net.inputs)
        return Data(
            **{field: torch.rand(points, n, device=self.device) for field, n in widths.items()},
            y=torch.rand(points, len(self.net.outputs), device=self.device),
            ptr=torch.linspace(0, points, clouds + 1, device=self.device).long(),
        )


class ClassifierModule(CloudModule):
    """Trains a :class:`flare_geo.nn.SequenceClassifier` on the cross-entropy."""

    train_name, val_names = "train/loss", ("val/loss", "val/error_rate")
    net: SequenceClassifier
    info: dict[str, Any] | None = None
    """What the checkpoints record about the data."""

    def on_fit_start(self) -> None:
        """Refuse to shard sequences: their mean is taken where the whole sequence is.

        Raises:
            ValueError: if points are to be sharded.
        """
        if self.point_ranks > 1:
            raise ValueError("point_ranks is for fields on points, classes need 1")
        super().on_fit_start()

    def save(self, folder: Path) -> None:
        """Write the classifier, and what is known about its data."""
        self.net.save_pretrained(folder, self.info)

    def errors(self, batch: Data) -> Tensor:
        """Cross-entropy of each sequence `[B]`."""
        return cross_entropy(self._logits(batch), batch.label)

    def measures(self, batch: Data) -> tuple[Tensor, ...]:
        """Cross-entropy, and 1 for each sequence whose predicted class is wrong."""
        logits = self._logits(batch)
        return cross_entropy(logits, batch.label), 1 - accuracy(logits, batch.label)

    def random_batch(self, points: int, clouds: int) -> Data:
        """Sequences of random tokens."""
        ptr = torch.linspace(0, points, clouds + 1, device=self.device).long()
        at = torch.arange(points, device=self.device) - ptr[:-1].repeat_interleave(ptr.diff())
        halves = ptr.diff() // 2
        pair = torch.stack([halves, ptr.diff() - halves], dim=1)
        return Data(
            token=torch.randint(self.net.num_tokens, (points, 1), device=self.device),
            pos=(at % self.net.max_length).unsqueeze(1).float(),
            ptr=ptr,
            label=torch.randint(self.net.num_classes, (clouds, 1), device=self.device),
            lengths=pair if self.net.pair else None,
        )

    def _logits(self, batch: Data) -> Tensor:
        logits: Tensor = self.net(batch.token, batch.pos, batch.ptr, batch.get("lengths"))
        return logits
