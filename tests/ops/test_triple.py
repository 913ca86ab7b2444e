import functools

import pytest
import torch
from closeness import close
from torch.utils.checkpoint import checkpoint

from flare_geo.ops import (
    make_layout,
    ptr_to_batch,
    triple_attention,
    triple_output,
    triple_state,
    triple_torch,
)

pytest.importorskip("triton")
from flare_geo.ops.triton import launch
from flare_geo.ops.triton import triple as kernels

PTR = torch.tensor([0, 0, 1, 33, 33, 50, 51, 51])  # empty and one-point clouds among them
SHORT = torch.tensor([0, 0, 1, 37])  # the interpreter is slow
BACKENDS = ["torch", "triton"]
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@pytest.fixture(autouse=True)
def poisoned():
    """Memory that nobody wrote is NaN."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(before)


@pytest.fixture
def small_tiles(monkeypatch):
    """Tiles of two blocks of 16 points, so that clouds have several of both."""
    blocks = kernels.blocks

    def small(width, dtype):
        state, contract = blocks(width, dtype)
        state = {**state, "BLOCK_N": 16, "BLOCK_I": max(2, width // 2)}
        return state, {**contract, "BLOCK_N": 16, "BLOCK_I": max(2, width // 2)}

    monkeypatch.setattr(kernels, "blocks", small)
    monkeypatch.setattr(kernels, "span_of", lambda points, programs, block, device: 2 * block)


def triple_by_hand(q1, q2, k1, k2, v, ptr):
    """y_n = mean over m of the cloud of n of (q1_n . k1_m)(q2_n . k2_m) v_m, with N x N weights."""
    batch = ptr_to_batch(ptr)
    weights = (batch[:, None] == batch).double() / ptr.diff()[batch].double()[:, None]
    weights = weights.unsqueeze(-1)  # [N, N, 1]
    for q, k in ((q1, k1), (q2, k2)):
        weights = weights * torch.einsum("nhd,mhd->nmh", q, k)
    return torch.einsum("nmh,mhd->nhd", weights, v)


def inputs(number, n=51, heads=2, width=4, dtype=torch.float64):
    shape = (n, heads, width)
    return [torch.randn(shape, dtype=dtype, requires_grad=True) for _ in range(number)]


def value_and_gradients(f, tensors, weight):
    y = f(*tensors)
    return y, *torch.autograd.grad((y * weight).sum(), tensors)


def check(tensors, ptr, dtype, **options):
    exact = [x.detach().double().requires_grad_() for x in tensors]
    weight = torch.randn_like(tensors[-1])
    f = functools.partial(triple_attention, ptr=ptr, **options)
    found = value_and_gradients(f, tensors, weight)
    g = functools.partial(triple_by_hand, ptr=ptr)
    wanted = value_and_gradients(g, exact, weight.double())
    assert {t.dtype for t in found} == {dtype}
    names = ("y", "dq1", "dq2", "dk1", "dk2", "dv")
    terms = len(tensors[0]) * tensors[0].shape[-1] ** 2  # points, times the pairs of a state
    close(dict(zip(names, found)), dict(zip(names, wanted)), terms=terms, roundings=16)


@pytest.mark.parametrize("chunk", [4096, 7])
@pytest.mark.parametrize("ptr", [PTR, torch.tensor([0, 51])])
def test_torch_is_the_formula(ptr, chunk, monkeypatch):
    monkeypatch.setattr(triple_torch, "CHUNK", chunk)
    check(inputs(5), ptr, torch.float64, backend="torch")


@pytest.mark.parametrize(
    ("width", "dtype"),
    [*((4, dtype) for dtype in DTYPES), (5, torch.float32), (8, torch.float16)],
)
@pytest.mark.usefixtures("small_tiles")
def test_kernels_are_the_formula(width, dtype):
    check(inputs(5, 37, 2 if width == 4 else 1, width, dtype), SHORT, dtype, backend="triton")


@pytest.mark.parametrize("dtype", DTYPES)
def test_kernels_are_the_formula_in_the_blocks_of_a_gpu(dtype):
    check(inputs(5, 37, 1, 16, dtype), SHORT, dtype, backend="triton")


@pytest.mark.usefixtures("small_tiles")
def test_kernels_take_views_and_give_the_same_bits_twice():
    wide = torch.randn(37, 5, 1, 4, requires_grad=True)

    def run():
        *others, v = wide.unbind(1)  # rows of another tensor
        y = triple_attention(*others, v.transpose(1, 2).mT, SHORT, backend="triton")
        return y, *torch.autograd.grad(y.square().sum(), wide)

    first, second = run(), run()
    expected = triple_by_hand(*wide.double().unbind(1), SHORT)
    close(first[0], expected, terms=37 * 16)
    assert all(torch.equal(a, b) for a, b in zip(first, second))


def test_kernels_do_not_overflow_in_half_precision():
    """The gradient of a state is a sum: here of 24 products 300 x 300, each too large already."""
    q1, dy = (torch.full((24, 1, 4), 300.0, dtype=torch.float16) for _ in range(2))
    state = torch.randn(1, 1, 4, 4, 4, requires_grad=True)
    y = triple_output(q1, state, torch.ones_like(q1), backend="triton")
    (ds,) = torch.autograd.grad(y, state, dy)
    torch.testing.assert_close(ds, torch.full_like(ds, 24 * 9e4))


@pytest.mark.parametrize("backend", BACKENDS)
def test_state_is_a_mean_that_merges(backend):
    k1, v, k2 = (x.detach() for x in inputs(3, 30, 1, dtype=torch.float32))
    f = functools.partial(triple_state, backend=backend)
    parts = f(k1, v, k2, torch.tensor([0, 12, 12, 30]))
    assert parts.shape == (3, 1, 4, 4, 4)
    assert parts.dtype == torch.float32
    assert (parts[1] == 0).all()
    merged = (12 * parts[0] + 18 * parts[2]) / 30
    close(merged, f(k1, v, k2)[0], terms=30)
    exact = torch.einsum("mhi,mhj,mhk->hijk", *(x.double() for x in (k1, v, k2))) / 30
    close(merged, exact, terms=30)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("ptr", [[0], [0, 0, 0]])
def test_nothing_in_nothing_out(backend, ptr):
    tensors = inputs(5, 0, dtype=torch.float32)
    y = triple_attention(*tensors, torch.tensor(ptr), backend=backend)
    assert y.shape == (0, 2, 4)
    state = triple_state(*tensors[:3], torch.tensor(ptr), backend=backend)
    assert state.shape == (len(ptr) - 1, 2, 4, 4, 4)
    assert (state == 0).all()


def test_gradcheck():
    ptr = torch.tensor([0, 0, 1, 6, 7])
    k1, v, k2, q1, q2 = inputs(5, 7, 1, 2)
    state = torch.randn(4, 1, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    f = functools.partial(triple_state, ptr=ptr, backend="torch")
    g = functools.partial(triple_output, ptr=ptr, backend="torch")
    assert torch.autograd.gradcheck(f, (k1, v, k2))
    assert torch.autograd.gradcheck(g, (q1, state, q2))
    assert torch.autograd.gradgradcheck(f, (k1, v, k2))
    assert torch.autograd.gradgradcheck(g, (q1, state, q2))


def test_opcheck():
    a, b, c = inputs(3, 9, 1, dtype=torch.float32)
    ptr = torch.tensor([0, 2, 2, 9])
    state = torch.randn(3, 1, 4, 4, 4, requires_grad=True)
    torch.library.opcheck(kernels.triple_state, (a, b, c, ptr, True))
    torch.library.opcheck(kernels.triple_output, (a, state, c, ptr))
    for mean in (True, False):
        arguments = (x.detach() for x in (a, b, c, state))
        torch.library.opcheck(kernels.triple_gradients, (*arguments, ptr, mean))


def test_compiles_once_for_all_sizes_and_checkpoints():
    plain = functools.partial(triple_attention, backend="triton")
    again = functools.partial(checkpoint, plain, use_reentrant=False)
    compiled = torch.compile(plain, fullgraph=True, dynamic=True, backend="aot_eager")
    for n in (9, 20):
        tensors = inputs(5, n, 1, dtype=torch.float32)
        with torch.compiler.set_stance("fail_on_recompile" if n == 20 else "default"):
            a = value_and_gradients(compiled, tensors, 1.0)
        b = value_and_gradients(plain, tensors, 1.0)
        c = value_and_gradients(again, tensors, 1.0)
        assert all(torch.equal(x, y) and torch.equal(x, z) for x, y, z in zip(a, b, c))


def test_tiles_fill_the_device():
    for points in (1, 64, 1000, 10**6, 2**33):
        span = launch.span_of(points, 8, 64, torch.device("cpu"))
        assert span % 64 == 0
        assert points // span * 8 <= 32  # eight times the four processors of a stand-in


def test_widths_may_differ_in_torch():
    q1, k1 = inputs(2, width=3)
    q2, k2 = inputs(2, width=5)
    (v,) = inputs(1, width=2)
    layout = make_layout(PTR, 51, v.device)
    y = triple_attention(q1, q2, k1, k2, v, layout)
    close(y, triple_by_hand(q1, q2, k1, k2, v, PTR), terms=51 * 15)
    with pytest.raises(ValueError, match=r"needs one width D, got \(3, 2, 5\)"):
        triple_attention(*(x.float() for x in (q1, q2, k1, k2, v)), backend="triton")


def test_bad_input_is_named():
    q1, q2, k1, k2, v = inputs(5)
    with pytest.raises(ValueError, match=r"q1 must be \[N, H, D\], got \[51, 8\]"):
        triple_attention(q1.flatten(1), q2, k1, k2, v)
    with pytest.raises(ValueError, match=r"v must be \[N=51, H=2, D\] to fit q1, got \[50, 2, 4\]"):
        triple_attention(q1, q2, k1, k2, v[:50])
    with pytest.raises(ValueError, match=r"k2 must be \[51, 2, 4\] to fit q2, got \[51, 2, 3\]"):
        triple_attention(q1, q2, k1, k2[..., :3], v)
    with pytest.raises(ValueError, match="q1, q2, k1, k2, v must share one floating dtype"):
        triple_attention(q1, q2, k1, k2, v.float())
    with pytest.raises(ValueError, match="ptr must end at N=51, got 40"):
        triple_state(k1, v, k2, torch.tensor([0, 40]))
    state = triple_state(k1, v, k2)
    with pytest.raises(ValueError, match=r"state must be \[B=7, H=2, I=4, J, K=4\] to fit q1, q2"):
        triple_output(q1, state, q2, PTR)
    with pytest.raises(ValueError, match=r"state must be floating and on cpu, got torch\.int64"):
        triple_output(q1, state.long(), q2)
    with pytest.raises(TypeError, match=r"got torch.float64; use backend='torch'"):
        triple_state(k1, v, k2, backend="triton")
    with pytest.raises(ValueError, match="takes D up to 32, got 33"):
        triple_state(*(x.float() for x in inputs(3, width=33)), backend="triton")
    with pytest.raises(ValueError, match=r"backend must be one of .*, got 'best'"):
        triple_state(k1, v, k2, backend="best")
