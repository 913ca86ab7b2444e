import pytest
import torch
from closeness import close

from flare_geo.ops import (
    Layout,
    batch_to_ptr,
    flare_attention,
    flare_decode,
    flare_encode,
    make_layout,
    merge_encodings,
    ptr_to_batch,
)

BACKENDS = ["reference", "sdpa"]
RAGGED = torch.tensor([0, 0, 1, 10, 10, 29, 30, 30])  # empty and one-point clouds among them
EQUAL = torch.tensor([0, 10, 20, 30])


def inputs(n=30, heads=3, latents=7, width=5, dtype=torch.float64, clouds=None):
    lead = () if clouds is None else (clouds,)
    q = torch.randn(*lead, heads, latents, width, dtype=dtype, requires_grad=True)
    k = torch.randn(n, heads, width, dtype=dtype, requires_grad=True)
    v = torch.randn(n, heads, width, dtype=dtype, requires_grad=True)
    return q, k, v


def by_hand(q, k, v, scale):
    """The two formulas of the paper, one cloud, one head at a time, with explicit sums."""
    y = torch.empty_like(v)
    for h in range(q.shape[0]):
        e = torch.exp(scale * q[h] @ k[:, h].T)  # [M, n]
        z = (e @ v[:, h]) / e.sum(1, keepdim=True)
        y[:, h] = (e.T @ z) / e.sum(0)[:, None]
    return y


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_attention_is_the_formula(backend, scale):
    q, k, v = inputs()
    y = flare_attention(q, k, v, RAGGED, scale=scale, backend=backend)
    for start, end in zip(RAGGED[:-1], RAGGED[1:]):
        s = slice(start, end)
        close(y[s], by_hand(q, k[s], v[s], scale), terms=19)


@pytest.mark.parametrize("ptr", [None, RAGGED, EQUAL, torch.tensor([0, 30, 30])])
@pytest.mark.parametrize("own_queries", [False, True])
def test_backends_agree_in_value_and_gradient(ptr, own_queries):
    clouds = 1 if ptr is None else len(ptr) - 1
    q, k, v = inputs(clouds=clouds if own_queries else None)
    weight = torch.randn_like(v)
    results = []
    for backend in BACKENDS:
        y = flare_attention(q, k, v, ptr, scale=0.7, backend=backend)
        z, lse = flare_encode(q, k, v, ptr, scale=0.7, backend=backend)
        y2 = flare_decode(q, k, z, ptr, scale=0.7, backend=backend)
        close(y, y2, terms=30)
        finite = torch.where(lse.isneginf(), 0, lse)
        loss = (y * weight).sum() + z.square().sum() + finite.sum()
        found = (y, z, lse, *torch.autograd.grad(loss, (q, k, v)))
        results.append(dict(zip(("y", "z", "lse", "dq", "dk", "dv"), found, strict=True)))
    close(*results, terms=30, roundings=16)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("ptr", [RAGGED, EQUAL])
def test_gradcheck(backend, ptr):
    q, k, v = inputs(heads=2, latents=3, width=2)

    def all_outputs(q, k, v):
        z, lse = flare_encode(q, k, v, ptr, backend=backend)
        y = flare_attention(q, k, v, ptr, backend=backend)
        return y, flare_decode(q, k, z, ptr, backend=backend), lse[~lse.isneginf()]

    assert torch.autograd.gradcheck(all_outputs, (q, k, v))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("ptr", [RAGGED, EQUAL])
def test_dtypes_are_kept_and_close_to_float64(backend, dtype, ptr):
    q, k, v = inputs(dtype=dtype)
    y = flare_attention(q, k, v, ptr, backend=backend)
    z, lse = flare_encode(q, k, v, ptr, backend=backend)
    assert y.dtype == z.dtype == dtype
    assert lse.dtype == torch.float32
    exact = flare_attention(q.double(), k.double(), v.double(), ptr, backend="reference")
    close(y, exact, terms=30)
    y.float().square().sum().backward()
    assert all(torch.isfinite(x.grad).all() for x in (q, k, v))


@pytest.mark.parametrize("backend", BACKENDS)
def test_large_scores_do_not_overflow(backend):
    q, k, v = inputs(dtype=torch.float32)
    y = flare_attention(q, 200 * k, v, RAGGED, backend=backend)
    assert torch.isfinite(y).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_merge_of_any_cut_is_the_whole(backend):
    q, k, v = inputs()
    whole = flare_encode(q, k, v, backend=backend)
    for cuts in ([0, 30], [0, 0, 30], [0, 1, 13, 13, 29, 30], list(range(31))):
        parts = [
            flare_encode(q, k[a:b], v[a:b], backend=backend) for a, b in zip(cuts[:-1], cuts[1:])
        ]
        z, lse = merge_encodings(*parts)
        close({"z": z, "lse": lse}, {"z": whole[0], "lse": whole[1]}, terms=30)


def test_merge_has_exact_gradients():
    q, k, v = inputs()
    weight = torch.randn(1, 3, 7, 5, dtype=torch.float64)
    z, lse = flare_encode(q, k, v)
    whole = torch.autograd.grad((z * weight).sum() + lse.sum(), (q, k, v))
    z, lse = merge_encodings(*(flare_encode(q, k[s], v[s]) for s in (slice(0, 4), slice(4, 30))))
    parts = torch.autograd.grad((z * weight).sum() + lse.sum(), (q, k, v))
    close(parts, whole, terms=30, roundings=16)


@pytest.mark.parametrize("backend", BACKENDS)
def test_empty_cloud_is_neutral(backend):
    q, k, v = inputs()
    z, lse = flare_encode(q, k[:0], v[:0], backend=backend)
    assert (z == 0).all()
    assert lse.isneginf().all()
    merged = merge_encodings((z, lse), (z, lse))
    assert (merged[0] == 0).all()
    assert merged[1].isneginf().all()
    none = flare_attention(q, k[:0], v[:0], torch.tensor([0]), backend=backend)
    assert none.shape == (0, 3, 5)


def test_one_layout_serves_many_calls():
    q, k, v = inputs()
    layout = make_layout(RAGGED, 30, k.device)
    assert isinstance(layout, Layout)
    assert layout.sizes == (0, 1, 9, 0, 19, 1, 0)
    assert not layout.equal
    torch.testing.assert_close(flare_attention(q, k, v, layout), flare_attention(q, k, v, RAGGED))


def test_ptr_and_batch_are_inverse():
    batch = ptr_to_batch(RAGGED)
    assert batch.tolist() == [1] + [2] * 9 + [4] * 19 + [5]
    assert batch_to_ptr(batch, num_clouds=7).tolist() == RAGGED.tolist()
    assert batch_to_ptr(batch[:0]).tolist() == [0]


@pytest.mark.parametrize(
    ("ptr", "message"),
    [
        (torch.tensor([0, 20]), r"ptr must end at N=30, got 20"),
        (torch.tensor([1, 30]), r"ptr must start at 0, got 1"),
        (torch.tensor([0, 20, 10, 30]), r"ptr must not decrease, but ptr\[2\]=10 follows 20"),
        (torch.tensor([0.0, 30.0]), r"ptr must be an int64 vector"),
        (torch.zeros(2, 2, dtype=torch.int64), r"ptr must be an int64 vector"),
    ],
)
def test_bad_ptr_is_named(ptr, message):
    q, k, v = inputs()
    with pytest.raises(ValueError, match=message):
        flare_attention(q, k, v, ptr)


def test_bad_shapes_and_backends_are_named():
    q, k, v = inputs()
    with pytest.raises(ValueError, match=r"k must be \[N, H=3, D=5\] to fit q, got \[30, 15\]"):
        flare_attention(q, k.flatten(1), v)
    with pytest.raises(ValueError, match=r"v must be \[30, 3, 5\]"):
        flare_attention(q, k, v[:20])
    with pytest.raises(ValueError, match="share one floating dtype"):
        flare_attention(q, k.float(), v)
    with pytest.raises(ValueError, match=r"backend must be one of .*, got 'best'"):
        flare_attention(q, k, v, backend="best")
    with pytest.raises(ValueError, match=r"z must be \[1, 3, 7, 5\]"):
        flare_decode(q, k, v)
    with pytest.raises(ValueError, match=r"batch must be sorted, but batch\[2\]=0 follows 1"):
        batch_to_ptr(torch.tensor([0, 1, 0]))
