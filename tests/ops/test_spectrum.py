import resource
import subprocess
import sys

import pytest
import torch

from flare_geo.ops import flare_attention, spectrum
from flare_geo.ops.spectrum import (
    decode_weights,
    effective_rank,
    encode_weights,
    mixing_eigenvectors,
    mixing_spectrum,
)


def inputs(n=300, heads=3, latents=24, width=4, spread=1.0):
    q = spread * torch.randn(heads, latents, width)
    return q, torch.randn(n, heads, width)


def dense(q, k, scale):
    """The N x N operators themselves: what attention does to the identity, column by column."""
    n, heads, width = k.shape
    eye = torch.eye(n, -(-n // width) * width, dtype=torch.float64)[:, None].expand(-1, heads, -1)
    columns = [
        flare_attention(q.double(), k.double(), v, scale=scale, backend="reference")
        for v in eye.split(width, dim=-1)
    ]
    return torch.cat(columns, dim=-1)[..., :n].transpose(0, 1)  # [H, N, N]


@pytest.fixture(params=[2**21, 1000])
def _chunks(request, monkeypatch):
    """With all points at once, and with a few at a time."""
    monkeypatch.setattr(spectrum, "CHUNK", request.param)


@pytest.mark.usefixtures("_chunks")
@pytest.mark.parametrize(("spread", "scale"), [(1.0, 1.0), (4.0, 0.5), (0.05, 1.0), (30.0, 1.0)])
def test_the_spectrum_is_that_of_the_dense_operator(spread, scale):
    q, k = inputs(spread=spread)
    full = torch.linalg.eigvals(dense(q, k, scale))
    assert full.imag.abs().max() < 1e-5  # a multiple eigenvalue moves by roots of eps, as does 0
    expected = full.real.sort(descending=True).values
    found = mixing_spectrum(q, k, scale=scale)
    assert found.shape == (3, 24)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, expected[:, :24], rtol=0, atol=1e-10)
    assert expected[:, 24:].abs().max() < 1e-5
    torch.testing.assert_close(found[:, 0], torch.ones(3, dtype=torch.float64))
    assert (found.diff(dim=1) <= 0).all()


@pytest.mark.usefixtures("_chunks")
def test_eigenvectors_are_scaled_by_the_dense_operator():
    q, k = inputs(spread=2.0)
    values, x = mixing_eigenvectors(q, k, 6, scale=0.7)
    torch.testing.assert_close(values, mixing_spectrum(q, k, scale=0.7)[:, :6])
    torch.testing.assert_close(dense(q, k, 0.7) @ x, values[:, None] * x, rtol=0, atol=1e-9)
    torch.testing.assert_close(x[..., 0], torch.ones(3, 300, dtype=torch.float64))
    torch.testing.assert_close(x.abs().amax(1), torch.ones(3, 6, dtype=torch.float64))
    share = (0.7 * torch.einsum("hmd,nhd->hnm", q, k).double()).exp().sum(-1)
    inner = torch.einsum("hnc,hn,hnd->hcd", x, share / share.sum(-1, keepdim=True), x)
    off = inner - torch.diag_embed(inner.diagonal(dim1=1, dim2=2))
    assert off.abs().max() < 1e-6  # the share is in float32 here


@pytest.mark.usefixtures("_chunks")
def test_weights_multiply_to_the_operator_and_sum_to_one():
    q, k = inputs()
    encode, decode = encode_weights(q, k, scale=0.7), decode_weights(q, k, scale=0.7)
    assert encode.shape == (3, 24, 300)
    assert decode.shape == (300, 3, 24)
    w = torch.einsum("nhm,hmp->hnp", decode.double(), encode.double())
    torch.testing.assert_close(w, dense(q, k, 0.7), rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(encode.sum(-1), torch.ones(3, 24))
    torch.testing.assert_close(decode.sum(-1), torch.ones(300, 3))


def test_some_latents_of_one_head():
    q, k = inputs()
    chosen = [5, 0, 7]
    torch.testing.assert_close(
        encode_weights(q[1:2, chosen], k[:, 1:2]), encode_weights(q, k)[1:2, chosen]
    )
    torch.testing.assert_close(
        decode_weights(q[1:2], k[:, 1:2], latents=chosen), decode_weights(q, k)[:, 1:2, chosen]
    )


@pytest.mark.parametrize("n", [1, 5])
def test_fewer_points_than_latents(n):
    q, k = inputs(n=n)
    found = mixing_spectrum(q, k)
    expected = torch.linalg.eigvals(dense(q, k, 1.0)).real.sort(descending=True).values
    torch.testing.assert_close(found[:, :n], expected, rtol=0, atol=1e-10)
    assert found[:, n:].max() < 1e-12


def test_scores_beyond_the_range_of_exp():
    q, k = inputs(spread=3000.0)  # scores of some ten thousand; exp overflows at 710
    values, x = mixing_eigenvectors(q, k, 24)
    torch.testing.assert_close(values[:, 0], torch.ones(3, dtype=torch.float64))
    assert values.isfinite().all()
    assert x.isfinite().all()
    assert (x.abs().amax(1)[values > 1e-6] == 1).all()


def test_equal_scores_only_average():
    values = mixing_spectrum(torch.zeros(2, 8, 4), torch.randn(50, 2, 4))
    torch.testing.assert_close(values[:, 0], torch.ones(2, dtype=torch.float64))
    assert values[:, 1:].max() < 1e-12
    torch.testing.assert_close(effective_rank(values), torch.ones(2, dtype=torch.float64))


def test_clusters_that_do_not_see_each_other_have_an_eigenvalue_of_one_each():
    direction = torch.eye(4)
    q = 60.0 * direction.repeat(2, 1)[None]  # two latents for each of four clusters
    k = direction.repeat(25, 1)[:, None]
    values = mixing_spectrum(q, k)[0]
    torch.testing.assert_close(values[:4], torch.ones(4, dtype=torch.float64))
    assert values[4:].max() < 1e-12
    assert float(effective_rank(values)) == pytest.approx(4)


def test_effective_rank_counts_equal_eigenvalues():
    values = torch.tensor([[1.0, 1, 1, 0, 0], [1, 0, 0, 0, 0], [1, 1, 1, 1, 1]])
    torch.testing.assert_close(effective_rank(values), torch.tensor([3.0, 1, 5]))
    skewed = float(effective_rank(torch.tensor([1.0, 0.5])))
    assert skewed == pytest.approx((3 / 2) ** (2 / 3) * 3 ** (1 / 3))


def test_bad_shapes_are_named():
    q, k = inputs()
    with pytest.raises(ValueError, match=r"got \[3, 24, 4\] and \[300, 2, 4\]"):
        mixing_spectrum(q, k[:, :2])
    with pytest.raises(ValueError, match="with N > 0"):
        mixing_spectrum(q, k[:0])
    with pytest.raises(ValueError, match="count must be 1 to the number of latents 24, got 25"):
        mixing_eigenvectors(q, k, 25)


PEAK = """
import resource, torch
from flare_geo.ops import spectrum
from flare_geo.ops.spectrum import mixing_eigenvectors, mixing_spectrum
spectrum.CHUNK //= 8  # 2 MiB: what the allocator keeps of them is small
q, k = torch.randn(4, 32, 8), torch.randn(200_000, 4, 8)
mixing_spectrum(q, k[:50_000])  # what loading and warming up takes
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
values = mixing_spectrum(q, k)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
_, x = mixing_eigenvectors(q[:1], k[:, :1], 4)
assert float((values[:, 0] - 1).abs().max()) < 1e-9 and x.shape == (1, 200_000, 4)
print((after - before) * 1024, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - after) * 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in other units there")
def test_memory_does_not_grow_with_points_beyond_the_keys():
    done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    spectrum_bytes, vector_bytes = map(int, done.stdout.split())
    assert resource.getpagesize() <= 65536  # the resolution of the numbers above
    assert (
        spectrum_bytes < 64e6
    )  # seven times what it takes; all scores would be 205 MB, N x N 320 GB
    assert vector_bytes < 64e6 + 200_000 * 4 * 8
