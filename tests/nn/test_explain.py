import pytest
import torch
from torch import nn
from torch_geometric.data import Batch, Data

from flare_geo.nn import Flare, FlareConv, Scaler, Surrogate
from flare_geo.nn.explain import latent_weights, routings, spectra, suggest_num_latents
from flare_geo.nn.surrogate import Field
from flare_geo.ops import flare_attention


def small(**options):
    return Flare(2, 1, 16, 3, 4, 12, init="default", **options)


def surrogate(**options):
    scaler = Scaler(torch.tensor([0.3, 0.5]), torch.tensor([0.2, 0.1]))
    inputs = [Field("pos", "x", "m"), Field("pos", "y", "m")]
    return Surrogate(small(**options), inputs, [Field("y", "p", "Pa")], scaler)


@pytest.mark.parametrize("options", [{}, {"qk_norm": True, "norm": "rms", "scale": 0.5}])
def test_attention_with_what_was_found_is_what_the_layer_does(options):
    model, x = small(**options), torch.randn(50, 2)
    seen = []
    conv = model.blocks[1].conv
    with conv.lin_out.register_forward_hook(lambda m, args, y: seen.append(args[0])):
        found = routings(model, x)
    v = []
    with conv.v_mlp.register_forward_hook(lambda m, args, y: v.append(y)):
        model(x)
    q, k, scale = found[1]
    y = flare_attention(q, k, v[0].unflatten(-1, (4, 4)), scale=scale)
    torch.testing.assert_close(y.flatten(1), seen[0])
    assert len(found) == 3
    assert scale == options.get("scale", 1.0)
    assert not q.requires_grad


def test_the_model_is_left_as_it_was():
    model, x = small(), torch.randn(50, 2)
    before = model(x)
    model.train()
    model.blocks[0].eval()
    routings(model, x)
    assert torch.equal(model(x), before)
    assert model.training
    assert not model.blocks[0].conv.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    with pytest.raises(ValueError, match="x must be"):
        routings(model, torch.randn(50, 3))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_surrogate_scales_its_inputs():
    model, data = surrogate(), Data(pos=torch.rand(50, 2))
    scaled = (data.pos - torch.tensor([0.3, 0.5])) / torch.tensor([0.2, 0.1])
    for a, b in zip(routings(model, data), routings(model.model, scaled), strict=True):
        torch.testing.assert_close(a.k, b.k)
        assert torch.equal(a.q, b.q)


def test_weights_are_the_softmaxes_of_the_head():
    model, x = small(scale=0.5), torch.randn(50, 2)
    encode, decode = latent_weights(model, x, block=1, head=2)
    q, k, scale = routings(model, x)[1]
    scores = scale * q[2] @ k[:, 2].T
    torch.testing.assert_close(encode, scores.softmax(dim=1))
    torch.testing.assert_close(decode, scores.softmax(dim=0).T)
    last = latent_weights(model, x, head=-1)
    torch.testing.assert_close(last.encode, latent_weights(model, x, block=2, head=3).encode)


def test_spectra_of_every_block():
    found = spectra(small(), torch.randn(50, 2))
    assert [s.shape for s in found] == [(4, 12)] * 3
    for values in found:
        torch.testing.assert_close(values[:, 0], torch.ones(4, dtype=torch.float64))


def test_a_layer_in_somebody_elses_model_and_called_twice():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = FlareConv(8, heads=2, num_latents=4)

        def forward(self, data):
            return self.conv(self.conv(data.x, batch=data.batch), ptr=data.ptr)

    data = Data(x=torch.randn(9, 8))
    model = Own()
    assert len(routings(model, Batch.from_data_list([data]))) == 2
    with pytest.raises(ValueError, match="expected one cloud, got a batch of 3: pass one case"):
        routings(model, Batch.from_data_list([data] * 3))


def test_the_suggestion_covers_the_busiest_head():
    flat, steep = torch.ones(2, 24), torch.tensor([[1.0] * 9 + [0.02] * 8 + [1e-3] * 7] * 2)
    assert suggest_num_latents([steep]) == 24  # 17 above 0.01
    assert suggest_num_latents([steep], tolerance=0.1) == 16
    assert suggest_num_latents([steep[:, :9]], tolerance=0.1) == 16  # all in use
    assert suggest_num_latents([steep[:, :10]], tolerance=0.1) == 10
    assert suggest_num_latents([steep, flat], tolerance=0.1) == 24
    assert suggest_num_latents(values for values in [steep[:, :8]]) == 8


def test_bad_input_is_named():
    model, x = small(), torch.randn(50, 2)
    with pytest.raises(ValueError, match="the Linear has no FlareConv in it"):
        routings(nn.Linear(2, 2), x)
    with pytest.raises(ValueError, match="got a batch of 2"):
        routings(model, x, torch.tensor([0, 20, 50]))
    with pytest.raises(ValueError, match="got a batch of 2"):
        spectra(surrogate(), Batch.from_data_list([Data(pos=torch.rand(5, 2))] * 2))
    with pytest.raises(ValueError, match="block must be 0 to 2, got 3"):
        latent_weights(model, x, block=3)
    with pytest.raises(ValueError, match="head must be 0 to 3, got -5"):
        latent_weights(model, x, head=-5)
    with pytest.raises(ValueError, match="tolerance must lie between 0 and 1, got 2"):
        suggest_num_latents([torch.ones(1, 3)], tolerance=2)
    with pytest.raises(ValueError, match="spectra is empty"):
        suggest_num_latents([])
