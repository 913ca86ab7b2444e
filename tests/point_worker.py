"""One rank of distributed/test_points.py: point_worker.py RANK WORLD FOLDER DTYPE POINTS... and,
for a model with a block of each, names of mixers."""

import sys
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from flare_geo.distributed import add_gradients, shard_points, share_of, sum_across
from flare_geo.nn import Flare
from flare_geo.nn.mixers import make_mixer
from flare_geo.nn.surrogate.streaming import stream
from flare_geo.ops import ptr_to_batch


def problem(sizes, dtype, mixers=()):
    """The same on all ranks: model, inputs, targets, ptr."""
    torch.manual_seed(0)
    model = Flare(3, 2, 16, len(mixers) or 2, 2, 7, init="default")
    for block, name in zip(model.blocks, mixers):
        block.conv = make_mixer(
            name, 16, 2, {"noise": False} if name == "transolver_plus" else None
        )
    model = model.to(dtype)
    ptr = torch.tensor([0, *sizes]).cumsum(0)
    x, y = torch.rand(int(ptr[-1]), 3, dtype=dtype), torch.randn(int(ptr[-1]), 2, dtype=dtype)
    return model, x, y, ptr


def loss_of(pred, y, ptr, total=lambda x: x):
    """Mean over the clouds of ||pred - y||^2 / ||y||^2."""
    sums = torch.stack([(pred - y).square().sum(1), y.square().sum(1)], dim=1)
    cloud = ptr_to_batch(ptr)
    over, under = total(sums.new_zeros(len(ptr) - 1, 2).index_add(0, cloud, sums)).unbind(1)
    return (over / under.clamp(min=1e-9)).mean()


def run(sizes, dtype, mixers=(), rank=None, world=None):
    """Outputs, gradients of the first step, weights after three."""
    model, x, y, ptr = problem(sizes, dtype, mixers)
    at, total = torch.arange(len(x)), lambda s: s
    if rank is not None:
        at, ptr = share_of(ptr, rank, world)
        shard_points(model)
        total = sum_across
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9)
    first = []
    for step in range(3):
        optimizer.zero_grad()
        pred = model(x[at], ptr)
        loss_of(pred, y[at], ptr, total).backward()
        if rank is not None:
            add_gradients(model)
        if step == 0:
            first = [pred.detach(), at, *(p.grad.clone() for p in model.parameters())]
        optimizer.step()
    y = torch.empty_like(pred)
    stream(model.eval(), x[at].__getitem__, y.__setitem__, ptr, chunk_size=9)
    with torch.no_grad():
        torch.testing.assert_close(y, model(x[at], ptr))  # in chunks on every rank
    return first, [p.detach() for p in model.parameters()]


def main():
    rank, world, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    dtype = getattr(torch, sys.argv[4])
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        rank=rank,
        world_size=world,
        timeout=timedelta(seconds=60),
        store=dist.FileStore(str(folder / "store"), world),
    )
    sent, gather = [], dist.all_gather

    def counted(parts, x, **options):
        sent.append(x.numel())
        return gather(parts, x, **options)

    dist.all_gather = counted
    sizes = [int(word) for word in sys.argv[5:] if word.isdigit()]
    result = run(sizes, dtype, [w for w in sys.argv[5:] if not w.isdigit()], rank, world)
    torch.save((*result, sent), folder / f"{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
