"""An explicit backend is honoured or refused in one line; `auto` takes the first that fits."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from closeness import close

from flare_geo.ops import (
    dispatch,
    flare_attention,
    reference,
    residual_mlps,
    triple_attention,
    triple_state,
)
from flare_geo.ops.dispatch import TABLE, Backend, select, takes

DOCUMENTED = {
    "flare": flare_attention,
    "triple": triple_attention,
    "residual_mlps": residual_mlps,
}


def attend(backend, dtype=torch.float32, width=8):
    q = torch.randn(2, 4, width, dtype=dtype)
    k = torch.randn(10, 2, width, dtype=dtype)
    return flare_attention(q, k, k, backend=backend)


def triple(backend, dtype=torch.float32, width=4, last=None):
    k1, v = torch.randn(2, 10, 2, width, dtype=dtype)
    return triple_state(k1, v, torch.randn(10, 2, last or width, dtype=dtype), backend=backend)


def mlps(backend, dtype=torch.float32, width=16, act="silu"):
    weight, bias = torch.randn(width, width, dtype=dtype), torch.randn(width, dtype=dtype)
    x = torch.randn(5, width, dtype=dtype)
    return residual_mlps(x, [[weight] * 2], [[bias] * 2], act=act, backend=backend)[0]


CALLS = {"flare": attend, "triple": triple, "residual_mlps": mlps}
TRITON = "backend 'triton' computes float16, bfloat16 and float32, got torch.float64; use backend="


@pytest.mark.parametrize(
    ("op", "backend", "options", "message"),
    [
        ("flare", "triton", {"dtype": torch.float64}, f"{TRITON}'sdpa'"),
        (
            "flare",
            "triton",
            {"width": 256},
            "backend 'triton' takes D up to 128, got 256; use backend='sdpa'",
        ),
        (
            "flare",
            "cpp",
            {"dtype": torch.float64},
            "backend 'cpp' computes float32, got torch.float64; use backend='sdpa'",
        ),
        (
            "flare",
            "cpp",
            {"width": 12},
            "backend 'cpp' takes D = 4, 8, 16, 32, got 12; use backend='sdpa'",
        ),
        ("triple", "triton", {"dtype": torch.float64}, f"{TRITON}'torch'"),
        (
            "triple",
            "triton",
            {"width": 33},
            "backend 'triton' takes D up to 32, got 33; use backend='torch'",
        ),
        (
            "triple",
            "triton",
            {"last": 5},
            "backend 'triton' needs one width D, got (4, 4, 5); use backend='torch'",
        ),
        ("residual_mlps", "triton", {"dtype": torch.float64}, f"{TRITON}'torch'"),
        (
            "residual_mlps",
            "triton",
            {"width": 48},
            "backend 'triton' takes C = 16, 32, 64, 128, got 48; use backend='torch'",
        ),
        (
            "residual_mlps",
            "cpp",
            {"dtype": torch.float64},
            "backend 'cpp' computes float32, got torch.float64; use backend='torch'",
        ),
        (
            "residual_mlps",
            "cpp",
            {"width": 20},
            "backend 'cpp' takes C = 16, 32, 48, ..., got 20; use backend='torch'",
        ),
        (
            "residual_mlps",
            "cpp",
            {"act": "gelu"},
            "backend 'cpp' computes gelu_tanh and silu, got gelu; use backend='torch'",
        ),
    ],
)
def test_a_backend_that_cannot_be_honoured_raises(op, backend, options, message):
    if backend == "triton":
        pytest.importorskip("triton")
    error = TypeError if "got torch.float64" in message else ValueError
    with pytest.raises(error) as caught:
        CALLS[op](backend, **options)
    assert str(caught.value) == message


def test_autocast_is_refused_by_kernels_that_compute_float32():
    x = torch.randn(5, 16)
    assert takes("residual_mlps", "cpp", x, "silu")
    with torch.autocast("cpu", torch.bfloat16):
        assert not takes("residual_mlps", "cpp", x, "silu")
        with pytest.raises(ValueError, match="computes float32, got a call under autocast"):
            mlps("cpp")


@pytest.mark.parametrize("op", TABLE)
def test_an_unknown_backend_raises_and_lists_those_there_are(op):
    with pytest.raises(ValueError) as caught:
        CALLS[op]("nonsense")
    names = ", ".join(TABLE[op])
    assert str(caught.value) == f"backend must be one of auto, {names}, got 'nonsense'"


def test_without_triton_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setattr(dispatch, "HAS_TRITON", False)
    with pytest.raises(ValueError, match=r"pip install 'flare-geo\[triton\]'.*backend='sdpa'"):
        attend("triton")


@pytest.mark.parametrize("op", TABLE)
def test_every_backend_is_documented(op):
    for name in TABLE[op]:
        assert f'``"{name}"``' in DOCUMENTED[op].__doc__


def test_auto_on_a_cpu_is_plain_torch_and_triton_by_name_agrees():
    pytest.importorskip("triton")
    for op, call in (("flare", [torch.ones(1)]), ("triple", [torch.ones(1), (1, 1, 1)])):
        assert select(op, "auto", *call) == list(TABLE[op])[-1]
    for call in CALLS.values():
        results = []
        for backend in ("auto", "triton"):
            torch.manual_seed(0)
            results.append(call(backend))
        close(*results, terms=40)


@pytest.mark.parametrize(
    ("op", "dtype", "call", "name"),
    [
        ("flare", torch.float32, (), "triton"),
        ("flare", torch.float64, (), "sdpa"),
        ("triple", torch.bfloat16, ((8, 8, 8),), "triton"),
        ("triple", torch.bfloat16, ((8, 8, 4),), "torch"),
        ("residual_mlps", torch.bfloat16, ("gelu",), "triton"),
        ("residual_mlps", torch.float32, ("gelu",), "torch"),
    ],
)
def test_auto_on_cuda_is_the_first_that_fits(op, dtype, call, name, monkeypatch):
    monkeypatch.setattr(dispatch, "HAS_TRITON", True)
    x = SimpleNamespace(is_cuda=True, dtype=dtype, shape=(5, 64), device="cuda")
    assert select(op, "auto", x, *call) == name


def test_a_new_backend_is_one_row(monkeypatch):
    def refusal(q):
        return (
            dispatch.Refusal(ValueError, "takes D = 8", q.shape[-1]) if q.shape[-1] != 8 else None
        )

    calls = []
    toy = SimpleNamespace(attention=lambda *a: calls.append(1) or reference.attention(*a))
    monkeypatch.setitem(TABLE["flare"], "toy", Backend(lambda: toy, refusal))
    assert attend("toy").shape == (10, 2, 8)
    assert calls == [1]
    with pytest.raises(ValueError, match="backend 'toy' takes D = 8, got 4"):
        attend("toy", width=4)


def test_the_choice_is_traced_without_a_graph_break():
    for op, call in CALLS.items():
        for backend in ("auto", list(TABLE[op])[-1]):
            compiled = torch.compile(call, backend="aot_eager", fullgraph=True)
            assert compiled(backend).isfinite().all()


def test_kernels_are_loaded_when_they_are_wanted():
    code = (
        "import sys, flare_geo.ops; "
        "print([m for m in sys.modules if m.startswith(('flare_geo.ops.triton', "
        "'flare_geo.ops.cpp', 'flare_geo.ops.varlen', 'triton'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]", done.stdout
