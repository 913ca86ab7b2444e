import functools

import pytest
import torch
from closeness import close
from torch.utils.checkpoint import checkpoint

from flare_geo.ops import Layout, make_layout, ptr_to_batch
from flare_geo.ops.causal_linear import causal_linear_attention

pytest.importorskip("triton")
from flare_geo.ops.triton import causal_linear as kernels

PTR = torch.tensor([0, 0, 1, 17, 17, 73, 74, 74])  # empty and one-point clouds among them
SHORT = torch.tensor([0, 0, 1, 41])  # the interpreter is slow; two tiles of two chunks
BACKENDS = ["torch", "triton"]
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@pytest.fixture(autouse=True)
def poisoned():
    """Memory that nobody wrote is NaN; a tile is two chunks, so that clouds have several."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(before)


@pytest.fixture
def small_tiles(monkeypatch):
    monkeypatch.setattr(kernels, "span_of", lambda points, programs, block, device: 2 * block)


def by_hand(q, k, v, scale, ptr):
    """The formula with an N x N mask: the same cloud and not later."""
    batch, t = ptr_to_batch(ptr), torch.arange(len(q))
    seen = (batch[:, None] == batch) & (t[:, None] >= t)
    scores = torch.einsum("thd,shd->tsh", q, k) * seen.unsqueeze(-1)
    return scale * torch.einsum("tsh,she->the", scores, v)


def inputs(n=74, heads=2, width=8, outputs=None, dtype=torch.float64):
    widths = (width, width, width if outputs is None else outputs)
    return [torch.randn(n, heads, w, dtype=dtype, requires_grad=True) for w in widths]


def value_and_gradients(f, tensors, weight):
    y = f(*tensors)
    return y, *torch.autograd.grad((y * weight).sum(), tensors)


def check(tensors, ptr, dtype, **options):
    exact = [x.detach().double().requires_grad_() for x in tensors]
    weight = torch.randn_like(tensors[2])
    found = value_and_gradients(
        lambda *x: causal_linear_attention(*x, ptr, scale=0.7, **options), tensors, weight
    )
    wanted = value_and_gradients(lambda *x: by_hand(*x, 0.7, ptr), exact, weight.double())
    assert {t.dtype for t in found} == {dtype}
    names = ("y", "dq", "dk", "dv")
    terms = len(tensors[0]) * tensors[0].shape[-1]
    close(dict(zip(names, found)), dict(zip(names, wanted)), terms=terms)


@pytest.mark.parametrize("chunk_size", [1, 5, 16, 1000])
@pytest.mark.parametrize("outputs", [8, 3])
def test_torch_is_the_formula(chunk_size, outputs):
    tensors = inputs(outputs=outputs)
    check(tensors, PTR, torch.float64, backend="torch", chunk_size=chunk_size)
    check(tensors, torch.tensor([0, 37, 74]), torch.float64, backend="torch", chunk_size=chunk_size)


@pytest.mark.parametrize(
    ("width", "dtype"),
    [*((8, dtype) for dtype in DTYPES), (16, torch.float16), (32, torch.float32)],
)
@pytest.mark.usefixtures("small_tiles")
def test_kernels_are_the_formula(width, dtype):
    heads = 2 if width == 8 else 1
    check(inputs(41, heads, width, dtype=dtype), SHORT, dtype, backend="triton", chunk_size=16)


@pytest.mark.parametrize(("width", "outputs", "chunk_size"), [(5, 9, 10), (16, 70, 64)])
def test_kernels_take_any_width(width, outputs, chunk_size):
    tensors = inputs(20, 1, width, outputs, torch.float32)
    ptr = torch.tensor([0, 13, 20])
    check(tensors, ptr, torch.float32, backend="triton", chunk_size=chunk_size)


@pytest.mark.usefixtures("small_tiles")
def test_kernels_take_views_and_give_the_same_bits_twice():
    wide = torch.randn(41, 3, 1, 8, requires_grad=True)

    def run():
        q, k, v = wide.unbind(1)  # rows of another tensor
        y = causal_linear_attention(q, k, v.transpose(1, 2).mT, SHORT, backend="triton")
        return y, *torch.autograd.grad(y.square().sum(), wide)

    first, second = run(), run()
    expected = by_hand(*wide.double().unbind(1), 1.0, SHORT)
    close(first[0], expected, terms=41 * 8)
    assert all(torch.equal(a, b) for a, b in zip(first, second))


def test_kernels_do_not_overflow_in_half_precision():
    q, k = (torch.full((64, 1, 16), 70.0, dtype=torch.float16) for _ in range(2))  # q . k = 78400
    v = torch.full((64, 1, 16), 1e-3, dtype=torch.float16)
    y = causal_linear_attention(q, k, v, scale=1e-3, chunk_size=16, backend="triton")
    expected = by_hand(q.double(), k.double(), v.double(), 1e-3, torch.tensor([0, 64]))
    close(y, expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_clouds_do_not_see_each_other_nor_what_comes_later(backend):
    q, k, v = (x.detach() for x in inputs(41, 1, dtype=torch.float32))
    f = functools.partial(causal_linear_attention, ptr=SHORT, backend=backend)
    k2, v2 = k.clone(), v.clone()
    k2[20:], v2[20:] = 9.0, -9.0
    y, y2 = f(q, k, v), f(q, k2, v2)
    assert torch.equal(y[:20], y2[:20])
    assert not (y[20:] == y2[20:]).all(-1).any()
    alone = causal_linear_attention(q[1:], k[1:], v[1:], backend=backend)
    close(y[1:], alone, terms=40 * 8)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_channel_of_ones_is_the_normaliser(backend):
    q, k, v = (x.detach().abs() for x in inputs(20, 1, dtype=torch.float32))
    sums = causal_linear_attention(q, k, torch.cat([v, torch.ones(20, 1, 1)], -1), backend=backend)
    y = sums[..., :-1] / sums[..., -1:]
    close(y[0], v[0], terms=8)
    weights = (q[19, 0] @ k[:, 0].T).double()
    close(y[19, 0], weights / weights.sum() @ v[:, 0].double(), terms=20 * 8)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("ptr", [[0], [0, 0, 0]])
def test_nothing_in_nothing_out(backend, ptr):
    q, k, v = inputs(0, dtype=torch.float32)
    y = causal_linear_attention(q, k, v, torch.tensor(ptr), backend=backend)
    assert y.shape == (0, 2, 8)


def test_gradcheck():
    ptr = torch.tensor([0, 0, 1, 8, 9])
    f = functools.partial(causal_linear_attention, ptr=ptr, chunk_size=3, backend="torch")
    assert torch.autograd.gradcheck(f, inputs(9, 1, 2, 3))


def test_gradients_of_gradients():
    tensors = inputs(20, 1, 4, dtype=torch.float32)
    results = []
    for backend in BACKENDS:
        y = causal_linear_attention(*tensors, torch.tensor([0, 3, 20]), backend=backend)
        first = torch.autograd.grad(y.square().sum(), tensors, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), tensors)
        results.append(second)
    close(*results, terms=20 * 4, roundings=32)


def test_opcheck():
    tensors = inputs(20, 1, 4, 3, dtype=torch.float32)
    options = (torch.tensor([0, 3, 3, 20]), 0.5, 16, False)
    torch.library.opcheck(kernels.causal_linear, (*tensors, *options))


def test_compiles_once_for_all_sizes_and_checkpoints():
    plain = functools.partial(causal_linear_attention, backend="triton")
    again = functools.partial(checkpoint, plain, use_reentrant=False)
    compiled = torch.compile(plain, fullgraph=True, dynamic=True, backend="aot_eager")
    for n in (9, 20):
        tensors = inputs(n, 1, 4, dtype=torch.float32)
        with torch.compiler.set_stance("fail_on_recompile" if n == 20 else "default"):
            a = value_and_gradients(compiled, tensors, 1.0)
        b = value_and_gradients(plain, tensors, 1.0)
        c = value_and_gradients(again, tensors, 1.0)
        assert all(torch.equal(x, y) and torch.equal(x, z) for x, y, z in zip(a, b, c))


def test_tiles_fill_the_device():
    device = torch.device("cpu")
    blocks, _ = kernels.blocks((16, 16), 64, torch.float16)
    assert blocks["BLOCK_N"] == 64
    for points in (1, 64, 1000, 10**6, 2**33):
        span = kernels.span_of(points, 8, 64, device)
        assert span % 64 == 0
        assert points // span * 8 <= 32  # eight times the four processors of a stand-in


def test_a_layout_is_taken():
    q, k, v = inputs()
    layout = make_layout(PTR, 74, q.device)
    assert isinstance(layout, Layout)
    a, b = (causal_linear_attention(q, k, v, p) for p in (layout, PTR))
    assert torch.equal(a, b)


def test_bad_input_is_named():
    q, k, v = inputs()
    f = causal_linear_attention
    with pytest.raises(ValueError, match=r"q must be \[N, H, D\], got \[74, 16\]"):
        f(q.flatten(1), k, v)
    with pytest.raises(ValueError, match=r"k must be \[74, 2, 8\] to fit q, got \[70, 2, 8\]"):
        f(q, k[:70], v)
    with pytest.raises(ValueError, match=r"v must be \[N=74, H=2, E\] to fit q"):
        f(q, k, v[:, :1])
    with pytest.raises(ValueError, match="share one floating dtype"):
        f(q, k, v.float())
    with pytest.raises(ValueError, match="chunk_size must be at least 1, got 0"):
        f(q, k, v, chunk_size=0)
    with pytest.raises(ValueError, match="ptr must end at N=74, got 70"):
        f(q, k, v, torch.tensor([0, 70]))
    with pytest.raises(ValueError, match=r"backend must be one of .*, got 'sdpa'"):
        f(q, k, v, backend="sdpa")
    with pytest.raises(TypeError, match=r"got torch.float64; use backend='torch'"):
        f(q, k, v, backend="triton")
    with pytest.raises(ValueError, match="takes D up to 128, got 130"):
        f(*(x.float() for x in inputs(width=130)), backend="triton")
