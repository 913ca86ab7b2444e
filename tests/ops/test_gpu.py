import pytest
import torch

from flare_geo.ops import flare_attention, flare_decode, flare_encode

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
