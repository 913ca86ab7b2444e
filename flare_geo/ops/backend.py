"""Which implementation runs: the one asked for, else the best for the inputs."""

from typing import Literal, Protocol, get_args

from torch import Tensor

from flare_geo.ops import reference, sdpa
from flare_geo.ops.layout import Layout

Backend = Literal["auto", "reference", "sdpa"]


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


def choose_backend(backend: str) -> Implementation:
    """The implementation for a backend name.

    Raises:
        ValueError: if there is no such backend.
    """
    if backend == "auto":
        return sdpa
    if backend not in IMPLEMENTATIONS:
        raise ValueError(f"backend must be one of {', '.join(get_args(Backend))}, got '{backend}'")
    return IMPLEMENTATIONS[backend]
