"""What `mixer.py` times: inputs of one size, and the ways to mix them, with their gradients."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import plain
import torch
from torch import Tensor, nn

from flare_geo.nn import FlareConv
from flare_geo.ops import flare_attention

BASELINE = "two sdpa"


class Case(NamedTuple):
    """What is computed: the sizes, and how."""

    bare: bool
    latents: int
    width: int
    heads: int
    dtype: torch.dtype
    device: torch.device

    @property
    def words(self) -> dict[str, Any]:
        """What a row says of it."""
        return {
            "mixer": "bare" if self.bare else "layer",
            "M": self.latents,
            "H": self.heads,
            "D": self.width,
            "dtype": str(self.dtype).removeprefix("torch."),
        }


class Problem:
    """Inputs of one size and the ways to mix them, by name."""

    def __init__(self, case: Case, points: int, ways: Sequence[str]) -> None:
        self.case, self.points = case, points
        torch.manual_seed(points + case.latents)
        self.ways: dict[str, Callable[[], Tensor]] = {}
        self.leaves: dict[str, list[Tensor]] = {}
        (self._bare if case.bare else self._layers)(ways)

    def _draw(self, *shape: int) -> Tensor:
        return torch.randn(*shape, device=self.case.device, dtype=self.case.dtype)

    def _bare(self, ways: Sequence[str]) -> None:
        case, n = self.case, self.points
        q = self._draw(case.heads, case.latents, case.width).requires_grad_()
        k, v = (self._draw(n, case.heads, case.width).requires_grad_() for _ in range(2))
        self.inputs = [q, k, v]
        self.weight = self._draw(n, case.heads, case.width)
        scale = case.width**-0.5  # scores as a trained layer has them, for random q and k

        def baseline() -> Tensor:
            dense = (t.unsqueeze(0).transpose(1, 2) for t in (k, v))  # [1, H, N, D]
            return plain.two_sdpa(q, *dense, scale).transpose(1, 2).squeeze(0)

        for name in ways:
            backend = name.removeprefix("flare ")
            self.ways[name] = (
                baseline
                if name == BASELINE
                else lambda b=backend: flare_attention(q, k, v, scale=scale, backend=b)
            )
            self.leaves[name] = self.inputs

    def _layers(self, ways: Sequence[str]) -> None:
        case = self.case
        channels = case.heads * case.width
        x = self._draw(self.points, channels).float().requires_grad_()
        self.weight = self._draw(self.points, channels)
        self.layer = FlareConv(
            channels, heads=case.heads, num_latents=case.latents, init="default"
        ).to(case.device)
        self.inputs = [x, *plain.parameters_by_name(self.layer)]
        half = case.dtype != torch.float32

        def run(layer: nn.Module, dense: bool) -> Tensor:
            with torch.autocast(case.device.type, dtype=case.dtype, enabled=half):
                y: Tensor = layer(x.unsqueeze(0)).squeeze(0) if dense else layer(x)
            return y

        for name in ways:
            layer = self._layer(name, channels).to(case.device)
            self.ways[name] = lambda a=layer, b=name != "flare auto": run(a, b)
            self.leaves[name] = [x, *plain.parameters_by_name(layer)]

    def _layer(self, name: str, channels: int) -> nn.Module:
        heads, latents = self.case.heads, self.case.latents
        if name == "flare auto":
            return self.layer
        if name == BASELINE:
            layer = plain.PlainConv(channels, heads, latents)
            layer.load_state_dict(self.layer.state_dict())
            return layer
        if name == "physics":
            return plain.PhysicsAttention(channels, heads, latents)
        mixers = {"softmax": plain.softmax_attention, "linear": plain.linear_attention}
        return plain.SelfAttention(channels, heads, mixers[name])

    def forward(self, name: str) -> Tensor:
        """The output of a way, nothing kept."""
        with torch.no_grad():
            return self.ways[name]()

    def gradients(self, name: str) -> tuple[Tensor, ...]:
        """The output of a way, and the gradients of all it depends on."""
        y = self.ways[name]()
        return y, *torch.autograd.grad(y, self.leaves[name], self.weight)

    def exact(self) -> tuple[Tensor, ...]:
        """`gradients` by the definition, in float64."""
        if self.case.bare:
            inputs = [t.detach().double().requires_grad_() for t in self.inputs]
            scale = self.case.width**-0.5
            y = flare_attention(*inputs, scale=scale, backend="reference")
        else:
            channels = self.case.heads * self.case.width
            layer = FlareConv(
                channels,
                heads=self.case.heads,
                num_latents=self.case.latents,
                backend="reference",
            ).to(self.case.device, torch.float64)
            layer.load_state_dict(self.layer.state_dict())
            inputs = [
                self.inputs[0].detach().double().requires_grad_(),
                *plain.parameters_by_name(layer),
            ]
            y = layer(inputs[0])
        return y, *torch.autograd.grad(y, inputs, self.weight.double())
