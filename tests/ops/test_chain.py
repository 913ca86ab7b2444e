import pytest
import torch
from closeness import close

from flare_geo.nn import Flare, ResidualMLP
from flare_geo.nn.mlp import apply_together
from flare_geo.ops import chain, flare_attention


@pytest.mark.parametrize("act", list(chain.ACTIVATIONS))
def test_a_chain_is_the_residual_mlp(act):
    mlp = ResidualMLP(16, num_layers=3, act=act)
    linears = [*mlp.layers, mlp.lin_out]
    x = torch.randn(37, 16)
    weights, biases = [m.weight for m in linears], [m.bias for m in linears]
    (y,) = chain.residual_chains(x, [weights], [biases], act=act)
    close(y, mlp(x), terms=16)


def test_together_is_one_after_the_other():
    mlps = [ResidualMLP(16, num_layers=2) for _ in range(2)]
    x = torch.randn(37, 16)
    for together, mlp in zip(apply_together(mlps, x), mlps):
        close(together, mlp(x), terms=16)


def test_which_mlps_are_chains():
    assert ResidualMLP(16).has_one_width
    assert not ResidualMLP(16, 8).has_one_width
    assert not ResidualMLP(16, num_layers=-1).has_one_width
    assert not ResidualMLP(16, input_residual=False).has_one_width


def test_compiled_gelu_is_the_same_function(monkeypatch):
    u = torch.linspace(-8, 8, 1001, dtype=torch.float64)
    eager = chain.gelu_tanh(u)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    close(chain.gelu_tanh(u), eager)


def test_checkpointed_blocks_give_the_same_gradients():
    plain, saving = Flare(2, 1, 16, 2, 2, 8), Flare(2, 1, 16, 2, 2, 8, checkpoint_blocks=True)
    saving.load_state_dict(plain.state_dict())
    x, ptr = torch.randn(60, 2), torch.tensor([0, 1, 1, 60])
    for model in (plain, saving):
        model(x, ptr).square().sum().backward()
    for a, b in zip(plain.parameters(), saving.parameters()):
        assert torch.equal(a.grad, b.grad)


@pytest.mark.parametrize(
    ("backend", "dtype", "width", "message"),
    [
        ("triton", torch.float64, 8, "computes float16, bfloat16 and float32.*backend='sdpa'"),
        ("triton", torch.float32, 256, "takes D up to 128, got 256; use backend='sdpa'"),
        ("fast", torch.float32, 8, "must be one of auto, reference, sdpa, .*got 'fast'"),
    ],
)
def test_a_backend_that_cannot_be_honoured_raises(backend, dtype, width, message):
    q = torch.randn(2, 4, width, dtype=dtype)
    k = torch.randn(10, 2, width, dtype=dtype)
    with pytest.raises((ValueError, TypeError), match=message):
        flare_attention(q, k, k, backend=backend)


def test_auto_on_a_cpu_is_sdpa_and_triton_by_name_agrees():
    pytest.importorskip("triton")
    q, k, v = torch.randn(2, 5, 8), torch.randn(40, 2, 8), torch.randn(40, 2, 8)
    auto = flare_attention(q, k, v)
    assert torch.equal(auto, flare_attention(q, k, v, backend="sdpa"))
    close(flare_attention(q, k, v, backend="triton"), auto, terms=40)
