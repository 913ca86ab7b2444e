"""Attention of all pairs of points, against its definition."""

import pytest
import torch
from closeness import close

from flare_geo.ops import pairwise_attention

RAGGED = ((5, 0, 1, 9, 4), (3, 2, 6, 0, 1))


def definition(q, k, v, ptr, kv_ptr, scale):
    rows = []
    for b in range(len(ptr) - 1):
        keys, values = (x[kv_ptr[b] : kv_ptr[b + 1]] for x in (k, v))
        for row in q[ptr[b] : ptr[b + 1]]:
            weights = (scale * torch.einsum("hd,mhd->mh", row, keys)).softmax(dim=0)
            rows.append(torch.einsum("mh,mhd->hd", weights, values))
    return torch.stack(rows)


def sample(sizes, kv_sizes):
    torch.manual_seed(0)
    ptr, kv_ptr = (torch.tensor([0, *s]).cumsum(0) for s in (sizes, kv_sizes))
    q = torch.randn(sum(sizes), 2, 4, dtype=torch.float64, requires_grad=True)
    k, v = (
        torch.randn(sum(kv_sizes), 2, d, dtype=torch.float64, requires_grad=True) for d in (4, 3)
    )
    return (q, k, v), ptr, kv_ptr


@pytest.mark.parametrize("sizes", [RAGGED, ((5, 5, 5), (7, 7, 7)), ((4, 4), (0, 0))])
@pytest.mark.parametrize("compiled", [False, True])
def test_values_and_gradients(sizes, compiled, monkeypatch):
    qkv, ptr, kv_ptr = sample(*sizes)
    expected = definition(*qkv, ptr, kv_ptr, 0.7)
    weight = torch.randn_like(expected)
    wanted = torch.autograd.grad((weight * expected).sum(), qkv, allow_unused=True)
    monkeypatch.setattr("flare_geo.ops.pairwise.CHUNK", 2 * 6 * 2)  # of the compiled backward
    op = torch.compile(pairwise_attention, dynamic=True, fullgraph=True, backend="aot_eager")
    y = (op if compiled else pairwise_attention)(*qkv, ptr, kv_ptr, scale=0.7)
    close(y, expected, terms=7)
    grads = torch.autograd.grad((weight * y).sum(), qkv, allow_unused=True)
    found = [torch.zeros(()) if grad is None else grad for grad in grads]
    close(found, [torch.zeros(()) if grad is None else grad for grad in wanted], terms=7)


def test_both_sides_name_the_same_clouds():
    qkv, ptr, kv_ptr = sample(*RAGGED)
    with pytest.raises(ValueError, match="kv_ptr must name 5 clouds, got 4"):
        pairwise_attention(*qkv, ptr, torch.cat([kv_ptr[:-2], kv_ptr[-1:]]))
    nothing = pairwise_attention(*(x[:0] for x in qkv), torch.tensor([0]))
    assert nothing.shape == (0, 2, 3)
