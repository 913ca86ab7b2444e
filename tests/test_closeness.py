"""The shared comparison lets rounding pass, and nothing else."""

import pytest
import torch
from closeness import close


@pytest.mark.parametrize(
    ("dtype", "mistake"), [(torch.float32, 1e-3), (torch.float64, 1e-9), (torch.bfloat16, 0.2)]
)
def test_a_mistake_is_caught_and_named(dtype, mistake):
    exact = {name: torch.randn(50, 8, dtype=torch.float64) for name in ("y", "dq")}
    found = {name: t.to(dtype) for name, t in exact.items()}
    close(found, exact, terms=1000, roundings=32)
    found["dq"] = found["dq"] * (1 + mistake)
    with pytest.raises(AssertionError, match="dq is off by"):
        close(found, exact, terms=1000, roundings=32)
    found["dq"] = torch.full_like(found["dq"], torch.nan)
    with pytest.raises(AssertionError, match="dq is off by nan"):
        close(found, exact, terms=1000, roundings=32)


def test_sums_in_another_order_are_the_same():
    x = torch.randn(1000, 100)
    close(x.flip(0).cumsum(0)[-1], x.double().sum(0), terms=1000)


def test_what_cancels_is_seen_beside_what_does_not():
    noise = 1e-7 * torch.randn(20)  # of sums of numbers near one
    close([torch.ones(20), noise], [torch.ones(20), torch.zeros(20)])
    with pytest.raises(AssertionError, match="tensor 0 is off by"):
        close([noise], [torch.zeros(20)])
