"""What every mixer must hold, and what those hold whose points meet in sums."""

import re
from pathlib import Path

import pytest
import torch
from closeness import close

from flare_geo.nn import MIXERS, Flare, SumMixer, Surrogate, Transolver, mixers
from flare_geo.nn.mixers import make_mixer
from flare_geo.nn.surrogate import Field
from flare_geo.nn.surrogate.streaming import stream
from flare_geo.testing import (
    check_clouds_are_independent,
    check_compiles,
    check_gradients,
    check_half_precision,
    check_parts_merge,
    check_permutation_equivariance,
)

C, HEADS = 16, 4
SIZES = (0, 1, 9, 24, 1, 0, 30)
ARGS = {"linformer": {"seq_len": 40, "num_latents": 6}}
# The place of a point in its cloud counts.
ORDERED = {"ema", "flare_causal", "linformer", "transolver_conv2d"}
ON_A_GRID = {"transolver_conv2d"}  # each cloud is one grid, tested beside its other numbers

README = Path(mixers.__file__).with_name("README.md")

every = pytest.mark.parametrize("name", [n for n in MIXERS if n not in ON_A_GRID])
sums = pytest.mark.parametrize("name", [n for n in MIXERS if issubclass(MIXERS[n], SumMixer)])


def make(name, dtype=torch.float64):
    torch.manual_seed(0)
    mixer = make_mixer(name, C, HEADS, ARGS.get(name)).to(dtype).eval()
    for weight in mixer.parameters():  # what starts at zero or at one would hide mistakes
        weight.data += 0.2 * torch.randn_like(weight)
    return mixer


@every
def test_clouds_do_not_see_each_other_and_ptr_is_a_loop(name):
    check_clouds_are_independent(make(name), C, SIZES, tolerance=1e-12, dtype=torch.float64)
    check_clouds_are_independent(make(name, torch.float32), C, SIZES, tolerance=1e-5)


@every
def test_order_of_the_points(name):
    mixer = make(name)
    if name in ORDERED:
        with pytest.raises(AssertionError, match="when points change their order"):
            check_permutation_equivariance(mixer, C, SIZES, dtype=torch.float64)
        return
    check_permutation_equivariance(mixer, C, SIZES, tolerance=1e-12, dtype=torch.float64)


@every
def test_gradients(name):
    check_gradients(make(name), C)


@every
def test_half_precision(name):
    check_half_precision(make(name, torch.float32), C, SIZES)


@every
def test_a_batch_without_clouds_or_points(name):
    mixer = make(name)
    for sizes in ((), (0,), (0, 0)):
        ptr = torch.tensor([0, *sizes])
        assert mixer(torch.randn(0, C).double(), ptr=ptr).shape == (0, C)


@every
def test_compiled(name):
    check_compiles(
        make(name),
        C,
        tolerance=1e-12,
        dtype=torch.float64,
        backend="eager",  # gradients of the operators inside are tested with them
        fullgraph=name != "flare_causal",  # how it is computed depends on the scores
    )


@sums
def test_parts_of_clouds_merge(name):
    mixer = make(name)
    check_parts_merge(mixer, C, SIZES, tolerance=1e-12, dtype=torch.float64)
    joined = []
    mixer.join = lambda merge, state: joined.append(merge) or state
    y = mixer(torch.randn(5, C).double())
    assert tuple(joined) == mixer.merges
    assert y.isfinite().all()


@sums
@pytest.mark.parametrize("skeleton", [Flare, Transolver])
def test_models_stream(skeleton, name):
    torch.manual_seed(0)
    model = skeleton(3, 2, C, 2, HEADS, mixer=name).double().eval()
    ptr = torch.tensor([0, *SIZES]).cumsum(0)
    x = torch.rand(int(ptr[-1]), 3, dtype=torch.float64)
    y = torch.empty(len(x), 2, dtype=torch.float64)
    stream(model, x.__getitem__, y.__setitem__, ptr, chunk_size=13)
    with torch.no_grad():
        close(y, model(x, ptr), terms=max(SIZES), roundings=64)  # two blocks of the longest mixer


def test_the_table_is_true():
    rows = re.findall(r"^\| `(\w+)` \|(.*)\|$", README.read_text(), re.MULTILINE)
    table = {name: [cell.strip() for cell in cells.split("|")] for name, cells in rows}
    assert table.keys() == MIXERS.keys()
    for name, (_, _, _, _, streams, _, order, _) in table.items():
        assert streams.startswith("yes") == issubclass(MIXERS[name], SumMixer), name
        assert order == ("counts" if name in ORDERED else "free"), name


def test_noise_in_training_only():
    mixer = make("transolver_plus")
    x = torch.randn(20, C).double()
    quiet = mixer(x)
    assert torch.equal(mixer(x), quiet)
    mixer.train()
    found = []
    for seed in (1, 1, 2):
        mixer.generator = torch.Generator().manual_seed(seed)
        found.append(mixer(x))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    mixer.noise = False
    assert torch.equal(mixer(x), quiet)


@torch.no_grad()
def test_orthogonal_features_are_unbiased():
    """Many of them give softmax attention, which those of the comparison do not."""
    exact = make_mixer("softmax", C, HEADS).double()
    x, errors = torch.randn(30, C).double(), []
    for orthogonal in (True, False):
        arguments = {"num_features": 2**15, "orthogonal": orthogonal}
        mixer = make_mixer("performer", C, HEADS, arguments).double()
        for part, rows in zip("qkv", range(0, 3 * C, C)):
            for weight in ("weight", "bias"):
                own = getattr(getattr(mixer, f"lin_{part}"), weight)
                own.data.copy_(getattr(exact.lin_qkv, weight)[rows : rows + C])
        mixer.lin_out = exact.lin_out
        errors.append(float((mixer(x) - exact(x)).norm() / exact(x).norm()))
    assert errors[0] < 0.05
    assert errors[1] > 0.1


@pytest.mark.parametrize("kernel", ["elu", "silu", "relu", "identity", "normalized"])
def test_kernels_of_linear_attention(kernel):
    mixer = make_mixer("linear", C, HEADS, {"kernel": kernel}).double()
    x = torch.randn(12, C).double()
    q, k, v = (f(x).view(12, HEADS, -1) for f in (mixer.lin_q, mixer.lin_k, mixer.lin_v))
    weights = torch.einsum("nhf,mhf->nmh", mixer.features(q, False), mixer.features(k, True))
    sums = weights.sum(1, keepdim=True)
    sums = sums + 1e-6 * torch.where(sums < 0, -1, 1)
    for divide, below in (("weights", sums), ("points", torch.full_like(sums, 12))):
        mixer.divide = divide
        expected = mixer.lin_out(torch.einsum("nmh,mhd->nhd", weights / below, v).flatten(1))
        # Weights of either sign may nearly cancel: what is divided by their sum grows with them.
        grown = float((weights.abs().sum(1, keepdim=True) / below.abs()).max().detach())
        close(mixer(x), expected, terms=12, roundings=8 * max(grown, 1))


def test_weights_that_cancel_do_not_divide_by_zero():
    mixer = make_mixer("linear", C, HEADS, {"kernel": "identity"}).double()
    x = torch.randn(1, C).double() * torch.tensor([[1.0], [-1.0]])
    for lin in (mixer.lin_q, mixer.lin_k):
        torch.nn.init.zeros_(lin.bias)
    x.requires_grad_()
    y = mixer(x)  # the two keys cancel
    y.sum().backward()
    assert y.isfinite().all()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("linear", {"kernel": "cosine"}, "kernel must be one of elu, silu, relu"),
        ("linear", {"divide": "length"}, "divide must be 'weights' or 'points', got 'length'"),
        ("multilinear", {"num_states": 0}, "num_states must be at least 1, got 0"),
        ("transolver", {"num_latents": 3}, "'transolver' takes num_slices, got 'num_latents'"),
    ],
)
def test_one_line_says_what_is_wrong(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        make_mixer(name, C, HEADS, arguments)


@every
def test_heads_share_the_channels(name):
    if name == "ema":  # has one head
        return
    with pytest.raises(ValueError, match=r"channels must be divisible by heads, got 16 and 5"):
        make_mixer(name, C, 5, ARGS.get(name))


def test_a_transolver_is_saved(tmp_path):
    model = Transolver(2, 1, 16, 1, 2, mixer="transolver_plus", mixer_args={"num_slices": 4})
    fields = [Field("pos", name, "m") for name in "xy"]
    Surrogate(model, fields, [Field("y", "p", "Pa")]).save_pretrained(tmp_path)
    loaded, x = Surrogate.from_pretrained(tmp_path).model, torch.rand(9, 2)
    assert torch.equal(loaded.eval()(x), model.eval()(x))
