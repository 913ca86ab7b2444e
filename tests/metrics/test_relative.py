import pytest
import torch

from flare_geo.metrics import max_error, r2_score, relative_l1, relative_l2

PTR = torch.tensor([0, 3, 3, 4, 10])


def by_hand(metric, p, t):
    if metric is relative_l2:
        return (p - t).norm() / t.norm()
    if metric is relative_l1:
        return (p - t).abs().sum() / t.abs().sum()
    if metric is max_error:
        return (p - t).abs().max()
    return 1 - (p - t).square().sum() / (t - t.mean(0)).square().sum()


@pytest.mark.parametrize("metric", [relative_l2, relative_l1, max_error, r2_score])
def test_cloud_by_cloud(metric):
    p, t = torch.randn(10, 2), torch.randn(10, 2)
    result = metric(p, t, PTR)
    assert result.dtype == torch.float32
    for i, (a, b) in enumerate([(0, 3), (4, 10)]):
        torch.testing.assert_close(result[[0, 3][i]], by_hand(metric, p[a:b], t[a:b]))
    torch.testing.assert_close(metric(p[:3], t[:3])[0], result[0])


def test_empty_cloud_has_no_error():
    p, t = torch.randn(10, 1), torch.randn(10, 1)
    assert relative_l2(p, t, PTR)[1] == 0
    assert max_error(p, t, PTR)[1] == 0


def test_gradient_of_a_perfect_prediction_is_zero():
    t = torch.randn(10, 1)
    p = t.clone().requires_grad_()
    relative_l2(p, t, PTR).sum().backward()
    assert torch.equal(p.grad, torch.zeros_like(p))
    p = torch.randn(10, 1, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda p: relative_l2(p, t.double(), PTR), p)


def test_large_clouds_lose_nothing():
    t = torch.full((2_000_000, 1), 1.0)
    assert abs(float(relative_l2(t + 1e-3, t)[0]) - 1e-3) < 1e-7
