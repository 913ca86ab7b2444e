"""Causal convolution along the points of each cloud."""

from itertools import pairwise

import torch
from torch import Tensor
from torch.library import custom_op

from flare_geo.ops.gradients import register_gradient
from flare_geo.ops.layout import Layout, make_layout


def causal_convolution(u: Tensor, kernel: Tensor, ptr: Tensor | Layout | None = None) -> Tensor:
    r"""Causal convolution of each channel along the points of each cloud.

    .. math::
        y_t = \sum_{\tau \le t} \kappa_{t - \tau}\, u_\tau

    It is computed by FFT in O(N C log N); errors are relative to the largest value of the cloud.

    Args:
        u: features of the points, float32 or float64.
        kernel: row t weights the point t places earlier; at least as many rows as the largest
            cloud has points.
        ptr: offsets of the clouds, None for one cloud.

    Shapes:
        - **u:** `[N, C]`; **kernel:** `[L, C]`; **ptr:** `[B+1]`; **returns** `[N, C]`

    Example:
        >>> causal_convolution(torch.ones(4, 1), torch.ones(4, 1), torch.tensor([0, 1, 4])).T
        tensor([[1., 1., 2., 3.]])
    """
    y: Tensor = _op(u, kernel, make_layout(ptr, u.shape[0], u.device).ptr)
    return y


@custom_op("flare_geo::causal_convolution", mutates_args=())
def _op(u: Tensor, kernel: Tensor, ptr: Tensor) -> Tensor:
    """One operator: sizes are unknown under torch.compile."""
    y = torch.empty_like(u)
    for cloud, n in _clouds(ptr):
        y[cloud] = _inverse(_spectrum(u[cloud]) * _spectrum(kernel[:n]), n)
    return y


@custom_op("flare_geo::causal_convolution_backward", mutates_args=())
def _backward_op(dy: Tensor, u: Tensor, kernel: Tensor, ptr: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients are correlations: of dy with the kernel, and of dy with u."""
    dy = dy.contiguous()
    du, dkernel = u.new_empty(u.shape), kernel.new_zeros(kernel.shape)
    for cloud, n in _clouds(ptr):
        spectrum = _spectrum(dy[cloud])
        du[cloud] = _inverse(spectrum * _spectrum(kernel[:n]).conj(), n)
        dkernel[:n] += _inverse(spectrum * _spectrum(u[cloud]).conj(), n)
    return du, dkernel


def _clouds(ptr: Tensor) -> list[tuple[slice, int]]:
    """The clouds that have points, and how many."""
    return [(slice(a, b), b - a) for a, b in pairwise(ptr.tolist()) if b > a]


def _spectrum(x: Tensor) -> Tensor:
    """The spectrum of x padded to twice its length: the convolution does not wrap around."""
    spectrum: Tensor = torch.fft.rfft(x, 2 * x.shape[0], dim=0)
    return spectrum


def _inverse(spectrum: Tensor, n: int) -> Tensor:
    x: Tensor = torch.fft.irfft(spectrum, 2 * n, dim=0)[:n]
    return x


_op.register_fake(lambda u, kernel, ptr: torch.empty_like(u))
register_gradient(_op, _backward_op, count=2)
