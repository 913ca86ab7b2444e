"""Signals, clocks, numbers that are none, and memory: what a run does, and goes on with after."""

import csv
import json
import os
import signal
from functools import partial

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from toy import ToyDataset, make_toy

from flare_geo.cli.train import train
from flare_geo.nn import Flare, PointModel, Surrogate
from flare_geo.train import faults
from flare_geo.train.module import SurrogateModule

small = partial(Flare, hidden_channels=8, num_layers=1, heads=2, num_latents=4, init="default")
options = {"model": small, "batch_size": 1, "lr": 5e-3, "accelerator": "cpu", "epochs": 4}


class Killed(BaseException):
    """What SIGKILL leaves no time for."""


@pytest.fixture
def toy(tmp_path):
    return ToyDataset(make_toy(tmp_path / "data"))


@pytest.fixture
def at_step(monkeypatch):
    """Call something in the forward pass of batch b of epoch e."""
    step = SurrogateModule.training_step

    def plan(epoch, batch, act):
        def training_step(self, batch_):
            progress = self.trainer.fit_loop.epoch_loop.batch_progress.current.ready - 1
            if (self.current_epoch, progress) == (epoch, batch):
                act()
            return step(self, batch_)

        monkeypatch.setattr(SurrogateModule, "training_step", training_step)

    yield plan
    monkeypatch.undo()


def same(a, b):
    """Weights to the bit, and the tables but for the seconds."""
    for name in ("last", "best"):
        x, y = (load_file(run / name / "model.safetensors") for run in (a, b))
        assert x.keys() == y.keys()
        assert all(torch.equal(x[key], y[key]) for key in x), name
    tables = [(run / "metrics.csv").read_text().split() for run in (a, b)]
    assert len(tables[0]) == 5
    first, second = ([row.rsplit(",", 1)[0] for row in table] for table in tables)
    assert first == second


def kick(number=signal.SIGTERM):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(
    ("extra", "num_points", "place"),
    [
        ({}, None, (1, 0)),
        ({}, None, (1, 1)),
        ({}, None, (1, 3)),  # the last batch: its epoch is ended first
        ({"accumulate": 2}, None, (2, 0)),  # between the two batches of a step
        ({"ema": 0.9}, None, (2, 2)),
        ({"num_workers": 1}, 20, (0, 1)),
    ],
)
def test_a_signal_saves_and_the_same_command_goes_on(
    toy, tmp_path, at_step, extra, num_points, place, capsys
):
    toy = ToyDataset(toy.root, num_points=num_points)
    chosen = {**options, **extra, "save_minutes": None}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(toy, whole, **chosen)
    former = signal.getsignal(signal.SIGTERM)
    at_step(*place, kick)
    with pytest.raises(SystemExit) as left:
        train(toy, cut, **chosen)
    assert left.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is former
    said = capsys.readouterr().err.strip().splitlines()
    assert said == [
        f"ended by SIGTERM; the state is saved in {cut / 'last.ckpt'}, "
        "and the same command continues"
    ]
    state = torch.load(cut / "last.ckpt", weights_only=True)
    per_step = extra.get("accumulate", 1)
    done = (place[0] * 4 + place[1]) // per_step + 1
    assert state["global_step"] == done
    read = []
    at_step(None, None, None)
    get = ToyDataset.get
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ToyDataset, "get", lambda self, i: read.append(self.split) or get(self, i))
        torch.rand(17)
        train(toy, cut, **chosen)
    if not extra.get("num_workers"):  # what was done is not read again, but for the scalers
        assert read.count("train") == 4 + 16 - done * per_step
    same(whole, cut)


def test_sigusr1_of_a_scheduler_is_one_too(toy, tmp_path, at_step, capsys):
    at_step(0, 1, partial(kick, signal.SIGUSR1))
    with pytest.raises(SystemExit) as left:
        train(toy, tmp_path / "run", **options)
    assert left.value.code == 138
    assert "ended by SIGUSR1" in capsys.readouterr().err


def test_a_state_saved_by_the_clock_goes_on_within_an_epoch(toy, tmp_path, at_step):
    def die():
        raise Killed

    chosen = {**options, "save_minutes": 0.0}
    whole, cut = train(toy, tmp_path / "whole", **chosen), tmp_path / "cut"
    at_step(2, 2, die)
    with pytest.raises(Killed):
        train(toy, cut, **chosen)
    assert torch.load(cut / "last.ckpt", weights_only=True)["global_step"] == 10  # not 8
    at_step(None, None, None)
    train(toy, cut, **chosen)
    same(whole, cut)


class NanOn75(PointModel):
    """Linear; one case, that with 75 points, has a loss or a gradient that is no number."""

    in_backward = False

    def __init__(self, in_channels, out_channels):
        super().__init__(in_channels, out_channels)
        self.lin = nn.Linear(in_channels, out_channels)

    def forward(self, x, ptr=None):
        y = self.lin(x)
        if len(x) == 75 and self.training:
            if not self.in_backward:
                return y * float("nan")
            y.register_hook(lambda grad: grad * float("inf"))
        return y


class InfGradient(NanOn75):
    in_backward = True


@pytest.mark.parametrize(("model", "what"), [(NanOn75, "loss"), (InfGradient, "gradient")])
def test_a_bad_step_changes_nothing_and_names_its_case(
    toy, tmp_path, capsys, model, what, monkeypatch
):
    seen = []
    moments = []
    end = SurrogateModule.on_train_batch_end

    def look(self, outputs, batch, i):
        seen.append((batch.name[0], self.net.model.lin.weight.detach().clone()))
        state = self.trainer.optimizers[0].state.values()
        moments.append([{k: v.clone() for k, v in each.items()} for each in state])
        return end(self, outputs, batch, i)

    monkeypatch.setattr(SurrogateModule, "on_train_batch_end", look)
    chosen = {**options, "model": model, "ema": 0.5, "epochs": 3}
    run = train(toy, tmp_path / "run", **chosen)
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 3
    assert all(line.endswith(f"left out: the {what} is not finite, case toy_2") for line in said)
    for i, (name, weight) in enumerate(seen):
        if i and name == "toy_2":
            assert torch.equal(weight, seen[i - 1][1])
            pairs = zip(moments[i - 1], moments[i], strict=True)
            assert all(torch.equal(a[k], b[k]) for a, b in pairs for k in a)
        elif i and i < len(seen) - 1:  # the rate of the last step is next to nothing
            assert not torch.equal(weight, seen[i - 1][1])
    assert all(torch.isfinite(v).all() for v in load_file(run / "last/model.safetensors").values())
    with (run / "metrics.csv").open() as file:
        errors = [float(row["train/rel_l2"]) for row in csv.DictReader(file)]
    assert len(errors) == 3
    assert all(0 < error < 10 for error in errors)
    report = json.loads((run / "faults.json").read_text())
    assert (report["skipped_steps"], report["ended"]) == (3, None)
    assert [f["cases"] for f in report["last_faults"]] == [["toy_2"]] * 3
    assert {"git_revision", "torch"} <= report["provenance"].keys()


def test_many_bad_steps_in_a_row_end_the_run(toy, tmp_path, monkeypatch):
    step = SurrogateModule.training_step

    def training_step(self, batch):
        loss = step(self, batch)
        return loss * float("nan") if self.current_epoch else loss  # gradients only

    monkeypatch.setattr(SurrogateModule, "training_step", training_step)
    run = tmp_path / "run"
    with pytest.raises(ValueError) as error:
        train(toy, run, **options, max_bad_steps=3)
    line = str(error.value)
    assert line.startswith("the gradient was not finite in 3 steps in a row, the last in epoch 2, ")
    assert line.count("toy_") == 3
    assert "lower --lr or look for outliers" in line
    assert f"the last good state is {run / 'last.ckpt'}" in line
    assert "\n" not in line
    assert json.loads((run / "faults.json").read_text())["ended"] == line
    assert torch.load(run / "last.ckpt", weights_only=True)["epoch"] == 0
    with pytest.raises(ValueError, match="max_bad_steps must be at least 1, got 0"):
        train(toy, run, **options, max_bad_steps=0)
    with pytest.raises(ValueError, match="save_minutes must be a number of minutes or null, got -"):
        train(toy, run, **options, save_minutes=-1.0)


def test_an_epoch_without_a_good_step_ends_the_run(toy, tmp_path):
    class Explodes(NanOn75):
        def forward(self, x, ptr=None):
            return self.lin(x) * float("nan")

    with pytest.raises(ValueError, match=r"the loss was not finite in 1 step, .* epoch 1, cases "):
        train(toy, tmp_path / "run", **{**options, "model": Explodes, "batch_size": 4})


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
        MemoryError(),
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_out_of_memory_names_the_batch(toy, tmp_path, monkeypatch, error, training):
    class TooLarge(NanOn75):
        def forward(self, x, ptr=None):
            if len(x) == 75 and self.training == training:
                raise error
            return self.lin(x)

    with pytest.raises(ValueError) as said:
        train(toy, tmp_path / "run", **{**options, "model": TooLarge}, val_every=1)
    kind = "training" if training else "validation"
    line = str(said.value)
    assert line.startswith(f"out of memory in the {kind} batch of 75 points, case toy_2: choose ")
    assert "--batch_size" in line
    assert "--model.checkpoint_blocks true" in line


def test_other_errors_pass(toy, tmp_path):
    class Wrong(NanOn75):
        def forward(self, x, ptr=None):
            raise RuntimeError("a fault in the model")

    with pytest.raises(RuntimeError, match=r"^a fault in the model$"):
        train(toy, tmp_path / "run", **{**options, "model": Wrong})


def test_a_state_that_is_foreign_or_damaged_is_said(toy, tmp_path):
    run = train(toy, tmp_path / "run", **{**options, "epochs": 1})
    state = run / "last.ckpt"
    wider = partial(small, hidden_channels=16)
    said = rf"{state} is the state of another model \(size mismatch for .*\): choose another --run"
    with pytest.raises(ValueError, match=said):
        train(toy, run, **{**options, "model": wider})
    weights = run / "last"
    surrogate = Surrogate.from_pretrained(weights)
    with pytest.raises(ValueError, match=r"does not fit its model: size mismatch for") as error:
        Surrogate.from_pretrained(weights, model=wider(2, 1))
    assert "\n" not in str(error.value)
    assert surrogate.outputs
    whole = state.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"no state"):
        state.write_bytes(content)
        with pytest.raises(ValueError, match=r"cannot be read \(.*\): delete it to train anew"):
            train(toy, run, **options)


def test_a_scaler_leaves_out_steps_on_its_own():
    """Float16 overflows at times until the scale is found; this is no fault of a case."""

    class Fake:
        def __init__(self, **members):
            self.__dict__ |= members

    def trainer(scale):
        scaler = None if scale is None else Fake(get_scale=lambda: scale)
        return Fake(precision_plugin=Fake(scaler=scaler))

    assert faults._scales(trainer(65536.0))
    assert not faults._scales(trainer(0.5))
    assert not faults._scales(trainer(None))
