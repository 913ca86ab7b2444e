import pytest
import torch
from closeness import close

from flare_geo.nn import Flare, ResidualMLP
from flare_geo.nn.mlp import apply_together
from flare_geo.ops import residual_mlp_torch, residual_mlps


@pytest.mark.parametrize("act", list(residual_mlp_torch.ACTIVATIONS))
def test_it_is_the_module_of_nn(act):
    mlp = ResidualMLP(16, num_layers=3, act=act)
    linears = [*mlp.layers, mlp.lin_out]
    x = torch.randn(37, 16)
    weights, biases = [m.weight for m in linears], [m.bias for m in linears]
    (y,) = residual_mlps(x, [weights], [biases], act=act)
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
    eager = residual_mlp_torch.gelu_tanh(u)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    close(residual_mlp_torch.gelu_tanh(u), eager)


def test_checkpointed_blocks_give_the_same_gradients():
    plain, saving = Flare(2, 1, 16, 2, 2, 8), Flare(2, 1, 16, 2, 2, 8, checkpoint_blocks=True)
    saving.load_state_dict(plain.state_dict())
    x, ptr = torch.randn(60, 2), torch.tensor([0, 1, 1, 60])
    for model in (plain, saving):
        model(x, ptr).square().sum().backward()
    for a, b in zip(plain.parameters(), saving.parameters()):
        assert torch.equal(a.grad, b.grad)
