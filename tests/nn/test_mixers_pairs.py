"""Mixers whose points meet pair by pair or in order: the reference's numbers, and their limits."""

import pytest
import torch
from closeness import close
from golden import check, in_flare, load, renamed
from torch import nn

from flare_geo.nn import MIXERS, Transolver
from flare_geo.nn.block import Block
from flare_geo.nn.mixers.ema import EMAGatedAttention
from flare_geo.nn.mixers.lamo import LatentMamba, scan
from flare_geo.nn.mixers.third_order import ThirdOrderAttention
from flare_geo.nn.mixers.transolver_conv2d import PhysicsAttentionConv2d
from flare_geo.ops import make_layout
from flare_geo.testing import (
    check_clouds_are_independent,
    check_compiles,
    check_gradients,
    check_half_precision,
)

FUSED = [(r"\.(qkv|att)_proj\.", ".lin_qkv.")]
EMA = [
    (r"\.ema\.(alpha|beta|delta)_logits$", r".\1"),
    (r"\.ema\.eta$", ".eta"),
    (r"\.ema\.proj\.", ".lin_z."),
    (r"\.([qkv])_proj\.0\.", r".lin_\1."),
    (r"\.([qkv])_mlp\.0\.", r".lin_\1."),  # what RENAMES has made of it
    (r"\.gate_proj(\d)\.0\.", r".lin_g\1."),
    (r"\.([WU])h$", lambda m: f".{m[1].lower()}_h"),
    (r"\.bh$", ".b_h"),
]


@pytest.mark.parametrize(
    ("name", "mixer"), [("transformer", "softmax"), ("third_order", "third_order")]
)
def test_reference_numbers(name, mixer):
    golden = load(name)
    check(golden, in_flare(golden, mixer, convert=lambda state: renamed(state, FUSED)))


def test_reference_numbers_of_linformer():
    golden = load("linformer")
    names = [*FUSED, (r"\.E_([kv])$", r".e_\1")]
    model = in_flare(
        golden,
        "linformer",
        convert=lambda state: renamed(state, names),
        seq_len=golden.config["seq_len"],
        num_latents=golden.config["k"],
    )
    check(golden, model)
    longer = torch.randn(golden.config["seq_len"] + 1, golden.config["in_dim"])
    with pytest.raises(ValueError, match=r"at most seq_len=\d+ points, got one of \d+"):
        model(longer)


def test_reference_numbers_of_ema():
    golden = load("ema")
    model = in_flare(golden, "ema", convert=lambda state: renamed(state, EMA), clip=True)
    check(golden, model)


def test_a_cloud_that_is_no_grid():
    mixer = PhysicsAttentionConv2d(8, 2, grid=(4, 5), num_slices=3)
    message = (
        "each cloud must be a grid of 4 x 5 = 20 points, got one of 19; use mixer 'transolver'"
    )
    with pytest.raises(ValueError, match=message):
        mixer(torch.randn(39, 8), torch.tensor([0, 20, 39]))
    with pytest.raises(ValueError, match="grid must be the numbers of rows and columns"):
        PhysicsAttentionConv2d(8, 2, grid=[4])
    with pytest.raises(ValueError, match="it can be neither chunked nor sharded"):
        _ = Block(mixer, nn.Identity(), nn.Identity(), nn.Identity()).sum_mixer


def test_properties_on_grids():
    torch.manual_seed(0)
    mixer = PhysicsAttentionConv2d(8, 2, grid=(3, 2), num_slices=3).double().eval()
    check_clouds_are_independent(mixer, 8, (6, 6, 6), tolerance=1e-12, dtype=torch.float64)
    check_gradients(mixer, 8, (6, 6))
    check_compiles(mixer, 8, ((6, 6), (6, 6, 6)), tolerance=1e-12, dtype=torch.float64)
    check_half_precision(mixer, 8, (6, 6))
    assert mixer(torch.randn(0, 8).double(), torch.tensor([0])).shape == (0, 8)
    turned = torch.randn(6, 8).double()
    assert not torch.allclose(mixer(turned).flip(0), mixer(turned.flip(0)), atol=1e-3)


def test_size_of_transolver_on_a_grid():
    """That of the published comparison for airfoil and pipe."""
    model = Transolver(2, 1, mixer="transolver_conv2d", mixer_args={"grid": (129, 129)})
    assert round(sum(p.numel() for p in model.parameters()), -4) == 2_810_000


def test_the_state_space_model_is_a_recurrence():
    torch.manual_seed(0)
    decay, x = torch.rand(2, 13, 4, 3), torch.randn(2, 13, 4, 3)
    h, expected = torch.zeros(2, 4, 3), []
    for g in range(13):
        h = decay[:, g] * h + x[:, g]
        expected.append(h)
    close(scan(decay, x), torch.stack(expected, 1), terms=13)


def test_the_state_space_model_goes_both_ways():
    torch.manual_seed(0)
    mixer = LatentMamba(8, 2, num_slices=6).double()
    slices = torch.randn(1, 2, 6, 4, dtype=torch.float64, requires_grad=True)
    for place in (0, 3, 5):  # each slice is reached from all
        (grad,) = torch.autograd.grad(mixer.mix(slices)[:, :, place].square().sum(), slices)
        assert (grad.abs().sum((0, 1, 3)) > 1e-9).all()
    there = mixer.there(slices.transpose(1, 2).flatten(2).repeat(1, 1, 2))
    assert torch.autograd.grad(there[:, 2].sum(), slices)[0][:, :, 3:].abs().max() == 0


def test_the_scan_is_the_recurrence():
    torch.manual_seed(0)
    mixer = EMAGatedAttention(6).double()
    u = torch.randn(300, 6, dtype=torch.float64)
    a, d, b = (t.sigmoid() for t in (mixer.alpha, mixer.delta, mixer.beta))
    expected = []
    for way in (u, u.flip(0)):
        state, rows = torch.zeros(6, 4, dtype=torch.float64), []
        for row in way:
            state = (1 - a * d) * state + a * b * row.unsqueeze(-1)
            rows.append((mixer.eta * state).sum(-1))
        expected.append(torch.stack(rows))
    expected = torch.cat([expected[0], expected[1].flip(0)], dim=-1)
    whole, half = make_layout(None, 300, u.device), make_layout(None, 50, u.device)
    close(mixer._averages(u, whole), expected, terms=300)
    clipped = EMAGatedAttention(6, clip=True).double()
    clipped.load_state_dict(mixer.state_dict())
    short = clipped._averages(u[:50], half)
    close(short, mixer._averages(u[:50], half), terms=50)
    assert not torch.allclose(
        clipped._averages(u, whole), expected, atol=1e-2
    )  # it no longer decays


def test_a_cloud_in_pieces_is_the_same(monkeypatch):
    torch.manual_seed(0)
    mixer = ThirdOrderAttention(8, 2).double()
    x = torch.randn(13, 8, dtype=torch.float64, requires_grad=True)
    y = mixer(x)
    (grad,) = torch.autograd.grad(y.square().sum(), x)
    monkeypatch.setattr("flare_geo.ops.third_order.CHUNK", 2 * 13 * 13 * 4)
    pieces = mixer(x)
    (grad_pieces,) = torch.autograd.grad(pieces.square().sum(), x)
    close([pieces, grad_pieces], [y, grad], terms=13 * 13)


@pytest.mark.parametrize("name", ["softmax", "linformer", "third_order", "ema", "gnot"])
def test_heads_must_divide_the_channels(name):
    if name == "ema":
        assert MIXERS[name](9, heads=4)(torch.randn(5, 9)).shape == (5, 9)
        return
    with pytest.raises(ValueError, match="channels must be divisible by heads, got 9 and 4"):
        MIXERS[name](9, heads=4)
