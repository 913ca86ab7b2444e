"""Compiled graphs give the values and the gradients of eager ones, for clouds of one point too.

A softmax over one point is at the edge of its formulas: its sum is 1, its score the largest. There
a derivative that a compiler takes from another formula can differ.
"""

import shutil

import pytest
import torch
from closeness import close

from flare_geo.ops import flare_attention, flare_decode, flare_encode

BATCHES = [(5, 0, 1, 17), (1, 1), (1,)]
SHAPES = [(3, 6, 4), (1, 1, 4)]  # H, M, D


def encode_decode(q, k, v, ptr, backend):
    z, lse = flare_encode(q, k, v, ptr, scale=0.7, backend=backend)
    return flare_decode(q, k, z, ptr, scale=0.7, backend=backend), z, lse


def attention(q, k, v, ptr, backend):
    return (flare_attention(q, k, v, ptr, scale=0.7, backend=backend),)


def results(run, backend, leaves, ptr):
    """Outputs and the gradients of q, k and v by name."""
    names = ["q", "k", "v"]
    leaves = [x.clone().requires_grad_() for x in leaves]
    outputs = run(*leaves, ptr, backend)
    there = [x[x.isfinite()] for x in outputs]  # lse of a cloud without points is -inf
    loss = sum((x.sin() + x.square()).sum() for x in there)
    grads = torch.autograd.grad(loss, leaves)
    return {**dict(zip(["y", "z", "lse"], outputs)), **dict(zip(names, grads, strict=True))}


@pytest.mark.parametrize("own", [False, True], ids=["one query", "a query per cloud"])
@pytest.mark.parametrize("run", [encode_decode, attention])
@pytest.mark.parametrize("backend", ["sdpa", "triton", "cpp"])
def test_values_and_gradients(backend, run, own):
    if backend == "triton":
        pytest.importorskip("triton")
    if backend == "cpp" and shutil.which("g++") is None and shutil.which("clang++") is None:
        pytest.skip("no C++ compiler here")
    dtype = torch.float64 if backend == "sdpa" else torch.float32
    for heads, latents, width in SHAPES:
        torch._dynamo.reset()
        compiled = torch.compile(run, backend="aot_eager", fullgraph=True, dynamic=True)
        for sizes in BATCHES:
            n, clouds = sum(sizes), len(sizes)
            q = torch.randn(*((clouds,) if own else ()), heads, latents, width, dtype=dtype)
            k, v = torch.randn(2, n, heads, width, dtype=dtype)
            ptr = torch.tensor([0, *sizes]).cumsum(0)
            expected = results(run, "sdpa", (q, k, v), ptr)
            found = results(compiled, backend, (q, k, v), ptr)
            # Two softmaxes and back; at one point gradients cancel that are ten times as large
            close(found, expected, terms=n, roundings=128)
