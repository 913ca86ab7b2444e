"""FLARE++ in its two forms: reference numbers, backends, chunks, ranks, start."""

import re
import shutil

import pytest
import torch
from closeness import close
from golden import check, load, rename

from flare_geo.distributed import shard_points
from flare_geo.nn import MIXERS, Flare, FlareConv
from flare_geo.nn.explain import routings
from flare_geo.nn.flare import ConditionedQueries
from flare_geo.nn.mixers import make_mixer
from flare_geo.nn.surrogate.streaming import stream
from flare_geo.ops import flare_encode
from flare_geo.testing import check_clouds_are_independent, check_permutation_equivariance

PTR = torch.tensor([0, 0, 1, 40, 40, 97])
BACKENDS = ["reference", "sdpa", "triton"]
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler here")
cpp = pytest.param("cpp", marks=needs_compiler)


def official(name):
    golden = load(name)
    act = "silu" if golden.config.get("act") == "silu" else "gelu_tanh"
    return golden, Flare.from_official(golden.params, act=act)


@pytest.mark.parametrize("name", ["flarepp_model", "flarepp_model_rms"])
def test_reference_numbers_of_the_authors_model(name):
    golden, model = official(name)
    assert model.config["queries"] == "conditioned"
    assert model.blocks[0].conv.scale == model.blocks[0].conv.q.shape[-1] ** -0.5
    check(golden, model)


def test_reference_numbers_of_the_pure_layer():
    golden = load("flare_plus_plus_layer")
    config = golden.config
    layer = MIXERS["flare_plus_plus_pure"](
        config["dim"],
        config["heads"],
        num_latents=config["n_global_queries"],
        head_channels=config["dim_head"],
    )
    layer.load_state_dict(golden.params)
    check(golden, layer, own_name=lambda name: name)


def test_the_mixer_is_the_layer_with_conditioned_queries():
    golden, model = official("flarepp_model_rms")
    heads = golden.config["num_heads"]
    latents = golden.config["num_latents"]
    conv = model.blocks[1].conv
    mixer = MIXERS["flare_plus_plus"](
        conv.in_channels, heads, num_latents=latents, share_k0_v0=False, norm="rms"
    )
    mixer.load_state_dict(conv.state_dict())
    x = torch.randn(97, conv.in_channels)
    assert torch.equal(mixer(x, PTR), conv(x, PTR))


def layers(backend):
    options = {"num_latents": 7, "backend": backend}
    torch.manual_seed(0)
    conv = FlareConv(16, heads=2, queries="conditioned", **options)
    for parameter in conv.parameters():  # the start is too tame to show a mistake
        torch.nn.init.normal_(parameter, std=0.4)
    return conv, MIXERS["flare_plus_plus_pure"](16, 2, **options)


@pytest.mark.parametrize("backend", [*BACKENDS[1:], cpp])
@pytest.mark.parametrize("which", [0, 1])
def test_backends_agree_in_value_and_gradient(which, backend):
    """Queries of each cloud's own: values and all gradients, also of clouds without points."""
    x = torch.randn(97, 16)
    results = []
    for name in ("reference", backend):
        layer = layers(name)[which]
        h = x.clone().requires_grad_()
        y = layer(h, PTR)
        loss = (y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum()
        named = {"x": h} | dict(layer.named_parameters())
        grads = torch.autograd.grad(loss, list(named.values()))
        results.append({"y": y} | dict(zip(named, grads, strict=True)))
    close(results[1], results[0], terms=len(x), roundings=16)


@pytest.mark.parametrize("which", [0, 1])
def test_clouds_are_independent_and_their_points_have_no_order(which):
    layer = layers("auto")[which].double()
    options = {"tolerance": 1e-12, "dtype": torch.float64}
    check_clouds_are_independent(layer, 16, **options)
    check_permutation_equivariance(layer, 16, **options)


def models():
    torch.manual_seed(0)
    yield Flare(3, 2, 16, 2, 2, 9, queries="conditioned", ffn_layers=0, ffn_channels=32)
    pure = {"mixer": "flare_plus_plus_pure", "mixer_args": {"num_latents": 9}}
    yield Flare(3, 2, 16, 2, 2, init="default", **pure)


@pytest.mark.parametrize("chunk_size", [1, 7, 39, 40, 1000])
@pytest.mark.parametrize("which", [0, 1])
def test_two_sums_a_block_in_chunks(which, chunk_size):
    model = list(models())[which].double().eval()
    x = torch.rand(97, 3, dtype=torch.float64)
    with torch.no_grad():
        whole = model(x, PTR)
    y = torch.full_like(whole, torch.nan)
    states = stream(model, x.__getitem__, y.__setitem__, PTR, chunk_size=chunk_size)
    assert [len(of_block) for of_block in states] == [2, 2]
    close(y, whole, terms=57, roundings=16)


@pytest.mark.parametrize("which", [0, 1])
def test_two_merges_a_block_over_ranks(which, monkeypatch):
    """One rank of one: each sum is joined once, in order, and nothing changes."""
    model = list(models())[which].double()
    x = torch.rand(97, 3, dtype=torch.float64)
    whole = model(x, PTR)
    shard_points(model)
    joined = []
    for i, block in enumerate(model.blocks):
        block.conv.join = lambda merge, state, i=i: joined.append((i, merge)) or merge(state)
    close(model(x, PTR), whole, terms=57, roundings=16)
    merges = model.blocks[0].conv.merges
    assert joined == [(i, merge) for i in range(2) for merge in merges]


@pytest.mark.parametrize("options", [{}, {"share_k0_v0": False, "norm": "rms", "gating": True}])
def test_gradcheck(options):
    options = {"num_latents": 3, "queries": "conditioned", **options}
    conv = FlareConv.from_options(4, 2, options).double()
    x = torch.randn(9, 4, dtype=torch.float64, requires_grad=True)
    ptr = torch.tensor([0, 0, 1, 9])
    names = [name for name, _ in conv.named_parameters()]

    def outputs(x, *parameters):
        return torch.func.functional_call(conv, dict(zip(names, parameters)), (x, ptr))

    assert torch.autograd.gradcheck(outputs, (x, *conv.parameters()))


def test_start():
    """Linears near the identity, small latents, a gate of 0.25; the published size."""
    model = Flare(3, 1, 128, queries="conditioned", ffn_layers=0, ffn_channels=256)
    conv = model.blocks[0].conv
    assert (len(model.blocks), conv.heads, conv.num_latents) == (8, 8, 64)
    made = conv.conditioned
    assert made.v_lin is None
    for linear in (conv.k_mlp.lin_out, conv.v_mlp.lin_out, made.k_lin):
        off = linear.weight.detach() - torch.eye(128)
        assert abs(float(off.std()) - 0.02) < 0.001
        assert not linear.bias.any()
    for latents in (conv.q, made.q0):
        assert abs(float(latents.detach().std()) - 0.02) < 0.002
    assert (made.gate == 0.25).all()
    assert not list(conv.q_norm.parameters())
    assert list(conv.k_norm.parameters())


def test_a_closed_gate_leaves_flare():
    conv = FlareConv(16, heads=2, num_latents=5, queries="conditioned").double()
    torch.nn.init.constant_(conv.conditioned.gate, -50.0)
    plain = FlareConv(16, heads=2, num_latents=5, scale=8**-0.5, qk_norm=True).double()
    plain.k_mlp, plain.v_mlp, plain.lin_out = conv.k_mlp, conv.v_mlp, conv.lin_out
    plain.k_norm, plain.q = conv.k_norm, conv.q
    x = torch.randn(97, 16, dtype=torch.float64)
    close(conv(x, PTR), plain(x, PTR), terms=57, roundings=16)


def test_mixed_precision_is_close_and_half_is_finite():
    conv = layers("auto")[0]
    x = torch.randn(97, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = conv(x, PTR)
    y.float().sum().backward()
    close(y, conv(x, PTR), dtype=torch.bfloat16, roundings=16)
    half = layers("auto")[0].bfloat16()
    assert half(x.bfloat16(), PTR).isfinite().all()


@pytest.mark.parametrize("options", [{}, {"backend": "eager"}])
def test_a_compiled_model_keeps_its_gradients(options):
    if not options and shutil.which("g++") is None:
        pytest.skip("no C++ compiler here")
    torch._dynamo.reset()
    plain, fast = (next(models()) for _ in range(2))
    fast.load_state_dict(plain.state_dict())
    fast.compile(**options)
    assert (fast.blocks[0].conv.backend == "cpp") == (not options)
    for sizes in ((97,), (0, 1, 40, 56)):
        x, ptr = torch.rand(sum(sizes), 3), torch.tensor([0, *sizes]).cumsum(0)
        results = []
        for model in (plain, fast):
            y = model(x, ptr)
            named = dict(plain.named_parameters())
            grads = torch.autograd.grad(y.square().sum(), list(model.parameters()))
            results.append({"y": y} | dict(zip(named, grads, strict=True)))
        # The gradients of what makes the queries are a thousandth of the others: by themselves.
        for made in (True, False):
            parts = [{k: v for k, v in r.items() if ("conditioned" in k) == made} for r in results]
            close(parts[1], parts[0], terms=97, roundings=32)
    torch._dynamo.reset()


def test_a_look_inside_shows_the_queries_of_the_cloud():
    conv = layers("reference")[0]
    x = torch.randn(40, 16)
    with torch.no_grad():
        (found,) = routings(conv, x)
        made, _ = flare_encode(
            conv.conditioned.q0_norm(conv.conditioned.q0),
            *[conv.conditioned.norm(conv.conditioned.k_lin(x).unflatten(1, (2, 8)))] * 2,
            scale=8**-0.5,
        )
        q = conv.q_norm(conv.q) + conv.conditioned.gate.sigmoid()[:, None, None] * made[0]
    close(found.q, q, terms=40)


def test_what_cannot_be_is_said():
    with pytest.raises(ValueError, match="'learned' or 'shared' or 'conditioned', got 'fixed'"):
        FlareConv(16, heads=2, queries="fixed")
    with pytest.raises(ValueError, match="shared_latents is for queries='learned'"):
        make_mixer("flare", 16, 2, {"queries": "conditioned", "shared_latents": True})
    with pytest.raises(ValueError, match="share_k0_v0 is for queries='conditioned', got 'learned'"):
        make_mixer("flare", 16, 2, {"share_k0_v0": False})
    with pytest.raises(ValueError, match="must be 'learned' or 'shared', got 'conditioned'"):
        make_mixer("flare_causal", 16, 2, {"queries": "conditioned"})
    with pytest.raises(ValueError, match=r"queries must be for \[H, M, D\] = \[2, 7, 8\], got"):
        FlareConv(16, heads=2, num_latents=7, queries=ConditionedQueries(16, 2, 8, 5))
    golden, _ = official("flarepp_model")
    bare = {k: v for k, v in golden.params.items() if "k_norm" not in k}
    with pytest.raises(ValueError, match="without k_norm is not a variant"):
        Flare.from_official(bare)
    with pytest.raises(ValueError, match="say heads="):
        Flare.from_official(golden.params, heads=golden.config["num_heads"] * 2)


def test_names_of_the_authors_code():
    assert rename("blocks.3.mixer.v0_proj.weight") == "blocks.3.conv.conditioned.v_lin.weight"
    assert not [k for k in official("flarepp_model")[1].state_dict() if re.search("mixer|ffn", k)]
