import pytest
import torch

from flare_geo.ops import flare_attention, flare_decode, flare_encode, make_layout

pytestmark = pytest.mark.gpu
PTRS = [None, [0, 0, 1, 900, 2000], [0, 500, 1000, 1500, 2000]]


@pytest.mark.parametrize("ptr", PTRS)
@pytest.mark.parametrize("width", [4, 8, 16, 64])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_backends_agree_with_float64(dtype, width, ptr):
    q = torch.randn(4, 33, width, device="cuda", dtype=dtype, requires_grad=True)
    k, v = torch.randn(2, 2000, 4, width, device="cuda", dtype=dtype).unbind()
    k, v = k.requires_grad_(), v.requires_grad_()
    ptr = None if ptr is None else torch.tensor(ptr, device="cuda")
    exact = [x.detach().double().requires_grad_() for x in (q, k, v)]
    expected = flare_attention(*exact, ptr, scale=width**-0.5, backend="reference")
    y = flare_attention(q, k, v, ptr, scale=width**-0.5, backend="sdpa")
    tolerance = 32 * torch.finfo(dtype).eps
    torch.testing.assert_close(y.double(), expected, rtol=tolerance, atol=tolerance)
    weight = torch.randn_like(y)
    grads = torch.autograd.grad((y * weight).sum(), (q, k, v))
    wanted = torch.autograd.grad((expected * weight.double()).sum(), exact)
    for a, b in zip(grads, wanted):
        assert (a.double() - b).abs().max() <= 4 * tolerance * b.abs().max()
    z, _ = flare_encode(q, k, v, ptr, scale=width**-0.5)
    y2 = flare_decode(q, k, z, ptr, scale=width**-0.5)
    torch.testing.assert_close(y2, y, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("ptr", [*PTRS, [0, 0, 1, 1, 2000, 2000]])
@pytest.mark.parametrize("width", [8, 16, 64, 256])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_varlen_agrees_with_float64(dtype, width, ptr):
    pytest.importorskip("flare_geo.ops.varlen", reason="needs torch 2.10 or later")
    clouds = 1 if ptr is None else len(ptr) - 1
    ptr = None if ptr is None else torch.tensor(ptr, device="cuda")
    scale, tolerance = -(width**-0.5), 8 * torch.finfo(dtype).eps

    def outputs(q, k, v, z, backend):
        options = {"scale": scale, "backend": backend}
        found_z, lse = flare_encode(q, k, v, ptr, **options)
        filled = lse > -torch.inf
        assert (found_z[~filled] == 0).all()
        y = flare_attention(q, k, v, ptr, **options)
        return y, flare_decode(q, k, z, ptr, **options), found_z, lse[filled]

    q, z = torch.randn(2, clouds, 4, 33, width, device="cuda", dtype=dtype).unbind()
    k, v = torch.randn(2, 2000, 4, width, device="cuda", dtype=dtype).unbind()
    tensors = [x.requires_grad_() for x in (q, k, v, z)]
    exact = [x.detach().double().requires_grad_() for x in tensors]
    found, true = outputs(*tensors, "varlen"), outputs(*exact, "reference")
    for a, b in zip(found, true):
        assert (a.double() - b).norm() <= tolerance * b.norm()
        weight = torch.randn_like(a)
        needed = {"allow_unused": True, "materialize_grads": True, "retain_graph": True}
        grads = torch.autograd.grad((a * weight).sum(), tensors, **needed)
        wanted = torch.autograd.grad((b * weight).sum(), exact, **needed)
        for x, w in zip(grads, wanted):
            assert (x.double() - w).norm() <= tolerance * w.norm()


def test_varlen_compiles_for_all_sizes():
    pytest.importorskip("flare_geo.ops.varlen", reason="needs torch 2.10 or later")

    def attention(q, k, v, ptr, backend="varlen"):
        return flare_attention(q, k, v, make_layout(ptr, len(k), k.device), backend=backend)

    compiled = torch.compile(attention, fullgraph=True, dynamic=True)
    for n in (500, 777):
        q = torch.randn(4, 33, 16, device="cuda", dtype=torch.bfloat16, requires_grad=True)
        k, v = torch.randn(2, n, 4, 16, device="cuda", dtype=torch.bfloat16).unbind()
        ptr = torch.tensor([0, 90, 90, n], device="cuda")
        with torch.compiler.set_stance("default" if n == 500 else "fail_on_recompile"):
            y = compiled(q, k, v, ptr)
            (grad,) = torch.autograd.grad(y.sum(), q)
        expected = attention(q, k, v, ptr, "reference")
        torch.testing.assert_close(y, expected, rtol=0.05, atol=0.05)
        (wanted,) = torch.autograd.grad(expected.sum(), q)
        assert (grad - wanted).norm() <= 0.1 * wanted.norm()
