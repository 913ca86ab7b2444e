"""Causal FLARE: the definition, chunks of any length, one point at a time, states joined."""

import numpy as np
import pytest
import torch
from closeness import close
from golden import FOLDER

from flare_geo.ops import (
    causal_flare_attention,
    causal_flare_prefill,
    causal_flare_step,
    flare_attention,
    merge_causal_states,
)

SIZES = (0, 9, 1, 9, 40, 0)
CHUNKS = (1, 4, 7, 23, 64)


@pytest.fixture(scope="module")
def golden():
    with np.load(FOLDER / "causal_flare.npz") as file:
        return {key: torch.tensor(file[key]) for key in file.files}


def definition(q, k, v, scale=1.0, q_decode=None, k_decode=None):
    """Three lines of the docstring, for one cloud."""
    scores = scale * torch.einsum("hmd,nhd->hnm", q, k)
    decode = (
        scores if q_decode is None else scale * torch.einsum("hmd,nhd->hnm", k_decode, q_decode)
    )
    ys = []
    for t in range(len(k)):
        z = torch.einsum("hnm,nhe->hme", scores[:, : t + 1].softmax(dim=1), v[: t + 1])
        ys.append(torch.einsum("hm,hme->he", decode[:, t].softmax(dim=-1), z))
    return torch.stack(ys) if ys else torch.zeros_like(v)


def problem(dtype=torch.float64, grown=1.0, sizes=SIZES):
    generator = torch.Generator().manual_seed(3)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=dtype)

    n = sum(sizes)
    q, k, v = draw(2, 5, 4), grown * draw(n, 2, 4), draw(n, 2, 3)
    return q, k, v, torch.tensor([0, *sizes]).cumsum(0), draw(n, 2, 6), draw(2, 5, 6)


@pytest.mark.parametrize("chunk_size", CHUNKS)
def test_reference_numbers(golden, chunk_size):
    q, k, v = (golden[x].clone().requires_grad_() for x in "qkv")
    scale = float(golden["scale"])
    y, (mu, d, u) = causal_flare_prefill(q, k, v, scale=scale, chunk_size=chunk_size)
    y.square().sum().backward()
    found = {
        "y": y, "grad_q": q.grad, "grad_k": k.grad, "grad_v": v.grad,
        "state_mu": mu[0], "state_d": d[0], "state_U": u[0],
    }  # fmt: skip
    close(found, {name: golden[name] for name in found}, terms=len(k), roundings=16)


@pytest.mark.parametrize("chunk_size", CHUNKS)
def test_reference_numbers_of_the_options(golden, chunk_size):
    q, k, v = (golden[x] for x in "qkv")
    run = {"scale": float(golden["scale"]), "chunk_size": chunk_size}
    half = causal_flare_attention(q, k, v, **(run | {"scale": 0.5}))
    close(half, golden["y_scale_half"], terms=len(k))
    other = {"q_decode": golden["q_dec"], "k_decode": golden["k_dec"]}
    separate = causal_flare_attention(q, k, v, **run, **other)
    close(separate, golden["y_separate_decode"], terms=len(k))
    large = causal_flare_attention(q, golden["k_large"], v, **run)
    largest = float(torch.einsum("hmd,nhd->hnm", q, golden["k_large"]).abs().max())
    close(large, golden["y_large"], terms=len(k), roundings=largest)  # as scores are rounded
    last = causal_flare_attention(q, k, v, **run)[-1]
    close(last, golden["y_noncausal"][-1], terms=len(k))


@pytest.mark.parametrize("chunk_size", [1, 3, 64])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("grown", [1, 300])
def test_ragged_clouds_are_sequences_of_their_own(dtype, grown, chunk_size):
    """Also where the scores span thousands: values and all gradients, and nothing overflows."""
    q, k, v, ptr, q_decode, k_decode = problem(dtype, grown)
    given = [x.requires_grad_() for x in (q, k, v, q_decode, k_decode)]
    for other in ({}, {"q_decode": q_decode, "k_decode": k_decode}):
        inputs = given if other else given[:3]
        y = causal_flare_attention(q, k, v, ptr, scale=0.7, chunk_size=chunk_size, **other)
        exact = [x.detach().double().requires_grad_() for x in inputs]
        split = [x.split(SIZES) for x in (*exact[1:3], *exact[3:4])]
        clouds = [definition(exact[0], *c[:2], 0.7, *c[2:], *exact[4:]) for c in zip(*split)]
        weight = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).view_as(y)
        found = torch.autograd.grad((y * weight.to(dtype)).sum(), inputs)
        expected = torch.autograd.grad((torch.cat(clouds) * weight).sum(), exact)
        # A score of 300 times the usual size is rounded by that much, and its exponential is.
        close(y, torch.cat(clouds), terms=max(SIZES), roundings=8 * grown)
        close(found, expected, terms=max(SIZES), roundings=16 * grown)


def test_one_point_at_a_time_is_the_same():
    q, k, v, _, q_decode, k_decode = problem(grown=5.0, sizes=(30, 30))
    ptr = torch.tensor([0, 30, 60])
    other = {"q_decode": q_decode, "k_decode": k_decode}
    expected, last = causal_flare_prefill(q, k, v, ptr, **other)
    state, ys = None, []
    for t in range(30):
        at = torch.tensor([t, 30 + t])
        now = {"q_decode": q_decode[at], "k_decode": k_decode}
        y, state = causal_flare_step(q, k[at], v[at], state, **now)
        ys.append(y)
    close(torch.stack(ys, dim=1).flatten(0, 1), expected, terms=30, roundings=40)  # scores to 50
    for name, a, b in zip(("mu", "d", "u"), state, last, strict=True):
        close({name: a}, {name: b}, terms=30, roundings=40)


def test_states_of_parts_join_and_sequences_go_on():
    q, k, v, *_ = problem(grown=20.0, sizes=(50,))
    whole, last = causal_flare_prefill(q, k, v, chunk_size=8)
    parts = [slice(0, 0), slice(0, 13), slice(13, 14), slice(14, 50)]
    states = [causal_flare_prefill(q, k[at], v[at])[1] for at in parts]
    left = merge_causal_states(merge_causal_states(*states[:2]), merge_causal_states(*states[2:]))
    for found in (merge_causal_states(*states), left, merge_causal_states(states[0], last)):
        for name, a, b in zip(("mu", "d", "u"), found, last, strict=True):
            close({name: a}, {name: b}, terms=50, roundings=160)  # scores to 200
    empty = merge_causal_states(states[0], states[0])
    assert empty[0].isneginf().all()
    assert not empty[1].any()
    state, ys = None, []
    for at in parts:
        y, state = causal_flare_prefill(q, k[at], v[at], state=state)
        ys.append(y)
    close(torch.cat(ys), whole, terms=50, roundings=160)


def test_gradients():
    q, k, v, ptr, *_ = problem(sizes=(0, 1, 6))
    inputs = [x.requires_grad_() for x in (q, k, v)]
    run = lambda q, k, v: causal_flare_prefill(q, k, v, ptr, chunk_size=3)  # noqa: E731
    assert torch.autograd.gradcheck(lambda *x: run(*x)[0], inputs)

    def encoding(*inputs):  # of no point at all z is 0 / 0 and the logarithm -inf
        mu, d, u = (tensor[1:] for tensor in run(*inputs)[1])
        return u / d.unsqueeze(-1), mu + d.log()

    assert torch.autograd.gradcheck(encoding, inputs)


def test_the_last_point_has_seen_all():
    q, k, v, *_ = problem(sizes=(40,))
    y = causal_flare_attention(q, k[..., :4], torch.cat([v, v[..., :1]], -1), chunk_size=16)
    close(y[-1], flare_attention(q, k, torch.cat([v, v[..., :1]], -1))[-1], terms=40)


def test_half_precision_is_rounded_once():
    q, k, v, ptr, *_ = problem(torch.bfloat16)
    y = causal_flare_attention(q, k, v, ptr)
    assert y.dtype == torch.bfloat16
    exact = causal_flare_attention(q.double(), k.double(), v.double(), ptr)
    close(y, exact, roundings=2)  # eps: one rounding of the result, half of it either way
    with torch.autocast("cpu", torch.bfloat16):
        mixed, state = causal_flare_prefill(q.float(), k.float(), v.float(), ptr)
    close(mixed, exact, terms=max(SIZES))
    assert {tensor.dtype for tensor in state} == {torch.float32}
    nothing = causal_flare_prefill(q, k[:0], v[:0], torch.tensor([0]))
    assert nothing[0].shape == (0, 2, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q": torch.zeros(2, 0, 4)}, r"q must be \[H, M, D\] with M > 0"),
        ({"k": torch.zeros(9, 2, 5)}, r"k must be \[N, H=2, D=4\]"),
        ({"v": torch.zeros(8, 2, 5)}, r"v must be \[N=9, H=2, E\]"),
        ({"v": torch.zeros(9, 2, 5).half()}, "share one floating dtype"),
        ({"chunk_size": 0}, "chunk_size must be at least 1, got 0"),
        ({"q_decode": torch.zeros(9, 2, 5)}, "both q_decode and k_decode"),
        ({"q_decode": torch.zeros(9, 2, 5), "k_decode": torch.zeros(2, 3, 4)}, "q_decode must be"),
        ({"state": (torch.zeros(1), torch.zeros(1), torch.zeros(1))}, "state must be"),
        ({"ptr": torch.tensor([0, 3])}, "ptr must end at N=9, got 3"),
    ],
)
def test_bad_input_is_one_line(change, message):
    good = {"q": torch.zeros(2, 3, 4), "k": torch.zeros(9, 2, 4), "v": torch.zeros(9, 2, 5)}
    with pytest.raises(ValueError, match=message) as caught:
        causal_flare_prefill(**(good | change))
    assert "\n" not in str(caught.value)
