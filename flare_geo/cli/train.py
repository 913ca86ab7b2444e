"""`flare-geo train`: train a surrogate from a YAML file and flags."""

import logging
import math
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import yaml
from lightning import Trainer, seed_everything
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from torch import nn

from flare_geo.cli.pictures import Pictures
from flare_geo.cli.run_folder import source_line, source_of
from flare_geo.cli.verb import Verb
from flare_geo.datasets import PackedDataset, SequenceDataset
from flare_geo.files import write_aside
from flare_geo.nn import Flare, PointModel, SequenceClassifier, Surrogate
from flare_geo.train.checkpoint import SafeCheckpointIO, SaveBest, SaveState
from flare_geo.train.data import SplitsDataModule, fields_of, fit_scalers
from flare_geo.train.faults import StepGuard, limit_waiting, plain_words
from flare_geo.train.memory import MemoryForecast
from flare_geo.train.module import ClassifierModule, CloudModule, SurrogateModule
from flare_geo.train.optimizer import make_optimizer
from flare_geo.train.progress import History, RunProgress
from flare_geo.transforms import to_config

WHERE_NOT_WHAT = (
    "run", "config", "compile", "num_workers", "accelerator", "devices", "strategy", "num_nodes",
    "point_ranks", "save_minutes", "max_bad_steps", "wait_minutes",
)  # fmt: skip
QUIET = [  # advice of Lightning that does not apply to packed batches or to a CPU
    ".*does not have many workers.*",
    ".*GPU available but not used.*",
    ".*number of training batches.*smaller than the logging interval.*",
    ".*Checkpoint directory.*exists and is not empty.*",
    ".*The dirpath has changed from.*",  # a run folder may be moved
    ".*Detected call of `lr_scheduler.step\\(\\)` before.*",  # float16 skips steps at first
    ".*Total length of `list` across ranks is zero.*",  # a data set without validation cases
    ".*`isinstance\\(treespec, LeafSpec\\)` is deprecated.*",
]


def train(
    data: PackedDataset,
    run: Path,
    model: Callable[[int, int], PointModel] | Callable[[int, int, int], SequenceClassifier] = Flare,
    epochs: int = 100,
    batch_size: int | None = None,
    points_per_batch: int | None = None,
    lr: float = 1e-3,
    weight_decay: float = 1e-5,
    eps: float = 1e-8,
    pct_start: float = 0.1,
    div_factor: float = 1e4,
    final_div_factor: float = 1e4,
    clip: float = 1.0,
    accumulate: int = 1,
    ema: float | None = None,
    raw: list[Literal["pos", "x", "y"]] | None = None,
    val_every: int = 1,
    save_minutes: float | None = 10.0,
    max_bad_steps: int = 10,
    seed: int = 0,
    precision: Literal["32-true", "64-true", "bf16-mixed", "16-mixed"] = "32-true",
    compile: bool = False,
    accelerator: str = "auto",
    devices: int | str = "auto",
    strategy: str = "auto",
    num_nodes: int = 1,
    wait_minutes: float = 10.0,
    point_ranks: int = 1,
    num_workers: int = 0,
    resolved: str = "",
) -> Path:
    """Train a surrogate; the same command continues a run that was interrupted.

    Args:
        data: The data set. The model is fitted to its training split; the validation split, where
            there is one, chooses the checkpoint "best".
        run: Folder of the run. It is made if it does not exist, and continued if it does.
        model: The model, called with the numbers of input and output channels. For sequences it is
            a classifier, called with the numbers of tokens and classes and the largest length.
        epochs: Number of passes over the training split.
        batch_size: Clouds per batch, over all processes. The default is 4 if points_per_batch is
            not given.
        points_per_batch: Points per batch, over all processes, in place of batch_size. Clouds are
            packed so that all processes have about as many points.
        lr: Peak learning rate of AdamW under a cosine one-cycle schedule.
        weight_decay: Weight decay of linear layers; biases, norms and latents do not decay.
        eps: Adam's epsilon.
        pct_start: Share of the steps in which the learning rate rises.
        div_factor: Ratio of the peak learning rate to the first one.
        final_div_factor: Ratio of the first learning rate to the last one.
        clip: Largest norm of the gradient; 0 turns clipping off.
        accumulate: Batches per optimiser step.
        ema: Decay of an exponential moving average of the weights, which is then validated and
            saved in place of the weights.
        raw: Fields that are not standardised.
        val_every: Epochs between validations.
        save_minutes: Minutes between saves within an epoch; null saves only at the end of epochs.
        max_bad_steps: Number of steps in a row with a non-finite loss or gradient that ends the
            run. Fewer are skipped, and their cases are named.
        seed: Seed of the weights, the order of the batches and all other random numbers.
        precision: Floating-point precision of the computation.
        compile: Compile the model first: on a CPU to kernels in C++, which takes some ten seconds
            once per machine; on a GPU by torch.compile.
        accelerator: "auto", "cpu" or "gpu".
        devices: Number of devices, or "auto".
        strategy: Strategy of Lightning, "ddp" for several GPUs.
        num_nodes: Number of machines.
        wait_minutes: Minutes that a process waits for the others before it gives up.
        point_ranks: Number of processes that shard the points of each cloud, for clouds that one
            process cannot hold. Groups of that many processes take different clouds.
        num_workers: Number of loading processes.
        resolved: The configuration as YAML, kept as the `config.yaml` of the run; the command line
            fills it in.

    Returns:
        The folder of the run.

    Raises:
        FileNotFoundError: The data are not there; says how to get them.
        ValueError: An option does not fit, or the folder holds a run with other options.
    """
    _quieten()
    if epochs < 1:
        raise ValueError(f"epochs must be at least 1, got {epochs}")
    if _is_complete(run, resolved):
        print(f"{run} is trained already: to train anew, choose another --run or delete it")
        return run
    seed_everything(seed, verbose=False)
    make_module, net = _make_net(model, data, tuple(raw or ()))
    history = History(run / "metrics.csv")
    saver = SaveState(run / "last.ckpt", save_minutes)
    guard = StepGuard(run, saver, max_bad_steps)
    callbacks: list[Callback] = [
        SaveBest(run / "best"),
        guard,
        MemoryForecast(),
        history,
        RunProgress(history),
        ModelCheckpoint(run, "last", enable_version_counter=False, save_on_train_epoch_end=True),
    ]
    if ema is not None:
        callbacks.append(EMAWeightAveraging(decay=ema))
    callbacks.append(saver)
    splits = SplitsDataModule(
        data,
        batch_size=batch_size,
        points_per_batch=points_per_batch,
        point_ranks=point_ranks,
        num_workers=num_workers,
        seed=seed,
    )
    trainer = Trainer(
        max_epochs=epochs,
        accelerator=accelerator,
        devices=devices,
        strategy=strategy,
        num_nodes=num_nodes,
        precision=precision,
        gradient_clip_val=clip or None,
        accumulate_grad_batches=accumulate,
        check_val_every_n_epoch=val_every,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        callbacks=callbacks,
        plugins=[SafeCheckpointIO()],
        logger=TensorBoardLogger(run, name="tensorboard", version=""),
        default_root_dir=run,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    limit_waiting(trainer, wait_minutes)
    plan = splits.plan(data, 0, trainer.world_size)  # raises if they cannot be divided
    if trainer.is_global_zero:
        _announce(run, data, net, splits, trainer)
        if resolved:
            with write_aside(run / "config.yaml") as aside:
                aside.write_text(resolved)
    optimizer = partial(
        make_optimizer,
        total_steps=epochs * math.ceil(len(plan) / accumulate),
        lr=lr,
        weight_decay=weight_decay,
        eps=eps,
        pct_start=pct_start,
        div_factor=div_factor,
        final_div_factor=final_div_factor,
    )
    module = make_module(net, optimizer, point_ranks=point_ranks, compile=compile, seed=seed)
    if isinstance(module, ClassifierModule):
        module.info = {"dataset": {"name": data.name, "source": data.source}}
    with warnings.catch_warnings(), plain_words(guard):
        for message in QUIET:
            warnings.filterwarnings("ignore", message)
        trainer.fit(module, splits, ckpt_path=saver.path if saver.path.is_file() else None)
    if trainer.is_global_zero:
        module.save(run / "last")
        _draw_curve(run)
    return run


def _make_net(
    model: Callable[..., nn.Module], data: PackedDataset, raw: tuple[str, ...]
) -> tuple[type[CloudModule], Surrogate | SequenceClassifier]:
    """The Lightning module for a data set, and the net that it trains."""
    if not isinstance(data, SequenceDataset):
        return SurrogateModule, make_surrogate(model, data, raw)
    if raw:
        raise ValueError(f"raw is for fields, {data.name} has tokens")
    wanted = f"{data.name} has sequences to be classified: --model flare_geo.nn.SequenceClassifier"
    classifier = _make(model, wanted, data.num_tokens, data.num_classes, data.max_length)
    if not isinstance(classifier, SequenceClassifier):
        raise ValueError(f"{wanted} is for them, got {type(classifier).__name__}")
    return ClassifierModule, classifier


def _make(model: Callable[..., nn.Module], wanted: str, *sizes: int) -> nn.Module:
    try:
        return model(*sizes)
    except TypeError as error:  # a model of the other kind takes another number of arguments
        raise ValueError(f"{wanted} is for them ({error})") from None


def make_surrogate(
    model: Callable[..., nn.Module], data: PackedDataset, raw: tuple[str, ...] = ()
) -> Surrogate:
    """A new model from the inputs to the outputs of a data set, with scalers fitted on that split.

    Raises:
        ValueError: if the data have no targets, or the model is not for fields on points.
    """
    inputs, outputs = fields_of(data)
    info: dict[str, Any] = {
        "dataset": {"name": data.name, "source": data.source},
        "mesh": data.on_mesh,
    }
    if data.transform is not None:
        info["transform"] = to_config(data.transform)
    wanted = f"{data.name} has fields on points: a model such as --model flare_geo.nn.Flare"
    net = _make(model, wanted, len(inputs), len(outputs))
    surrogate = Surrogate(net, inputs, outputs, info=info)
    fit_scalers(surrogate, data, raw)
    return surrogate


def _is_complete(run: Path, resolved: str) -> bool:
    """Whether the run is complete; a ValueError if it has other options."""
    path = run / "config.yaml"
    if not path.is_file():
        return False
    if resolved and (run / "last.ckpt").is_file():
        before, now = (_flat(yaml.safe_load(text)) for text in (path.read_text(), resolved))
        for key in sorted(before.keys() | now.keys()):
            if key.split(".")[0] not in WHERE_NOT_WHAT and before.get(key) != now.get(key):
                raise ValueError(
                    f"{run} holds a run with {key}={before.get(key)}, now it is {now.get(key)}: "
                    "choose another --run, or delete the folder"
                )
    return (run / "last" / "config.json").is_file()


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {
        k: v
        for key, value in tree.items()
        for k, v in _flat(value, f"{prefix}.{key}" if prefix else str(key)).items()
    }


def _announce(
    run: Path,
    data: PackedDataset,
    net: Surrogate | SequenceClassifier,
    splits: SplitsDataModule,
    trainer: Trainer,
) -> None:
    held_out = 0 if splits.validation is None else len(splits.validation)
    parameters = sum(p.numel() for p in net.parameters())
    model = net.model if isinstance(net, Surrogate) else net
    generated = " (generated data)" if source_of(data) == "generated" else ""
    if not type(model).__module__.startswith("flare_geo."):
        print(source_line(type(model)))
    print(
        f"{data.name}{generated}: {len(data)} training and {held_out} validation cases; "
        f"{type(model).__name__} with {parameters:,} parameters on "
        f"{trainer.strategy.root_device}; run folder {run}",
        flush=True,
    )


def _draw_curve(run: Path) -> None:
    pictures = Pictures()
    with pictures.drawing("learning curve"):
        from flare_geo.viz import plot_learning_curves

        plot_learning_curves(run / "metrics.csv", run / "learning_curve.png")
    pictures.mention()


def _quieten() -> None:
    """Silence greetings and tips of Lightning, but not its warnings and errors."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)


VERB = Verb(train, yaml="resolved")
