import pytest
import torch

from flare_geo.ops import make_layout
from flare_geo.ops.segment import apply_state, segment_sum, sum_outer

SIZES = [(5, 0, 1, 17), (4, 4, 4), (0, 0), (9,), ()]


def problem(sizes, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    n = sum(sizes)
    k, q = torch.randn(2, n, 3, 4, generator=generator, dtype=dtype).unbind()
    v = torch.randn(n, 3, 5, generator=generator, dtype=dtype)
    layout = make_layout(torch.tensor([0, *sizes]).cumsum(0), n, k.device)
    return k, v, q, layout


@pytest.mark.parametrize("sizes", SIZES)
def test_against_the_definition(sizes):
    k, v, q, layout = problem(sizes)
    outer = torch.einsum("nhi,nhj->nhij", k, v)
    expected = outer.new_zeros(len(sizes), 3, 4, 5).index_add(0, layout.batch, outer)
    state = sum_outer(k, v, layout)
    torch.testing.assert_close(state, expected)
    read = torch.einsum("nhi,nhij->nhj", q, expected[layout.batch])
    torch.testing.assert_close(apply_state(q, state, layout), read)
    total = k.new_zeros(len(sizes), 3, 4).index_add(0, layout.batch, k)
    torch.testing.assert_close(segment_sum(k, layout), total)
    ones = segment_sum(torch.ones(sum(sizes)), layout)
    assert ones.tolist() == list(sizes)


def run(k, v, q, layout):
    return apply_state(q, sum_outer(k, v, layout), layout), segment_sum(k, layout)


@pytest.mark.parametrize("sizes", SIZES[:4])
def test_gradients_of_eager_and_compiled(sizes):
    *leaves, layout = problem(sizes)
    for x in leaves:
        x.requires_grad_()
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda k, v, q, ptr: run(k, v, q, make_layout(ptr, k.shape[0], k.device)),
        backend="aot_eager",
        fullgraph=True,
        dynamic=True,
    )
    results = []
    for y, s in (run(*leaves, layout), compiled(*leaves, layout.ptr)):
        results.append((y, s, *torch.autograd.grad((y.square().sum() + s.square().sum()), leaves)))
    torch.testing.assert_close(*results)
    if sum(sizes):
        assert torch.autograd.gradcheck(lambda *x: run(*x, layout), leaves)


def test_half_precision_is_summed_in_single():
    k = torch.full((5000, 1, 1), 1.0, dtype=torch.bfloat16)
    layout = make_layout(torch.tensor([0, 1, 5000]), 5000, k.device)
    assert segment_sum(k, layout).flatten().tolist() == [1, 4999]
    assert sum_outer(k, k, layout).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert segment_sum(k.float(), layout).flatten().tolist() == [1, 4999]
