import shutil

import pytest
import torch
from closeness import close
from torch._dynamo.utils import counters

from flare_geo.nn import Flare
from flare_geo.ops import make_layout

SIZES = [(30,), (41,), (20, 20), (33, 33), (7, 50), (0, 1, 40), (5, 9, 2, 60)]


@pytest.fixture(autouse=True)
def _fresh():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def run(model, sizes, whole):
    """Output and gradients of one step, in float64: some gradients are a millionth of others."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(sum(sizes), 2, generator=generator, dtype=torch.float64)
    ptr = torch.tensor([0, *sizes]).cumsum(0)
    y = model(x, ptr) if whole else model(x, make_layout(ptr, len(x), x.device))
    names = [name.removeprefix("_orig_mod.") for name, _ in model.named_parameters()]
    grads = torch.autograd.grad(y.square().sum(), list(model.parameters()))
    return {"y": y} | dict(zip(names, grads, strict=True))


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "blocks"])
def test_new_sizes_do_not_compile_again(whole):
    eager, model = (Flare(2, 1, 16, 2, 2, 8).double() for _ in range(2))
    model.load_state_dict(eager.state_dict())
    if whole:
        model = torch.compile(model, backend="aot_eager", fullgraph=True, dynamic=True)
    else:
        model.compile(backend="aot_eager", fullgraph=True)
    counts = []
    for sizes in SIZES:
        close(run(model, sizes, whole), run(eager, sizes, whole), terms=sum(sizes), roundings=32)
        counts.append(counters["stats"]["unique_graphs"])
    assert counts[-1] == counts[SIZES.index((7, 50))], counts
    assert counts[-1] <= 3, counts  # one cloud, clouds of one size, ragged ones


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler here")
def test_compiling_leaves_a_backend_that_was_asked_for():
    free, asked = Flare(2, 1, 32, 1, 4, 8), Flare(2, 1, 32, 1, 4, 8, backend="sdpa")
    for model in (free, asked):
        model.compile()
    assert (free.blocks[0].conv.backend, asked.blocks[0].conv.backend) == ("cpp", "sdpa")
    assert free.blocks[0].fused is not None
    assert asked.blocks[0].fused is None
    mlp = free.blocks[0].mlp
    assert mlp.backend == "auto", "a preference, not a demand"
    assert mlp.double()(torch.rand(5, 32).double()).dtype == torch.float64
