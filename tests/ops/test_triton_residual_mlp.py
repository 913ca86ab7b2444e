"""The fused residual MLPs against the definition in float64."""

import pytest
import torch
from closeness import close
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

pytest.importorskip("triton")

from flare_geo.ops.triton import residual_mlp, residual_mlp_backward, residual_mlp_forward
from flare_geo.ops.triton.residual_mlp import stacked_mlps

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
NAMES = ("y", "dx", "dweight", "dbias")
ACTIVATIONS = {
    "gelu_tanh": lambda u: F.gelu(u, approximate="tanh"),
    "gelu": F.gelu,
    "silu": F.silu,
}
# exp(-t) of a very negative t is inf, and the sigmoid 1 / (1 + inf) is the 0 it should be.
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered in exp:RuntimeWarning")


def reference(x, weight, bias, act):
    h = x.expand(weight.shape[0], *x.shape)
    for j in range(weight.shape[1] - 1):
        h = h + ACTIVATIONS[act](h @ weight[:, j].mT + bias[:, j, None])
    return h + h @ weight[:, -1].mT + bias[:, -1, None]


def make(points, mlps, layers, channels, dtype, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(points, channels, generator=g).to(dtype)
    weight = torch.randn(mlps, layers, channels, channels, generator=g) / channels**0.5
    bias = torch.randn(mlps, layers, channels, generator=g)
    dy = torch.randn(mlps, points, channels, generator=g).to(dtype)
    x, weight, bias, dy = (t.to(DEVICE) for t in (x, weight, bias, dy))
    return x.requires_grad_(), weight.requires_grad_(), bias.requires_grad_(), dy


def run(f, x, weight, bias, dy, act):
    y = f(x, weight, bias, act)
    return dict(zip(NAMES, (y, *torch.autograd.grad(y, (x, weight, bias), dy)), strict=True))


def compare(points, mlps, layers, channels, dtype, act="gelu_tanh"):
    x, weight, bias, dy = make(points, mlps, layers, channels, dtype)
    found = run(stacked_mlps, x, weight, bias, dy, act)
    assert found["y"].dtype == found["dx"].dtype == dtype
    assert found["dweight"].dtype == found["dbias"].dtype == torch.float32
    exact = (x.double(), weight.to(dtype).double(), bias.double())
    exact = (t.detach().requires_grad_() for t in exact)
    expected = run(reference, *exact, dy.double(), act)
    close(found, expected, terms=max(points, channels), dtype=dtype)


@pytest.fixture(autouse=True)
def poisoned(monkeypatch):
    """Every buffer a launch makes starts as NaN, so that what is not written shows."""

    def poison(make):
        return lambda *args, **kwargs: make(*args, **kwargs).fill_(float("nan"))

    monkeypatch.setattr(torch.Tensor, "new_empty", poison(torch.Tensor.new_empty))
    monkeypatch.setattr(torch, "empty_like", poison(torch.empty_like))


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d).removeprefix("torch."))
@pytest.mark.parametrize(
    ("points", "mlps", "layers", "channels", "act"),
    [
        (300, 1, 5, 16, "gelu"),
        (300, 2, 5, 64, "gelu_tanh"),
        (300, 3, 2, 32, "silu"),
        (37, 2, 1, 64, "gelu_tanh"),
        (1, 2, 2, 16, "gelu_tanh"),
        (0, 2, 2, 16, "silu"),
    ],
)
def test_value_and_gradients(points, mlps, layers, channels, act, dtype):
    compare(points, mlps, layers, channels, dtype, act)


def test_many_channels_go_through_the_wide_backward():
    compare(70, 2, 2, 128, torch.bfloat16)


@pytest.mark.parametrize("act", ACTIVATIONS)
@pytest.mark.parametrize("wide", [False, True])
def test_a_program_adds_up_several_tiles(monkeypatch, act, wide):
    plan = residual_mlp_backward.Plan(wide, 16, 4)
    monkeypatch.setattr(residual_mlp_backward, "plan", lambda *_: plan)
    monkeypatch.setattr(residual_mlp_backward, "num_programs", lambda device, tiles: min(tiles, 3))
    compare(150, 2, 3, 16, torch.float32, act)


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_activations_far_from_zero(act):
    x, weight, bias, dy = make(40, 1, 2, 16, torch.float32)
    x = (x.detach() * 1000).requires_grad_()
    found = run(stacked_mlps, x, weight, bias, dy, act)
    expected = run(
        reference,
        *(t.detach().double().requires_grad_() for t in (x, weight, bias)),
        dy.double(),
        act,
    )
    for name in NAMES:  # y is a thousand times the gradient of x: each against itself
        close({name: found[name]}, {name: expected[name]}, terms=40)


def test_a_launch_repeats_its_bits():
    inputs = make(200, 2, 3, 16, torch.float16)
    first, second = (run(stacked_mlps, *inputs, "gelu_tanh") for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in NAMES)


def test_strided_inputs_are_read_in_place():
    x, weight, bias, dy = make(50, 2, 2, 16, torch.float32)
    found = run(stacked_mlps, x, weight, bias, dy, "silu")
    wide = torch.stack([x.detach(), x.detach()], -1)[..., 0].requires_grad_()
    turned = weight.detach().mT.contiguous().mT.requires_grad_()
    strided = run(stacked_mlps, wide, turned, bias, dy.mT.contiguous().mT, "silu")
    assert not wide.is_contiguous()
    close(found, strided, terms=50)


def test_opcheck(monkeypatch):
    monkeypatch.undo()
    x, weight, bias, dy = make(20, 2, 2, 16, torch.float32)
    torch.library.opcheck(torch.ops.flare_geo.residual_chain.default, (x, weight, bias, "silu"))
    plain = tuple(t.detach() for t in (dy, x, weight, bias))
    torch.library.opcheck(torch.ops.flare_geo.residual_chain_backward.default, (*plain, "silu"))


def test_compiles_once(monkeypatch):
    monkeypatch.undo()
    counted = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(stacked_mlps, fullgraph=True, dynamic=True, backend=counted)
    for points in (33, 20):
        inputs = make(points, 2, 2, 16, torch.float32)
        expected = run(stacked_mlps, *inputs, "gelu_tanh")
        found = run(compiled, *inputs, "gelu_tanh")
        assert all(torch.equal(found[name], expected[name]) for name in NAMES)
    assert counted.frame_count == 1


def test_export():
    class MLPs(torch.nn.Module):
        def forward(self, x, weight, bias):
            return stacked_mlps(x, weight, bias, "gelu")

    x, weight, bias, _ = make(33, 2, 2, 16, torch.float32)
    args = (x.detach(), weight.detach(), bias.detach())
    dynamic = {"x": {0: torch.export.Dim("points")}, "weight": None, "bias": None}
    program = torch.export.export(MLPs(), args, dynamic_shapes=dynamic)
    assert torch.equal(
        program.module()(args[0][:20], *args[1:]), stacked_mlps(args[0][:20], *args[1:], "gelu")
    )


def test_checkpoint():
    inputs = make(33, 2, 2, 16, torch.float32)
    expected = run(stacked_mlps, *inputs, "gelu")
    found = run(lambda *a: checkpoint(stacked_mlps, *a, use_reentrant=False), *inputs, "gelu")
    assert all(torch.equal(found[name], expected[name]) for name in NAMES)


def test_only_the_inputs_are_saved():
    x, weight, bias, _ = make(33, 2, 2, 16, torch.bfloat16)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        stacked_mlps(x, weight, bias, "silu")
    assert {t.data_ptr() for t in kept} == {t.data_ptr() for t in (x, weight, bias)}


def test_says_what_does_not_fit():
    x, weight, bias, _ = make(4, 1, 2, 16, torch.float32)
    with pytest.raises(ValueError, match=r"x must be \[N, C\]"):
        stacked_mlps(x[:, :12], weight, bias)
    with pytest.raises(ValueError, match=r"weight must be \[G, L >= 1, C=16, C=16\]"):
        stacked_mlps(x, weight[..., :8], bias)
    with pytest.raises(ValueError, match=r"bias must be \[1, 2, 16\]"):
        stacked_mlps(x, weight, bias[:, :1])
    with pytest.raises(ValueError, match="or wider"):
        stacked_mlps(x, weight.half(), bias)
    with pytest.raises(ValueError, match="act must be one of"):
        stacked_mlps(x, weight, bias, "relu")


def test_every_plan_is_known_to_the_kernels():
    for channels in residual_mlp.CHANNELS:
        for dtype in residual_mlp.DTYPES:
            for dots in ("tf32", "ieee"):
                block, warps = residual_mlp_forward.plan(channels, dtype, dots)
                assert block >= 16
                assert warps in (4, 8)
                assert residual_mlp_backward.plan(5, channels, dtype, dots).block >= 16
