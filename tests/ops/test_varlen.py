"""The varlen backend on a CPU: its operator is replaced by one of the same packed arguments."""

from functools import partial

import pytest
import torch
from closeness import close
from torch._subclasses.fake_tensor import FakeTensorMode

from flare_geo.ops import dispatch, flare_attention, make_layout, merge_encodings, reference

varlen = pytest.importorskip("flare_geo.ops.varlen", reason="needs torch 2.10 or later")

RAGGED = [0, 0, 1, 40, 40, 62]
NAN, INF = float("nan"), float("inf")
OPERATOR, HAS_SCALE = varlen.varlen_attn, varlen.HAS_SCALE


def _sequences(q, k, v, starts_q, starts_k):
    """For each sequence its rows and its queries, keys and values `[H, n, D]` in float32."""
    ends = zip(starts_q.tolist(), starts_q[1:].tolist(), starts_k.tolist(), starts_k[1:].tolist())
    for q0, q1, k0, k1 in ends:
        rows = slice(q0, q1), slice(k0, k1)
        at = zip((q, k, v), (rows[0], rows[1], rows[1]))
        yield *rows, *(x[where].float().transpose(0, 1) for x, where in at)


@torch.library.custom_op("flare_geo_tests::packed", mutates_args=())
def packed(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    starts_q: torch.Tensor,
    starts_k: torch.Tensor,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Softmax attention of each sequence; queries without keys get what no one should read."""
    out, lse = torch.full_like(q, NAN), q.new_full(q.shape[1::-1], INF, dtype=torch.float32)
    for rows, _, q_b, k_b, v_b in _sequences(q, k, v, starts_q, starts_k):
        if k_b.shape[1]:
            scores = scale * q_b @ k_b.mT  # [H, q, k]
            out[rows] = (scores.softmax(-1) @ v_b).transpose(0, 1).to(q.dtype)
            lse[:, rows] = scores.logsumexp(-1)
    return out, lse


@torch.library.custom_op("flare_geo_tests::packed_backward", mutates_args=())
def packed_backward(
    dy: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    starts_q: torch.Tensor,
    starts_k: torch.Tensor,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of the first output; NaN for what takes part in no sequence."""
    dq, dk, dv = (torch.full_like(x, NAN) for x in (q, k, v))
    for rows, keys, q_b, k_b, v_b in _sequences(q, k, v, starts_q, starts_k):
        if q_b.shape[1] and k_b.shape[1]:
            p, dy_b = (scale * q_b @ k_b.mT).softmax(-1), dy[rows].float().transpose(0, 1)
            dp = dy_b @ v_b.mT
            ds = p * (dp - (p * dp).sum(-1, keepdim=True))
            dq[rows] = (scale * ds @ k_b).transpose(0, 1).to(q.dtype)
            dk[keys] = (scale * ds.mT @ q_b).transpose(0, 1).to(q.dtype)
            dv[keys] = (p.mT @ dy_b).transpose(0, 1).to(q.dtype)
    return dq, dk, dv


@packed.register_fake
def _(q, k, v, starts_q, starts_k, scale):
    return torch.empty_like(q), q.new_empty(q.shape[1::-1], dtype=torch.float32)


@packed_backward.register_fake
def _(dy, q, k, v, starts_q, starts_k, scale):
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


def _keep(ctx, inputs, output):
    *tensors, ctx.scale = inputs
    ctx.save_for_backward(*tensors)


def _gradient(ctx, dy, _):  # the gradient of the lse is dropped, as the operator of torch does
    return *packed_backward(dy, *ctx.saved_tensors, ctx.scale), None, None, None


packed.register_autograd(_gradient, setup_context=_keep)


def varlen_attn(q, k, v, starts_q, starts_k, max_q, max_k, *, return_aux=None, scale=None):
    """As `torch.nn.attention.varlen.varlen_attn` since torch 2.11."""
    assert starts_q.dtype == starts_k.dtype == torch.int32
    assert q.stride(-1) == k.stride(-1) == v.stride(-1) == 1
    if not torch.compiler.is_compiling():
        assert max_q == starts_q.diff().max()
        assert max_k == starts_k.diff().max()
    assert scale is None or scale > 0  # of others the kernels make infinities
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    out, lse = packed(q, k, v, starts_q, starts_k, scale)
    return (out, lse) if return_aux is not None and return_aux.lse else out


def varlen_attn_2_10(q, k, v, starts_q, starts_k, max_q, max_k, is_causal=False, return_aux=None):
    """As it was in torch 2.10."""
    assert not is_causal
    return varlen_attn(q, k, v, starts_q, starts_k, max_q, max_k, return_aux=return_aux)


@pytest.fixture(autouse=True, params=["2.10", "2.11"])
def _operator(request, monkeypatch):
    old = request.param == "2.10"
    monkeypatch.setattr(varlen, "varlen_attn", varlen_attn_2_10 if old else varlen_attn)
    monkeypatch.setattr(varlen, "HAS_SCALE", not old)


def inputs(heads, latents, width, ptr, dtype=torch.float32, per_cloud=False):
    clouds = (len(ptr) - 1,) if per_cloud else ()
    q = torch.randn(*clouds, heads, latents, width)
    k, v = torch.randn(2, ptr[-1], heads, width).unbind()
    layout = make_layout(torch.tensor(ptr), ptr[-1], torch.device("cpu"))
    return *(x.to(dtype).requires_grad_() for x in (q, k, v)), layout


def compare(call, tensors):
    """Values and every gradient of `call(module, ...)` against the definition in float64."""
    dtype, terms = tensors[0].dtype, max(len(x) for x in tensors)
    exact = [x.detach().double().requires_grad_() for x in tensors]
    outputs, wanted = call(varlen, *tensors), call(reference, *exact)
    loss = exact_loss = 0.0
    close(outputs, wanted, terms=terms, dtype=dtype)
    for o, w in zip(outputs, wanted, strict=True):
        finite = w.isfinite()
        weight = torch.randn_like(w)[finite]
        loss = loss + (o[finite] * weight).sum()
        exact_loss = exact_loss + (w[finite] * weight).sum()
    grads, expected = (torch.autograd.grad(*x) for x in ((loss, tensors), (exact_loss, exact)))
    assert [grad.dtype for grad in grads] == [x.dtype for x in tensors]
    names = ("dq", "dk", "dv")
    grads, expected = (dict(zip(names, g, strict=True)) for g in (grads, expected))
    close(grads, expected, terms=terms, roundings=16, dtype=dtype)


def attend(layout, scale, module, *tensors):
    return (module.attention(*tensors, layout, scale),)


def encode(layout, scale, module, *tensors):
    return module.encode(*tensors, layout, scale)


def decode(layout, scale, module, *tensors):
    return (module.decode(*tensors, layout, scale),)


CALLS = {"attention": attend, "encode": encode, "decode": decode}


@pytest.mark.parametrize(
    ("heads", "latents", "width", "per_cloud", "scale", "dtype"),
    [
        (2, 7, 8, False, 0.7, torch.float32),
        (1, 33, 16, True, -0.4, torch.float32),
        (2, 5, 8, True, 0.0, torch.float32),
        (1, 7, 8, True, 0.5, torch.float16),
        (2, 16, 16, False, -0.3, torch.bfloat16),
    ],
)
@pytest.mark.parametrize("call", list(CALLS))
def test_values_and_gradients(call, heads, latents, width, per_cloud, scale, dtype):
    q, k, v, layout = inputs(heads, latents, width, RAGGED, dtype, per_cloud)
    if call == "decode":
        v = torch.randn(layout.num_clouds, *q.shape[-3:]).to(q).requires_grad_()
    compare(partial(CALLS[call], layout, scale), (q, k, v))


def test_lse_alone_has_a_gradient():
    q, k, v, layout = inputs(2, 7, 8, RAGGED)
    q_w, k_w = (x.detach().double().requires_grad_() for x in (q, k))
    finite = torch.tensor(layout.sizes).bool()
    for loss in (torch.Tensor.sum, lambda x: x.square().sum()):
        lse = varlen.encode(q, k, v.detach(), layout, 0.7)[1][finite]
        exact = reference.encode(q_w, k_w, v.double(), layout, 0.7)[1][finite]
        grads = torch.autograd.grad(loss(lse), (q, k))
        close(grads, torch.autograd.grad(loss(exact), (q_w, k_w)), terms=len(k))


def test_parts_merge_to_the_whole_and_pass_gradients():
    q, k, v, _ = inputs(2, 7, 8, [0, 50])
    cut = [make_layout(None, n, k.device) for n in (15, 35)]

    def merged(module, q, k, v):
        first = module.encode(q, k[:15], v[:15], cut[0], 1.0)
        return merge_encodings(first, module.encode(q, k[15:], v[15:], cut[1], 1.0))

    compare(merged, (q, k, v))


def test_one_call_more_only_where_the_lse_needs_a_gradient(monkeypatch):
    calls, operator = [], varlen.varlen_attn
    monkeypatch.setattr(varlen, "varlen_attn", lambda *a, **k: calls.append(1) or operator(*a, **k))
    q, k, v, layout = inputs(1, 3, 8, [0, 4, 9])
    with torch.no_grad():
        varlen.encode(q, k, v, layout, 1.0)
    assert len(calls) == 1
    varlen.attention(q, k, v, layout, 1.0)
    assert len(calls) == 3
    varlen.encode(q, k, v, layout, 1.0)
    assert len(calls) == 5


@pytest.mark.parametrize("scale", [0.5, -0.5, 0.0])
def test_arguments_fit_the_operator_of_this_torch(monkeypatch, scale):
    """Shapes only: nothing is computed."""
    monkeypatch.setattr(varlen, "varlen_attn", OPERATOR)
    monkeypatch.setattr(varlen, "HAS_SCALE", HAS_SCALE)
    q, k, v, layout = inputs(2, 7, 8, RAGGED, torch.bfloat16)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        q, k, v = (mode.from_tensor(x).detach().requires_grad_() for x in (q, k, v))
        z, lse = varlen.encode(q, k, v, layout, scale)
        assert (z.shape, z.dtype) == ((5, 2, 7, 8), torch.bfloat16)
        assert (lse.shape, lse.dtype) == ((5, 2, 7), torch.float32)
        y = varlen.attention(q, k, v, layout, scale)
        assert y.shape == v.shape
        torch.autograd.grad(y.sum() + lse.sum(), (q, k, v))


@pytest.mark.parametrize("ptr", [[0], [0, 0], [0, 0, 0]])
def test_no_point_at_all(ptr):
    q, k, v, layout = inputs(2, 7, 8, ptr)
    z, lse = varlen.encode(q, k, v, layout, 1.0)
    torch.testing.assert_close((z, lse), reference.encode(q, k, v, layout, 1.0))
    for y in (varlen.attention(q, k, v, layout, 1.0), varlen.decode(q, k, z, layout, 1.0), z):
        grads = torch.autograd.grad(y.sum(), (q, k, v), retain_graph=True)
        assert all(torch.equal(g, torch.zeros_like(g)) for g in grads)
    assert y.shape == z.shape
    assert varlen.attention(q, k, v, layout, 1.0).shape == v.shape


def test_views_are_read_in_place_where_the_kernels_can():
    x = torch.randn(9, 2, 3, 8)
    assert varlen._rows(x[:, :, 1]).data_ptr() == x[:, :, 1].data_ptr()
    for strided in (x[..., 0].transpose(1, 2), torch.randn(9, 2, 12)[..., :8]):
        rows = varlen._rows(strided)
        assert rows.is_contiguous()
        assert torch.equal(rows, strided)


def test_compiles_once_for_all_sizes():
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda q, k, v, ptr: varlen.attention(q, k * 2, v, make_layout(ptr, len(k), k.device), 0.5),
        fullgraph=True,
        dynamic=True,
        backend="aot_eager",
    )
    for n in (50, 77):
        q, k, v, layout = inputs(2, 5, 8, [0, 9, 9, n])
        with torch.compiler.set_stance("default" if n == 50 else "fail_on_recompile"):
            y = compiled(q, k, v, layout.ptr)
            grads = torch.autograd.grad(y.sum(), (q, k, v))
        expected = reference.attention(q, k * 2, v, layout, 0.5)
        close(y, expected, terms=n)
        close(grads, torch.autograd.grad(expected.sum(), (q, k, v)), terms=n, roundings=32)


def test_what_it_cannot_do_is_said(monkeypatch):
    def message(error, *arguments):
        with pytest.raises(error) as caught:
            flare_attention(*inputs(1, 5, *arguments)[:3], backend="varlen")
        return str(caught.value)

    instead = "; use backend='sdpa'"
    assert message(TypeError, 8, [0, 9]) == (
        f"backend 'varlen' computes float16 and bfloat16, got torch.float32{instead}"
    )
    for width in (4, 264):
        assert message(ValueError, width, [0, 9], torch.float16) == (
            f"backend 'varlen' takes D = 8, 16, ..., 256, got {width}{instead}"
        )
    assert message(ValueError, 8, [0, 9], torch.bfloat16) == (
        f"backend 'varlen' needs tensors on a CUDA device, got cpu{instead}"
    )
    monkeypatch.setattr(dispatch, "HAS_VARLEN", False)
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    assert message(ValueError, 8, [0, 9], torch.bfloat16) == (
        f"backend 'varlen' needs torch 2.10 or later, got {torch.__version__}{instead}"
    )
    monkeypatch.setattr(dispatch, "HAS_VARLEN", True)
    q, k, v, layout = inputs(1, 5, 8, [0, 9], torch.bfloat16)
    y = flare_attention(q, k, v, layout, backend="varlen")
    assert torch.equal(y, varlen.attention(q, k, v, layout, 1.0))
