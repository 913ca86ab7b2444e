import subprocess
import sys

import pytest
import torch
from torch import nn
from torch_geometric.data import Batch, Data

from flare_geo.nn import Flare, FlareBlock, FlareConv, ResidualMLP
from flare_geo.testing import (
    check_batch_equals_ptr,
    check_clouds_are_independent,
    check_permutation_equivariance,
    random_sizes,
)

BACKENDS = ["reference", "sdpa"]


def block(**kw):
    conv = FlareConv(8, heads=4, num_latents=16, act="silu", **kw)
    return FlareBlock(8, conv, ResidualMLP(8, act="silu"), nn.RMSNorm(8), nn.RMSNorm(8))


LAYERS = {
    "conv": lambda **kw: FlareConv(8, 12, heads=4, num_latents=16, **kw),
    "conv, qk_norm": lambda **kw: FlareConv(8, heads=2, num_latents=5, qk_norm=True, **kw),
    "block": block,
    "model": lambda **kw: Flare(8, 3, 16, 2, 4, 16, num_frequencies=2, **kw),
}


@pytest.mark.parametrize("init", ["paper", "default"])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", LAYERS)
def test_properties(name, backend, init):
    layer = LAYERS[name](backend=backend, init=init)
    check_clouds_are_independent(layer, 8)
    check_permutation_equivariance(layer, 8)
    check_batch_equals_ptr(layer, 8)


@pytest.mark.parametrize("backend", BACKENDS)
def test_two_hundred_ragged_batches(backend):
    generator = torch.Generator().manual_seed(1)
    conv = FlareConv(16, heads=4, num_latents=32, init="default", backend=backend)
    for _ in range(200):
        sizes = random_sizes(generator)
        check_clouds_are_independent(conv, 16, sizes, generator=generator)
        check_permutation_equivariance(conv, 16, sizes, generator=generator)


@pytest.mark.parametrize("backend", BACKENDS)
def test_properties_are_exact_in_float64(backend):
    model = Flare(3, 1, backend=backend).double()
    sizes = [3, 1, 0, 40, 2]
    check_clouds_are_independent(model, 3, sizes, tolerance=1e-13, dtype=torch.float64)
    check_permutation_equivariance(model, 3, sizes, tolerance=1e-13, dtype=torch.float64)


def test_ragged_batches_through_the_paper_model():
    generator = torch.Generator().manual_seed(2)
    model = Flare(3, 1)
    for _ in range(20):
        check_clouds_are_independent(model, 3, random_sizes(generator), generator=generator)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradcheck(backend):
    conv = FlareConv(4, 6, heads=2, num_latents=3, kv_layers=1, backend=backend).double()
    x = torch.randn(9, 4, dtype=torch.float64, requires_grad=True)
    ptr = torch.tensor([0, 0, 1, 9])
    parameters = tuple(conv.parameters())

    def outputs(x, *parameters):
        names = [n for n, _ in conv.named_parameters()]
        return torch.func.functional_call(conv, dict(zip(names, parameters)), (x, ptr))

    assert torch.autograd.gradcheck(outputs, (x, *parameters))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes(dtype):
    conv = FlareConv(16, heads=4, num_latents=8, init="default").to(dtype)
    x = torch.randn(50, 16, dtype=dtype)
    y = conv(x, ptr=torch.tensor([0, 20, 50]))
    assert y.dtype == dtype
    y.float().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in conv.parameters())


def test_autocast():
    conv = FlareConv(16, heads=4, num_latents=8, qk_norm=True, init="default")
    x = torch.randn(50, 16)
    exact = conv(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = conv(x)
        y.float().sum().backward()
    assert torch.allclose(y.float(), exact, atol=0.05)
    assert conv.q.grad is not None


def test_inside_a_users_pyg_model():
    class Mine(nn.Module):
        def __init__(self):
            super().__init__()
            self.lin = nn.Linear(3, 16)
            self.conv = FlareConv(16, 16, heads=4, num_latents=32)

        def forward(self, data):
            return self.conv(self.lin(data.pos).relu(), batch=data.batch)

    clouds = [Data(pos=torch.rand(n, 3)) for n in (5, 1, 70)]
    model = Mine()
    y = model(Batch.from_data_list(clouds))
    assert y.shape == (76, 16)
    torch.testing.assert_close(y[6:], model.conv(model.lin(clouds[2].pos).relu()))


def test_paper_and_default_start():
    paper = FlareConv(256, heads=8, num_latents=256)
    assert abs(float(paper.q.detach().std()) - 0.1) < 0.005
    assert abs(float(paper.k_mlp.layers[0].weight.detach().std()) - 0.02) < 0.001
    assert not paper.lin_out.bias.any()
    default = FlareConv(256, heads=8, num_latents=256, init="default")
    assert abs(float(default.q.detach().std()) - 1) < 0.05
    assert float(default.lin_out.weight.detach().abs().max()) <= 256**-0.5


def test_mlp_residuals_follow_the_widths():
    x = torch.randn(5, 8)
    linear = ResidualMLP(8, num_layers=-1)
    torch.testing.assert_close(linear(x), x + linear.lin_out(x))
    plain = ResidualMLP(8, 3, hidden_channels=6, num_layers=0)
    expected = plain.lin_out(nn.functional.gelu(plain.layers[0](x), approximate="tanh"))
    torch.testing.assert_close(plain(x), expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c, x: c(x, ptr=torch.tensor([0, 20])), "ptr must end at N=30, got 20"),
        (lambda c, x: c(x, batch=torch.tensor([1, 0] * 15)), "batch must be sorted"),
        (lambda c, x: c(x, batch=torch.zeros(3, dtype=torch.int64)), r"batch must be \[N=30\]"),
        (lambda c, x: c(x[:, :3]), r"x must be \[N, 8\], got \[30, 3\]"),
        (lambda c, x: c(x, torch.tensor([0, 30]), torch.zeros(30).long()), "ptr or batch, not"),
        (
            lambda c, x: FlareConv(8, heads=3),
            "divisible by heads, got 8 and 3",
        ),
        (lambda c, x: FlareConv(8, init="best"), "init must be 'paper' or 'default', got 'best'"),
        (lambda c, x: FlareConv(8, heads=2, act="relu"), "act must be one of"),
        (lambda c, x: ResidualMLP(8, backend="nonsense"), "backend must be 'auto' or 'cpp', got"),
    ],
)
def test_bad_input_is_one_line(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call(FlareConv(8, heads=2), torch.randn(30, 8))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("mlp", "dtype", "got"),
    [
        (ResidualMLP(16, backend="cpp"), torch.float64, "torch.float64 on cpu"),
        (ResidualMLP(20, backend="cpp"), torch.float32, r"widths \[20, 20, 20, 20, 20, 20\]"),
        (ResidualMLP(16, 32, backend="cpp"), torch.float32, r"widths \[16, 32"),
        (ResidualMLP(16, act="gelu", backend="cpp"), torch.float32, "act 'gelu'"),
    ],
)
def test_cpp_that_cannot_be_honoured_raises(mlp, dtype, got):
    """F5: what was asked for is computed or refused; a preference falls back."""
    x = torch.randn(5, mlp.linears[0].in_features, dtype=dtype)
    with pytest.raises(ValueError, match=f"backend 'cpp' computes MLPs with one width.*{got}"):
        mlp.to(dtype)(x)
    mlp.backend = "auto"
    assert mlp(x).isfinite().all()


def test_import_is_light():
    """The layers load none of the heavy or optional packages."""
    code = (
        "import sys; sys.modules['triton'] = None; "  # torch imports it by itself where it is there
        "from flare_geo.nn import FlareConv; "
        "heavy = ['pyvista', 'lightning', 'flare_geo.ops.triton', 'torch_scatter', 'h5py', "
        "'meshio', 'trimesh', 'matplotlib', 'skfem', 'jsonargparse']; "
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
