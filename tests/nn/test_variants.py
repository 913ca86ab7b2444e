"""Variants of FLARE: the ablations, weights shared across depth, repeated passes, gates, order."""

import shutil

import pytest
import torch
from closeness import close
from golden import check, load, rename
from torch_geometric.data import Data

from flare_geo.distributed import shard_points
from flare_geo.nn import (
    CausalFlareConv,
    Flare,
    FlareBlock,
    FlareConv,
    ResidualMLP,
    Surrogate,
)
from flare_geo.nn.explain import routings
from flare_geo.nn.latent_blocks import LatentBlocks
from flare_geo.nn.mixers import make_mixer
from flare_geo.nn.surrogate import Field
from flare_geo.nn.surrogate.streaming import answer, stream
from flare_geo.ops import flare_decode, flare_encode
from flare_geo.testing import check_clouds_are_independent, check_permutation_equivariance

PTR = torch.tensor([0, 0, 1, 40, 40, 97])
LARGEST = 57  # points of a cloud
MIXER = {
    "shared latents": {"shared_latents": True},
    "latent blocks": {"num_latent_blocks": 2},
    "gating": {"gating": True},
    "all": {"queries": "shared", "num_latent_blocks": 1, "gating": True},
}
DEPTH = {
    "passes": {"num_passes": 3},
    "one mixer": {"shared_mixer": True},
    "one ffn": {"shared_ffn": True},
    "ALBERT": {"shared_mixer": True, "shared_ffn": True, "num_passes": 2, "queries": "conditioned"},
}
MODELS = {
    name: {k: args[k] for k in args.keys() & {"queries"}}
    | {"mixer_args": {k: args[k] for k in args.keys() - {"queries"}}}
    for name, args in MIXER.items()
} | DEPTH
FILES = [
    "flare",
    "flare_qknorm_rms",
    "flare_linear_kv",
    "flare_ablation_shared_latents",
    "flare_ablation_latent_blocks",
    "loopy",
    "unloopy_shared",
]


def make(options, dtype=torch.float64, **more):
    torch.manual_seed(0)
    return Flare(3, 2, 16, 2, 2, 9, init="default", **options, **more).to(dtype)


def official(name):
    golden = load(name)
    config = golden.config
    given = {"scale": config.get("attn_scale"), "num_passes": config.get("num_passes", 1)}
    act = "silu" if config.get("act") == "silu" else "gelu_tanh"
    return golden, Flare.from_official(golden.params, heads=config["num_heads"], act=act, **given)


def own_name(name):
    return rename(name if name.startswith("blocks.") else f"blocks.0.{name}")


@pytest.mark.parametrize("name", FILES)
def test_reference_numbers(name):
    golden, model = official(name)
    # latent_q has the memory of q, whatever the shape says
    check(golden, model, own_name=lambda key: own_name(key).replace("latent_q", "q"))
    total = sum(p.numel() for p in model.parameters())
    assert total == sum(p.numel() for p in golden.params.values())


@pytest.mark.parametrize("name", ["flare_ablation_latent_blocks", "loopy", "unloopy_shared"])
@pytest.mark.parametrize("chunk_size", [7, 60, 1000])
def test_reference_numbers_in_chunks(name, chunk_size):
    golden, model = official(name)
    x = torch.tensor(golden.arrays["x"])
    clouds, points, _ = x.shape
    y = torch.full((clouds * points, golden.config["out_dim"]), torch.nan)
    ptr, packed = torch.arange(clouds + 1) * points, x.flatten(0, 1)
    stream(model.eval(), packed.__getitem__, y.__setitem__, ptr, chunk_size=chunk_size)
    expected = torch.tensor(golden.arrays["y"]).flatten(0, 1)
    close(y, expected, terms=points, roundings=16)


@pytest.mark.parametrize("name", MODELS)
def test_chunks_ranks_and_answers(name, monkeypatch):
    model = make(MODELS[name]).eval()
    x = torch.rand(97, 3, dtype=torch.float64)
    with torch.no_grad():
        whole = model(x, PTR)
        for chunk_size in (1, 11, 40):
            y = torch.full_like(whole, torch.nan)
            states = stream(model, x.__getitem__, y.__setitem__, PTR, chunk_size=chunk_size)
            close(y, whole, terms=LARGEST, roundings=16)
        close(answer(model, x, states, PTR), whole, terms=LARGEST, roundings=16)
        shard_points(model)
        for block in model.blocks:  # one rank of one
            block.conv.join = lambda merge, state: merge(state)
        close(model(x, PTR), whole, terms=LARGEST, roundings=16)


@pytest.mark.parametrize("name", MODELS)
def test_clouds_are_independent_and_their_points_have_no_order(name):
    model = make(MODELS[name])
    options = {"tolerance": 1e-12, "dtype": torch.float64}
    check_clouds_are_independent(model, 3, **options)
    check_permutation_equivariance(model, 3, **options)


@pytest.mark.parametrize("name", MIXER)
@pytest.mark.parametrize("backend", ["reference", "triton", "cpp"])
def test_backends_agree_in_value_and_gradient(name, backend):
    if backend == "cpp" and shutil.which("g++") is None:
        pytest.skip("no C++ compiler here")
    x, results = torch.randn(97, 16), []
    for which in ("sdpa", backend):
        torch.manual_seed(1)
        options = {"num_latents": 5, "init": "default", "backend": which, **MIXER[name]}
        block = FlareBlock(16, FlareConv.from_options(16, 2, options))
        if which == "cpp":
            block.take_cpp()
        y = block(x, PTR)
        named = dict(block.named_parameters())
        grads = torch.autograd.grad(y.square().sum(), list(named.values()))
        results.append({"y": y} | dict(zip(named, grads, strict=True)))
    expected, found = results
    close(found, expected, terms=len(x), roundings=32)  # through latent blocks and back


@pytest.mark.parametrize("name", MODELS)
def test_save_and_load(name, tmp_path):
    """Weights that several blocks share are still shared."""
    model = make(MODELS[name], torch.float32)
    fields = [Field("pos", axis, "m") for axis in "xyz"]
    surrogate = Surrogate(model, fields, [Field("y", c, "1") for c in "ab"]).eval()
    again = Surrogate.from_pretrained(surrogate.save_pretrained(tmp_path / "model"))
    case = Data(pos=torch.rand(20, 3))
    with torch.no_grad():
        assert torch.equal(again(case), surrogate(case))
    assert len(list(again.parameters())) == len(list(surrogate.parameters()))


def test_repeated_passes_are_repeated_blocks():
    looped, model = make({"num_passes": 2}), make({})
    x = torch.rand(97, 3, dtype=torch.float64)
    h = model.begin(x)
    for block in [*model.blocks, *model.blocks]:
        h = block(h, PTR)
    assert torch.equal(looped(x, PTR), model.end(h))
    kept = make({"num_passes": 2}, checkpoint_blocks=True)
    loss = [m(x, PTR).square().sum() for m in (looped, kept)]
    grads = [torch.autograd.grad(y, list(m.parameters())) for y, m in zip(loss, (looped, kept))]
    close(grads[1], grads[0], terms=97, roundings=32)


def test_a_gate_multiplies_what_is_decoded():
    gate = ResidualMLP(16)
    conv = FlareConv(16, heads=2, num_latents=5, init="default", gate=gate).double()
    plain = FlareConv(16, heads=2, num_latents=5).double()
    plain.load_state_dict({k: v for k, v in conv.state_dict().items() if "g_mlp" not in k})
    x, seen = torch.randn(97, 16, dtype=torch.float64), []
    plain.lin_out.register_forward_hook(lambda _, args, __: seen.append(args[0]))
    plain(x, PTR)
    gated = conv.lin_out(seen[0] * torch.sigmoid(gate(x)))
    close(conv(x, PTR), gated, terms=LARGEST)


def test_a_checkpoint_with_a_gate():
    golden, plain = official("unloopy_shared")
    state = dict(golden.params)
    for key in [k for k in state if k.startswith("att.k_proj.")]:
        state[key.replace("k_proj", "g_proj")] = state[key] + 0.1
    model = Flare.from_official(state, heads=golden.config["num_heads"])
    assert model.blocks[0].conv.g_mlp is model.blocks[1].conv.g_mlp is not None
    assert plain.blocks[0].conv.g_mlp is None


def test_latent_blocks_stand_between_encode_and_decode():
    latents = LatentBlocks(16, 2, 1)
    conv = FlareConv(16, heads=2, num_latents=5, init="default", latents=latents).double()
    x = torch.randn(97, 16, dtype=torch.float64)
    q, k = conv.routing(x)
    v = conv.v_mlp(x).unflatten(-1, (2, 8))
    z = flare_encode(q, k, v)[0].transpose(1, 2).flatten(2)[0]  # [M, C]
    block = latents[0]
    z = z + block.conv(block.norm1(z))
    z = z + block.mlp(block.norm2(z))
    y = flare_decode(q, k, z.view(1, 5, 2, 8).transpose(1, 2))
    close(conv(x), conv.lin_out(y.flatten(1)), terms=97)


@pytest.mark.parametrize("name", MODELS)
def test_a_look_inside(name):
    model = make(MODELS[name], torch.float32)
    found = routings(model, torch.rand(30, 3))
    assert len(found) == len(model.sequence)
    assert {tuple(q.shape) for q, _, _ in found} == {(2, 9, 8)}
    assert {tuple(k.shape) for _, k, _ in found} == {(30, 2, 8)}


def causal(**options):
    torch.manual_seed(0)
    options = {"num_latents": 5, "init": "default", **options}
    return make_mixer("flare_causal", 16, 2, options).double()


@pytest.mark.parametrize("options", [{}, {"gating": True, "qk_norm": True, "shared_latents": True}])
def test_causal_layer(options):
    """Nothing sees what comes later; one point at a time says the same."""
    conv = causal(**options)
    x = torch.randn(50, 16, dtype=torch.float64)
    ptr = torch.tensor([0, 25, 50])
    y = conv(x, ptr)
    later = x.clone()
    later[10:25] = 7.0
    changed = conv(later, ptr)
    close(changed[:10], y[:10], terms=25, roundings=16)
    close(changed[25:], y[25:], terms=25, roundings=16)
    assert not torch.allclose(changed[10:25], y[10:25], rtol=1e-3)
    state, steps = None, []
    for t in range(25):
        step, state = conv.step(x[[t, 25 + t]], state)
        steps.append(step)
    close(torch.stack(steps, dim=1).flatten(0, 1), y, terms=25, roundings=16)
    check_clouds_are_independent(conv, 16, tolerance=1e-12, dtype=torch.float64)


def test_a_causal_model_is_neither_chunked_nor_sharded():
    model = make({"mixer": "flare_causal"})
    x = torch.rand(97, 3, dtype=torch.float64)
    assert model(x, PTR).isfinite().all()
    with pytest.raises(ValueError, match="interact pair by pair, or in order"):
        stream(model, x.__getitem__, None, PTR, chunk_size=9)
    with pytest.raises(ValueError, match="interact pair by pair, or in order"):
        shard_points(model)
    with pytest.raises(ValueError, match="CausalFlareConv has no mixer whose sums"):
        shard_points(causal())


def test_the_causal_flag_of_older_checkpoints_is_the_causal_layer():
    old, new = make({"mixer_args": {"causal": True}}), make({"mixer": "flare_causal"})
    x = torch.rand(97, 3, dtype=torch.float64)
    assert torch.equal(old(x, PTR), new(x, PTR))
    assert type(old.blocks[0].conv) is CausalFlareConv
    old, new = make({"mixer_args": {"shared_latents": True}}), make({"queries": "shared"})
    assert torch.equal(old(x, PTR), new(x, PTR))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make({"num_passes": 0}), "num_passes must be at least 1, got 0"),
        (lambda: make({"mixer_args": {"scale": 2}}), "say scale as an argument of the model"),
        (lambda: make({"mixer_args": {"gate": 2}}), "mixer 'flare' takes .*gating.*, got 'gate'"),
        (lambda: causal(num_latent_blocks=1), "'flare_causal' takes .*, got 'num_latent_blocks'"),
        (
            lambda: CausalFlareConv(16, latents=LatentBlocks(16, 8, 1)),
            "latents process the encoding of a whole cloud; here there is none",
        ),
    ],
)
def test_bad_input_is_one_line(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
