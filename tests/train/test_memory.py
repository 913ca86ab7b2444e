"""The forecast of a step's memory, against what the system measures and what is known."""

import os
import subprocess
import sys
from functools import partial

import pytest
import torch
from lightning.pytorch import Trainer
from toy import SIZES, ToyDataset, make_toy

from flare_geo.cli.train import make_surrogate, train
from flare_geo.nn import Flare
from flare_geo.train import memory
from flare_geo.train.batches import BatchPlan, Place
from flare_geo.train.memory import Largest, LiveBytes, largest_batch, sizes_of, step_bytes
from flare_geo.train.module import SurrogateModule
from flare_geo.transforms import Subsample

small = partial(Flare, hidden_channels=8, num_layers=1, heads=2, num_latents=4, init="default")
options = {"model": small, "batch_size": 2, "accelerator": "cpu", "epochs": 1}


@pytest.fixture
def toy(tmp_path):
    return ToyDataset(make_toy(tmp_path / "data"))


STEP = """
import resource, sys, torch
from flare_geo.nn import Flare, Surrogate
from flare_geo.nn.surrogate import Field
from flare_geo.train.memory import Largest, step_bytes
from flare_geo.train.module import SurrogateModule
from torch_geometric.data import Data

n = 30_000
inputs = [Field("pos", name, "m") for name in "xyz"]
for saves, half in ((True, False), (False, True), (False, False)):  # each takes more
    model = Flare(3, 1, 32, 2, 4, 32, checkpoint_blocks=saves)
    module = SurrogateModule(Surrogate(model, inputs, [Field("y", "p", "Pa")]), None)
    cast = torch.autocast("cpu", torch.bfloat16, enabled=half, cache_enabled=False)
    with cast:
        forecast = step_bytes(module, Largest(n, 1))
    before = int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
    batch = Data(pos=torch.rand(n, 3), y=torch.rand(n, 1), ptr=torch.tensor([0, n]))
    with cast:
        loss = module.errors(batch).sum()
    loss.backward()
    peak = 1024 * int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
    print(forecast, peak - before)
    del loss, batch
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_it_is_what_a_step_takes():
    """With checkpoints, in bfloat16, and plain. Each array is a mapping of its own, so that glibc's
    heap, which loses some, has no part in it.
    """
    words = [sys.executable, "-c", STEP]
    env = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=True)
    pairs = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    assert len(pairs) == 3
    for forecast, measured in pairs:
        assert measured > 50 * 2**20
        assert forecast == pytest.approx(measured, rel=0.1)


def test_bytes_are_counted_as_long_as_they_live():
    a = torch.ones(1000)
    with LiveBytes() as live:
        b = a + 1  # 4000
        c = b.view(10, 100)  # the same storage
        d = c.double()  # 8000
        del b, c
        assert live.now == 8000
        e = d * 2
        del d, e
        a.add_(1)  # nothing new
    assert (live.now, live.peak) == (0, 16000)


def test_nothing_is_changed_by_looking(toy):
    module = SurrogateModule(make_surrogate(small, toy), None)
    module.net.model.register_buffer("count", torch.zeros(()))
    before = torch.get_rng_state()
    some, more = (step_bytes(module, Largest(n, 3)) for n in (10_000, 20_000))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(p.grad is None for p in module.parameters())
    assert 1.8 < more / some < 2.01
    fewer = SurrogateModule(make_surrogate(partial(small, checkpoint_blocks=True), toy), None)
    assert step_bytes(fewer, Largest(20_000, 3)) < more


def test_the_largest_batch(toy):
    sizes = [40, 1, 75, 62]
    assert sizes_of(toy) == list(SIZES) == sizes
    assert largest_batch(BatchPlan(sizes, batch_size=2), sizes) == Largest(137, 2)
    assert largest_batch(BatchPlan(sizes, batch_size=9), sizes) == Largest(178, 4)
    place = Place(data_rank=0, data_ranks=2, point_rank=1, point_ranks=2)
    assert largest_batch(BatchPlan(sizes, place, batch_size=4), sizes) == Largest(69, 2)
    points = largest_batch(BatchPlan(sizes, points_per_batch=100), sizes).points
    assert 75 <= points <= 105
    few = ToyDataset(toy.root, transform=Subsample(20))
    assert sizes_of(few) == [20] * 4


def test_a_run_says_it_first_and_ends_if_it_cannot_fit(toy, tmp_path, capsys, monkeypatch):
    train(toy, tmp_path / "run", **options)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("expected memory: ")
    assert lines[1].endswith("GiB free on cpu, in the largest batch (2 clouds, 137 points)")
    monkeypatch.setattr(memory, "free_bytes", lambda device: 100_000)
    with pytest.raises(ValueError) as error:
        train(toy, tmp_path / "other", **options)
    line = str(error.value)
    assert line.startswith("the largest batch (2 clouds, 137 points) needs about ")
    assert "free on cpu: choose fewer points (--points_per_batch, --batch_size or" in line
    assert not (tmp_path / "other" / "last.ckpt").exists()


def test_weights_moments_and_averages_stay(toy):
    module = SurrogateModule(make_surrogate(small, toy), None)
    weights = sum(4 * p.numel() for p in module.parameters())
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    assert memory.lasting_bytes(trainer, module) == 3 * weights
    trainer.callbacks.append(memory.WeightAveraging())
    assert memory.lasting_bytes(trainer, module) == 4 * weights
