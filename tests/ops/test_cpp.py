"""The C++ kernels against the definitions in float64."""

import shutil

import pytest
import torch
from closeness import close

from flare_geo.nn import Flare, FlareBlock, FlareConv, ResidualMLP
from flare_geo.nn.flare.fused import weights_of
from flare_geo.ops import flare_attention, flare_decode, flare_encode, make_layout
from flare_geo.ops.cpp import build
from flare_geo.ops.cpp.attention import attention_op, decode_op, encode_op
from flare_geo.ops.cpp.block import block_op
from flare_geo.ops.cpp.build import library
from flare_geo.ops.cpp.residual_mlp import mlps_op
from flare_geo.ops.residual_mlp_torch import residual_mlp

pytestmark = pytest.mark.skipif(
    shutil.which("g++") is None and shutil.which("clang++") is None,
    reason="no C++ compiler on this machine",
)
RAGGED = [0, 0, 1, 70, 70, 700, 703, 703]
LONGEST = 630  # points of a cloud: the terms of an encode


@pytest.fixture(autouse=True)
def _poisoned():
    """What is not written is NaN."""
    torch.use_deterministic_algorithms(True)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


def mlp_inputs(points, width, mlps=2, layers=5, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(points, width, generator=g)
    weight = torch.randn(mlps, layers, width, width, generator=g) / width**0.5
    bias = torch.randn(mlps, layers, width, generator=g)
    return [t.requires_grad_() for t in (x, weight, bias)]


def attention_inputs(heads, latents, width, ptr=RAGGED, own=False, size=2.0, seed=0):
    g = torch.Generator().manual_seed(seed)
    q = torch.randn(*([len(ptr) - 1] if own else []), heads, latents, width, generator=g)
    k, v = (torch.randn(ptr[-1], heads, width, generator=g) for _ in range(2))
    return [t.requires_grad_() for t in (q, size * k.detach(), v)], torch.tensor(ptr)


@pytest.mark.parametrize("act", ["gelu_tanh", "silu"])
@pytest.mark.parametrize(
    ("points", "width", "mlps", "layers"),
    [(1, 16, 1, 1), (63, 48, 2, 2), (64, 64, 1, 5), (200, 64, 2, 5), (130, 96, 3, 3)],
)
def test_residual_mlps_and_their_gradients(points, width, mlps, layers, act):
    inputs = mlp_inputs(points, width, mlps, layers)
    exact = [t.detach().double().requires_grad_() for t in inputs]
    y = mlps_op(*inputs, act)
    expected = torch.stack(
        [residual_mlp(exact[0], exact[1][g], exact[2][g], act) for g in range(mlps)]
    )
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(5))
    found = [y, *torch.autograd.grad(y, inputs, dy)]
    wanted = [expected, *torch.autograd.grad(expected, exact, dy.double())]
    names = ("y", "dx", "dweight", "dbias")
    close(dict(zip(names, found)), dict(zip(names, wanted)), terms=max(points, width))


def test_activation_far_from_zero():
    x = torch.tensor([-1e4, -90.0, -30.0, -5.0, -1e-3, 0.0, 1e-3, 5.0, 30.0, 90.0, 1e4])
    x = x.unsqueeze(1).repeat(1, 16).requires_grad_()
    weight, bias = torch.stack([torch.eye(16), torch.zeros(16, 16)]), torch.zeros(2, 16)
    y = mlps_op(x, weight[None], bias[None], "gelu_tanh")[0]
    exact = x.detach().double().requires_grad_()
    expected = exact + torch.nn.functional.gelu(exact, approximate="tanh")
    torch.testing.assert_close(y.double(), expected, rtol=1e-6, atol=1e-7)
    (dx,), (expected_dx,) = (
        torch.autograd.grad(t.sum(), z) for t, z in ((y, x), (expected, exact))
    )
    torch.testing.assert_close(dx.double(), expected_dx, rtol=1e-6, atol=2e-6)


def test_no_point():
    inputs = mlp_inputs(0, 32)
    y = mlps_op(*inputs, "silu")
    assert y.shape == (2, 0, 32)
    for grad in torch.autograd.grad(y.sum(), inputs):
        assert not grad.any()
    (q, k, v), ptr = attention_inputs(2, 3, 8, [0, 0, 0])
    y = flare_attention(q, k, v, ptr, backend="cpp")
    assert y.shape == (0, 2, 8)
    assert not torch.autograd.grad(y.sum(), q)[0].any()


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize(
    ("heads", "latents", "width"), [(2, 5, 4), (8, 64, 8), (3, 33, 16), (2, 7, 32), (1, 1, 8)]
)
def test_attention_and_its_gradients(heads, latents, width, own):
    inputs, ptr = attention_inputs(heads, latents, width, own=own)
    exact = [t.detach().double().requires_grad_() for t in inputs]
    y = flare_attention(*inputs, ptr, scale=0.7, backend="cpp")
    expected = flare_attention(*exact, ptr, scale=0.7, backend="reference")
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(5))
    found = [y, *torch.autograd.grad(y, inputs, dy)]
    wanted = [expected, *torch.autograd.grad(expected, exact, dy.double())]
    names = ("y", "dq", "dk", "dv")
    close(dict(zip(names, found)), dict(zip(names, wanted)), terms=LONGEST)


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize(("heads", "latents", "width"), [(2, 5, 4), (3, 33, 8), (2, 9, 32)])
def test_encode_and_decode_apart(heads, latents, width, own):
    """Encode and decode with gradients of all they give, lse too."""
    (q, k, v), ptr = attention_inputs(heads, latents, width, own=own)
    g = torch.Generator().manual_seed(3)
    other = torch.randn(len(ptr) - 1, heads, latents, width, generator=g, requires_grad=True)
    inputs = [q, k, v, other]
    exact = [t.detach().double().requires_grad_() for t in inputs]
    found = []
    for (q, k, v, given), backend in ((inputs, "cpp"), (exact, "reference")):
        z, lse = flare_encode(q, k, v, ptr, scale=0.7, backend=backend)
        y = flare_decode(q, k, given, ptr, scale=0.7, backend=backend)
        there = ptr.diff() > 0
        value = (z * given.detach()).sum() + lse[there].sin().sum() + y.square().sum()
        grads = torch.autograd.grad(value, [q, k, v, given])
        assert z[~there].eq(0).all()
        assert lse[~there].isneginf().all()
        names = ("z", "lse", "y", "dq", "dk", "dv", "dz")
        found.append(dict(zip(names, (z, lse[there], y, *grads), strict=True)))
    close(*found, terms=LONGEST)


def test_scores_of_any_size():
    """Scores in the thousands: a softmax that picks one, and neither overflow nor 0 / 0."""
    inputs, ptr = attention_inputs(2, 9, 8, size=300.0)
    y = flare_attention(*inputs, ptr, backend="cpp")
    expected = flare_attention(*(t.double() for t in inputs), ptr, backend="reference")
    # A score of 3,000 is rounded by 3,000 eps, and so is the weight that is its exponential.
    close(y, expected, roundings=3000)
    assert all(g.isfinite().all() for g in torch.autograd.grad(y.sum(), inputs))


def test_not_a_number_is_passed_on():
    (q, k, v), ptr = attention_inputs(2, 9, 8)
    k = k.detach().clone()
    k[100, 0] = torch.nan
    y = flare_attention(q, k, v, ptr, backend="cpp")
    assert y[70:700, 0].isnan().all()
    assert y[:70].isfinite().all()
    assert y[70:700, 1].isfinite().all()


def test_clouds_do_not_depend_on_their_batch():
    (q, k, v), ptr = attention_inputs(2, 9, 8, [0, 300, 330, 900])
    together = flare_attention(q, k, v, ptr, backend="cpp")
    for start, end in ((0, 300), (300, 330), (330, 900)):
        alone = flare_attention(q, k[start:end], v[start:end], backend="cpp")
        close(alone, together[start:end], terms=600)


def test_threads_change_outputs_by_rounding_alone():
    inputs, ptr = attention_inputs(4, 16, 8, [0, 2000, 2600])
    x, weight, bias = mlp_inputs(300, 32)
    before, results = torch.get_num_threads(), []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        y = flare_attention(*inputs, ptr, backend="cpp")
        results.append([y, *torch.autograd.grad(y.square().sum(), inputs)])
        results[-1].append(mlps_op(x, weight, bias, "silu"))
    torch.set_num_threads(before)
    close(*results, terms=2000)


def test_operators_keep_the_rules_of_torch():
    x, weight, bias = mlp_inputs(40, 16, layers=2)
    torch.library.opcheck(mlps_op, (x, weight, bias, "silu"))
    (q, k, v), ptr = attention_inputs(2, 5, 8, [0, 10, 31])
    for op in (attention_op, encode_op):
        torch.library.opcheck(op, (q, k, v, ptr, 0.5))
    z = torch.randn(2, 2, 5, 8, requires_grad=True)
    torch.library.opcheck(decode_op, (q, k, z, ptr, 0.5))


def test_compiled_once_and_kept(tmp_path, monkeypatch):
    calls = []
    compiled = build._build
    monkeypatch.setattr(build, "_build", lambda *a: (calls.append(a), compiled(*a)))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(build, "FLAGS", [f for f in build.FLAGS if f != "-O3"])
    library.__wrapped__()
    library.__wrapped__()
    assert len(calls) == 1
    assert [p.suffix for p in (tmp_path / "flare_geo").iterdir()] == [".so"]


@pytest.mark.parametrize(
    ("compiler", "says"),
    [("/no/such/c++", "cannot be run"), ("false", "cannot be compiled: no message")],
)
def test_no_compiler(compiler, says, tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", compiler)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(RuntimeError, match=says):
        library.__wrapped__()
    assert not list(tmp_path.rglob("*.so"))


def sizes_of(model):
    return {name: p.shape for name, p in model.state_dict().items()}


def poisoned_block(seed=0):
    torch.manual_seed(seed)
    conv = FlareConv(32, heads=4, num_latents=16, init="default", scale=0.5)
    block = FlareBlock(32, conv, ResidualMLP(32))
    for norm in (block.norm1, block.norm2):
        torch.nn.init.normal_(norm.weight)
        torch.nn.init.normal_(norm.bias)
    return block


@pytest.mark.parametrize("points", [1, 47, 150])
def test_a_block_and_its_gradients(points):
    plain, exact, fast = poisoned_block(), poisoned_block().double(), poisoned_block()
    fast.take_cpp()
    ptr = torch.tensor([0, points // 3, points // 3, points])
    x = 3 * torch.randn(points, 32) + 1
    dy, results = torch.randn(points, 32), []
    for block in (exact, plain, fast):
        h = x.to(block.norm1.weight.dtype).requires_grad_()
        y = block(h, ptr)
        grads = torch.autograd.grad(y, [h, *block.parameters()], dy.to(y.dtype))
        results.append([y, *grads])
    assert "cpp_block" in str(results[2][0].grad_fn)
    names = ["y", "x", *(name for name, _ in fast.named_parameters())]
    expected, *others = (dict(zip(names, values, strict=True)) for values in results)
    for found in others:  # some thirty sums follow upon each other in a block, there and back
        close(found, expected, terms=max(points, 32), roundings=64)
    with torch.no_grad():
        assert torch.equal(fast(x, ptr), results[2][0])


def test_block_operator():
    block = poisoned_block()
    x, ptr = torch.randn(40, 32, requires_grad=True), torch.tensor([0, 10, 40])
    parts = (block.norm1, block.conv, block.norm2, block.mlp)
    weights = [t.detach().requires_grad_() for t in weights_of(*parts)]
    torch.library.opcheck(block_op, (x, ptr, weights, 0.5, "gelu_tanh", [1e-5, 1e-5]))


@pytest.mark.parametrize(
    "options", [{"norm": "rms"}, {"qk_norm": True}, {"ffn_channels": 48}, {"kv_layers": -1}]
)
def test_blocks_that_are_no_operator(options):
    """Their parts still take what kernels there are."""
    torch.manual_seed(0)
    sizes = (32, 32, 32, 1, 4, 16)
    plain = Flare(*sizes, **options).blocks[0]
    fast = Flare(*sizes, backend="cpp", **options).blocks[0]
    fast.load_state_dict(plain.state_dict())
    x, ptr = torch.randn(60, 32), torch.tensor([0, 20, 60])
    y = fast(x, ptr)
    assert "cpp_block" not in str(y.grad_fn)
    close(y, plain(x, ptr), terms=40)


def test_a_compiled_model_takes_the_kernels_and_keeps_its_gradients():
    plain, fast = Flare(2, 1, 32, 3, 4, 16), Flare(2, 1, 32, 3, 4, 16)
    fast.load_state_dict(plain.state_dict())
    fast.compile()
    assert sizes_of(fast) == sizes_of(plain)
    x, ptr = torch.rand(150, 2), torch.tensor([0, 40, 40, 150])
    calls = []
    handle = fast.blocks[1].mlp.layers[0].register_forward_hook(lambda *_: calls.append(1))
    results = []
    for model in (plain, fast):
        y = model(x, make_layout(ptr, 150, x.device))
        results.append([y, *torch.autograd.grad(y.square().sum(), list(model.parameters()))])
    handle.remove()
    assert calls == [1], "a hook between the layers is still called"
    used = fast.blocks[0](torch.rand(150, 32), ptr).grad_fn
    assert "cpp_block" in str(used), "the kernels were not used"
    close(*results, terms=150, roundings=32)  # through three blocks and back


def test_where_the_kernels_do_not_fit_the_blocks_are_compiled_by_torch(monkeypatch):
    """Not under autocast, not in float64, not for a head width that there is none for."""
    compiled = []
    monkeypatch.setattr(FlareBlock, "compile", lambda self, **options: compiled.append(options))
    with torch.autocast("cpu", torch.bfloat16):
        Flare(2, 1, 32, 2, 4, 8).compile()
    Flare(2, 1, 32, 2, 4, 8).double().compile()
    Flare(2, 1, 24, 2, 2, 8).compile()
    Flare(2, 1, 32, 2, 4, 8).compile(mode="reduce-overhead")
    assert compiled == 6 * [{"dynamic": True}] + 2 * [{"dynamic": True, "mode": "reduce-overhead"}]
