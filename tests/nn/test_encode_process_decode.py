"""GNOT, LNO, Perceiver IO, UPT and anchored attention."""

import re

import pytest
import torch
from closeness import close
from golden import check, load, renamed

from flare_geo.distributed import share_of
from flare_geo.nn import GNOT, LNO, UPT, AnchorUPT, PerceiverIO, Surrogate
from flare_geo.nn.flare.official import RENAMES
from flare_geo.nn.models import MODELS
from flare_geo.nn.models.anchor import rotate
from flare_geo.nn.models.super_nodes import choose_points, nearest_points
from flare_geo.nn.surrogate import Field
from flare_geo.nn.surrogate.streaming import answer, stream
from flare_geo.ops import make_layout
from flare_geo.testing import (
    check_clouds_are_independent,
    check_half_precision,
    check_permutation_equivariance,
)

LINEAR_PAIR = [(r"\.linear_pre\.0\.", ".0."), (r"\.linear_post\.", ".2.")]
GNOT_NAMES = [
    *LINEAR_PAIR,
    (r"^preprocess_x\.", "embed_x."),
    (r"^preprocess_z\.", "embed_f."),
    (r"^fc1\.", "head.0."),
    (r"^fc2\.", "head.2."),
    (r"^(blocks\.\d+)\.", r"\1.conv."),
    (r"\.ln(\d)\.", lambda m: f".norms.{int(m[1]) - 1}."),
    (r"\.(self|cross)attn\.", r".\1_attn."),
    (r"\.key\.", ".lin_k."),
    (r"\.query\.", ".lin_q."),
    (r"\.value\.", ".lin_v."),
    (r"\.proj\.", ".lin_out."),
    (r"\.moe_mlp(\d)\.", r".experts\1."),
    (r"\.gatenet\.", ".gate."),
]
LNO_NAMES = [
    (r"^(trunk|branch)_projector\.", r"\1."),
    (r"^attention_projector\.", "blocks.0.conv.scores."),
    (r"^attn_blocks\.", "blocks.0.conv.blocks."),
    (r"^out_mlp\.", "head."),
    (r"\.input\.", ".layers.0."),
    (r"\.hidden\.(\d+)\.", lambda m: f".layers.{int(m[1]) + 1}."),
    (r"\.output\.", ".lin_out."),
    (r"\.self_attn\.proj\.", ".conv.lin_out."),
    (r"\.ln(\d)\.", r".norm\1."),
]
PERCEIVER_NAMES = [
    (r"^encoder\.latent_q$", "blocks.0.conv.q"),
    (r"^encoder\.ln\.", "blocks.0.conv.pool.norm."),
    (r"^encoder\.([kv]|out)_proj\.", r"blocks.0.conv.pool.lin_\1."),
    (r"^decoder\.ln1\.", "blocks.0.conv.read.norm_z."),
    (r"^decoder\.ln2\.", "blocks.0.conv.read.norm_h."),
    (r"^decoder\.([qkv]|out)_proj\.", r"blocks.0.conv.read.lin_\1."),
    (r"\.att\.qkv_proj\.", ".att.lin_qkv."),
    *RENAMES,
    (r"^(blocks\.\d+\.(conv|mlp|norm\d)\.)(?!(q$|pool|read))", r"blocks.0.conv.\1"),
]
SMALL = {
    "gnot": lambda: GNOT(3, 2, 16, 2, 4),
    "lno": lambda: LNO(3, 2, 16, 2, 4, 8),
    "perceiver_io": lambda: PerceiverIO(3, 2, 16, 2, 4, 8, init="default"),
    "perceiver_io, cross": lambda: PerceiverIO(3, 2, 16, 2, 4, 8, init="default", cross_attn=True),
}
PICKED = {
    "upt": lambda **options: UPT(
        3, 2, 16, 1, 4, 6, encoder_layers=1, num_super_nodes=5, neighbours=3, **options
    ),
    "anchor": lambda **options: AnchorUPT(3, 2, 32, 2, 4, 5, **options),
}


def fused(state):
    """The three linears of LNO's attention as one."""
    found = {}
    for name, value in state.items():
        if match := re.search(r"\.self_attn\.W([qkv])\.", name):
            start, end = name[: match.start()], name[match.end() :]
            parts = [state[f"{start}.self_attn.W{letter}.{end}"] for letter in "qkv"]
            found[f"{start}.conv.lin_qkv.{end}"] = torch.cat(parts)
        else:
            found[name] = value
    return found


def test_reference_numbers_of_gnot():
    golden = load("gnot")
    c = golden.config
    model = GNOT(
        c["space_dim"] + c["fun_dim"],
        c["out_dim"],
        c["n_hidden"],
        c["n_layers"],
        c["n_heads"],
        num_experts=c["n_experts"],
        mlp_ratio=c["mlp_ratio"],
    )
    model.load_state_dict(renamed(golden.params, GNOT_NAMES))
    check(golden, model)


def test_reference_numbers_of_lno():
    golden = load("lno")
    c = golden.config
    model = LNO(
        c["x_dim"],
        c["y2_dim"],
        c["n_dim"],
        c["n_block"],
        c["n_head"],
        c["n_mode"],
        mlp_layers=c["n_layer"],
    )
    model.load_state_dict(renamed(fused(golden.params), LNO_NAMES))
    check(golden, model)


def test_reference_numbers_of_perceiver_io():
    golden = load("perceiver_io")
    c = golden.config
    model = PerceiverIO(
        c["in_dim"],
        c["out_dim"],
        c["channel_dim"],
        c["num_blocks"],
        c["num_heads"],
        c["num_latents"],
        mlp_ratio=golden.params["blocks.0.mlp.fc1.weight"].shape[0] / c["channel_dim"],
    )
    model.load_state_dict(renamed(golden.params, PERCEIVER_NAMES))
    names = {"encoder.latent_q": "blocks.0.conv.q"}
    check(golden, model, own_name=names.__getitem__)


def count(model):
    return sum(p.numel() for p in model.parameters())


def test_numbers_of_parameters():
    """Those of the published comparison, in thousands."""
    assert count(GNOT(2, 1)) // 10_000 == 487
    assert round(count(PerceiverIO(2, 1)), -3) == 1_865_000
    elasticity = LNO(2, 1, 192, mlp_layers=3)
    assert round(count(elasticity), -4) == 1_830_000
    assert round(count(LNO(3, 1)), -4) == 760_000
    assert round(count(LNO(2, 1, num_layers=8)), -4) == 1_290_000


@pytest.mark.parametrize("name", SMALL)
def test_properties(name):
    torch.manual_seed(0)
    model = SMALL[name]().double()
    check_clouds_are_independent(model, 3, dtype=torch.float64, tolerance=1e-12)
    check_permutation_equivariance(model, 3, dtype=torch.float64, tolerance=1e-12)
    x = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)
    ptr = torch.tensor([0, 0, 1, 4, 7, 7])
    assert torch.autograd.gradcheck(lambda x: model(x, ptr), x)
    parameters = dict(model.named_parameters())
    for grad in torch.autograd.grad(model(x, ptr).square().sum(), parameters.values()):
        assert grad.isfinite().all()


@pytest.mark.parametrize("name", SMALL)
def test_streamed_and_answered_anywhere(name):
    torch.manual_seed(0)
    model = SMALL[name]().eval()
    x, ptr = torch.randn(300, 3), torch.tensor([0, 120, 120, 121, 300])
    with torch.no_grad():
        whole = model(x, ptr)
    y = torch.empty_like(whole)
    states = stream(model, x.__getitem__, y.__setitem__, ptr, chunk_size=50)
    close(y, whole, terms=179, roundings=16)
    some = torch.tensor([3, 250, 299])
    there = answer(model, x[some], states, torch.tensor([0, 1, 1, 1, 3]))
    close(there, whole[some], terms=179, roundings=16)


@pytest.mark.parametrize("name", SMALL)
def test_spread_over_two_ranks(name):
    """Each rank's sums are joined with those of the other, here by hand."""
    torch.manual_seed(0)
    model = SMALL[name]().double()
    x, ptr = torch.randn(40, 3, dtype=torch.float64), torch.tensor([0, 25, 25, 26, 40])
    with torch.no_grad():
        whole = model(x, ptr)
        shares = [share_of(ptr, rank, 2) for rank in range(2)]
        h = [model.begin(x[points]) for points, _ in shares]
        for block in model.blocks:
            states = []
            for merge in block.sum_mixer.merges:
                parts = [
                    block.encode(part, own, states)
                    for part, (_, own) in zip(h, shares, strict=True)
                ]
                states.append(merge(*parts))
            h = [block.decode(part, states, own) for part, (_, own) in zip(h, shares, strict=True)]
    for part, (points, _) in zip(h, shares, strict=True):
        close(model.end(part), whole[points], terms=25, roundings=32)


@pytest.mark.parametrize("name", PICKED)
def test_properties_of_models_that_pick_points(name):
    torch.manual_seed(0)
    model = PICKED[name]().double()
    check_clouds_are_independent(model, 3, dtype=torch.float64, tolerance=1e-12)
    check_clouds_are_independent(PICKED[name](), 3, tolerance=1e-5)
    x = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)
    ptr = torch.tensor([0, 0, 1, 4, 7, 7])
    assert torch.autograd.gradcheck(lambda x: model(x, ptr), x)
    parameters = dict(model.named_parameters())
    for grad in torch.autograd.grad(model(x, ptr).square().sum(), parameters.values()):
        assert grad.isfinite().all()
    for ptr in ([0], [0, 0]):
        assert model(x[:0].detach(), torch.tensor(ptr)).shape == (0, 2)


@pytest.mark.parametrize("name", PICKED)
def test_answers_at_any_points(name):
    torch.manual_seed(0)
    model = PICKED[name]().double()
    x, ptr = torch.randn(50, 3, dtype=torch.float64), torch.tensor([0, 20, 20, 50])
    width = 3 if name == "upt" else model.in_channels
    with torch.no_grad():
        whole = model(x, ptr)
        some, some_ptr = torch.tensor([3, 7, 49]), torch.tensor([0, 2, 2, 3])
        there = model(x, ptr, queries=x[some, :width], queries_ptr=some_ptr)
        close(there, whole[some], terms=30, roundings=32)
        state = model.encode(x, ptr)
        portions = [
            model.decode(state, x[at, :width], at_ptr)
            for at, at_ptr in (
                (slice(0, 30), torch.tensor([0, 20, 20, 30])),
                (slice(30, 50), torch.tensor([0, 0, 0, 20])),
            )
        ]
    close(torch.cat(portions), whole, terms=30, roundings=32)
    with pytest.raises(ValueError, match="queries_ptr must name the 3 clouds encoded, got 2"):
        model(x, ptr, queries=x[:, :width], queries_ptr=torch.tensor([0, 20, 50]))


@pytest.mark.parametrize("name", PICKED)
def test_the_choice_of_points(name):
    """By the seed alone, or anew each time in training."""
    torch.manual_seed(0)
    model, other = PICKED[name](), PICKED[name](seed=1)
    other.load_state_dict(model.state_dict())
    x = torch.randn(60, 3)
    assert torch.equal(model(x), model(x))
    assert not torch.allclose(model(x), other(x))
    model.generator = torch.Generator().manual_seed(0)
    assert not torch.allclose(model(x), model(x))
    assert torch.equal(model.eval()(x), model(x))


def test_dimensions_of_the_position():
    with pytest.raises(ValueError, match="dim must be 1 to in_channels=2, got 3"):
        UPT(2, 1, dim=3)
    with pytest.raises(ValueError, match="at least 2 dim = 6 for the rotary embedding, got 16 / 4"):
        AnchorUPT(3, 1, 16, heads=4)
    model = UPT(4, 1, 16, 1, 4, 6, dim=2)  # a field of the position, here the third and fourth
    queries = torch.randn(5, 2)
    assert model(torch.randn(20, 4), queries=queries).shape == (5, 1)


def test_points_near_a_node(monkeypatch):
    torch.manual_seed(0)
    layout = make_layout(torch.tensor([0, 30, 30, 32]), 32, torch.device("cpu"))
    pos = torch.randn(32, 2)
    nodes, node_layout = choose_points(layout, 6)
    assert node_layout.sizes == (6, 0, 2)
    assert len(nodes.unique()) == 8
    expected = {}
    for radius in (None, 0.5):
        expected[radius] = set()
        for place, node in enumerate(nodes.tolist()):
            cloud = range(30) if node < 30 else range(30, 32)
            by_distance = sorted(cloud, key=lambda i: float((pos[i] - pos[node]).norm()))
            expected[radius] |= {
                (i, place)
                for i in by_distance[:4]
                if radius is None or (pos[i] - pos[node]).norm() <= radius
            }
    assert len(expected[0.5]) < len(expected[None]) == 6 * 4 + 2 * 2
    for chunk in (2**24, 64):
        monkeypatch.setattr("flare_geo.nn.models.super_nodes.CHUNK", chunk)
        for radius, pairs in expected.items():
            points, owners = nearest_points(pos, layout, nodes, node_layout, 4, radius)
            assert set(zip(points.tolist(), owners.tolist(), strict=True)) == pairs
            assert (owners.diff() >= 0).all()


def test_rotated_scores_depend_on_differences_of_positions():
    torch.manual_seed(0)
    q, k = torch.randn(2, 5, 2, 14, dtype=torch.float64)
    pos, frequencies = torch.randn(5, 3, dtype=torch.float64), torch.tensor([1.0, 10.0])

    def scores(pos):
        turned = [rotate(x, pos, frequencies.double()) for x in (q, k)]
        return torch.einsum("nhd,mhd->hnm", *turned)

    moved = scores(pos + torch.randn(3).double())
    close(moved, scores(pos), terms=14, roundings=80)  # of angles to 30
    assert not torch.allclose(scores(pos), scores(2 * pos), atol=1e-1)


@pytest.mark.parametrize("name", ["gnot", "lno", "perceiver_io", *PICKED])
def test_saved_and_loaded(name, tmp_path):
    torch.manual_seed(0)
    model = (SMALL | PICKED)[name]()
    assert MODELS[type(model).__name__] is type(model)
    fields = [Field("pos", axis, "m") for axis in "xyz"]
    surrogate = Surrogate(model, fields, [Field("y", "u", "1"), Field("y", "v", "1")])
    surrogate.save_pretrained(tmp_path)
    x = torch.randn(40, 3)
    loaded = Surrogate.from_pretrained(tmp_path)
    assert torch.equal(loaded.model(x), model.eval()(x))


@pytest.mark.parametrize("name", [*SMALL, *PICKED])
def test_half_precision(name):
    torch.manual_seed(0)
    check_half_precision((SMALL | PICKED)[name](), 3)
