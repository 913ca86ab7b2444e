"""Which implementation runs: the one asked for, else the best for the inputs."""

from typing import Literal, Protocol, get_args

from torch import Tensor

from flare_geo.ops import reference, sdpa
from flare_geo.ops.fused import use_triton
from flare_geo.ops.layout import Layout

Backend = Literal["auto", "reference", "sdpa", "triton"]


class Implementation(Protocol):
    """What a backend module offers; inputs are checked already."""

    def encode(
        self, q: Tensor, k: Tensor, v: Tensor, layout: Layout, scale: float
    ) -> tuple[Tensor, Tensor]:
        """`z [B, H, M, D]` and `lse [B, H, M]`."""

    def decode(self, q: Tensor, k: Tensor, z: Tensor, layout: Layout, scale: float) -> Tensor:
        """`y [N, H, D]`."""

    def attention(self, q: Tensor, k: Tensor, v: Tensor, layout: Layout, scale: float) -> Tensor:
        """Both in one: `y [N, H, D]`."""


IMPLEMENTATIONS: dict[str, Implementation] = {"reference": reference, "sdpa": sdpa}
WIDEST = 128  # D of the Triton kernels


def choose_backend(backend: str, q: Tensor) -> Implementation:
    """The implementation for a backend name and queries.

    ``"auto"`` is Triton on CUDA where triton is installed and takes the dtype and the head width,
    else SDPA.

    Raises:
        ValueError: if there is no such backend, or ``"triton"`` cannot run such a call.
        TypeError: if ``"triton"`` is asked for a dtype that its kernels do not compute.
    """
    if backend not in get_args(Backend):
        raise ValueError(f"backend must be one of {', '.join(get_args(Backend))}, got '{backend}'")
    if backend in IMPLEMENTATIONS:
        return IMPLEMENTATIONS[backend]
    if use_triton(backend, q, q.shape[-1], WIDEST, instead="sdpa"):
        from flare_geo.ops import triton

        return triton
    return sdpa
