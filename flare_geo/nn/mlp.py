"""The residual MLP of FLARE: keys, values, feed-forward, embedding and head are made of it."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, cast

import torch
from torch import Tensor, nn

from flare_geo.ops.dispatch import takes
from flare_geo.ops.residual_mlp import ACTIVATIONS, Activation, residual_mlps

Init = Literal["paper", "default"]


class ResidualMLP(nn.Module):
    r"""Linears with skips, from `"FLARE" <https://arxiv.org/abs/2508.12594>`_.

    .. math::
        h_0 = \sigma(W_{in} x) + [x], \qquad
        h_{j+1} = h_j + \sigma(W_j h_j), \qquad
        y = W_{out} h_L + [h_L]

    The bracketed skips are there when asked for and when the widths on both sides agree.

    Args:
        in_channels: width of x.
        out_channels: width of y; as x if None.
        hidden_channels: width of h; as y if None.
        num_layers: number L of inner layers; 0 gives two linears, -1 a single one (y = W x + [x]).
        act: activation, the paper's is the tanh form of GELU.
        input_residual: whether x is added to the first layer.
        output_residual: whether h is added to the last layer.
        backend: ``"auto"``, or ``"cpp"`` for the C++ kernels alone, see
            :func:`flare_geo.ops.residual_mlps`.

    Shapes:
        - **x:** `[..., in_channels]`; **returns** `[..., out_channels]`

    Raises:
        ValueError: if there is no such activation, depth or backend; in :meth:`forward`, if
            ``"cpp"`` cannot compute such a call.

    Example:
        >>> ResidualMLP(64, num_layers=3)(torch.randn(500, 64)).shape
        torch.Size([500, 64])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int | None = None,
        hidden_channels: int | None = None,
        num_layers: int = 3,
        *,
        act: Activation = "gelu_tanh",
        input_residual: bool = True,
        output_residual: bool = True,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        if act not in ACTIVATIONS:
            raise ValueError(f"act must be one of {', '.join(ACTIVATIONS)}, got '{act}'")
        if num_layers < -1:
            raise ValueError(f"num_layers must be -1 (one linear) or more, got {num_layers}")
        if backend not in ("auto", "cpp"):
            raise ValueError(f"backend must be 'auto' or 'cpp', got '{backend}'")
        out_channels = in_channels if out_channels is None else out_channels
        hidden_channels = out_channels if hidden_channels is None else hidden_channels
        if num_layers == -1:
            hidden_channels = in_channels
        self.act: Activation = act
        self.backend = backend
        self.prefers_cpp = backend == "cpp"
        self.input_residual = input_residual and in_channels == hidden_channels
        self.output_residual = output_residual and hidden_channels == out_channels
        self.layers = nn.ModuleList()
        if num_layers >= 0:
            self.layers.append(nn.Linear(in_channels, hidden_channels))
        for _ in range(num_layers):
            self.layers.append(nn.Linear(hidden_channels, hidden_channels))
        self.lin_out = nn.Linear(hidden_channels, out_channels)
        if num_layers == -1:  # its one residual needs both flags
            self.output_residual = self.output_residual and self.input_residual

    def forward(self, x: Tensor) -> Tensor:
        """`[..., in_channels]` to `[..., out_channels]`."""
        if kernels := _kernels([self], x):
            return _fused([self], x.flatten(0, -2), kernels)[0].view_as(x)
        if self.backend == "cpp":
            raise ValueError(_refusal(self, x))
        x = self.hidden(x)
        y: Tensor = self.lin_out(x)
        return y + x if self.output_residual else y

    def take_cpp(self) -> None:
        """Take the C++ kernels where they fit a call, plain PyTorch elsewhere."""
        self.prefers_cpp = True

    def hidden(self, x: Tensor) -> Tensor:
        """The input of the last layer: `[..., in_channels]` to `[..., hidden_channels]`."""
        act = ACTIVATIONS[self.act]
        for j, layer in enumerate(self.layers):
            h = act(layer(x))
            x = h + x if j > 0 or self.input_residual else h
        return x

    @property
    def linears(self) -> list[nn.Linear]:
        """All linears, in the order in which a point meets them."""
        return cast(list[nn.Linear], [*self.layers, self.lin_out])

    @property
    def has_one_width(self) -> bool:
        """Whether all widths are one and both outer skips are there: what fused kernels compute."""
        return (
            len(self.layers) > 0
            and self.input_residual
            and self.output_residual
            and all(
                type(linear) is nn.Linear and linear.bias is not None for linear in self.linears
            )
        )


def apply_together(mlps: Sequence[ResidualMLP], x: Tensor) -> tuple[Tensor, ...]:
    """Several residual MLPs on the same points, by one kernel where they are of one kind.

    Shapes:
        - **x:** `[N, C]`; **returns** one `[N, C_out]` each
    """
    if kernels := _kernels(mlps, x):
        return _fused(mlps, x, kernels)
    return tuple(mlp(x) for mlp in mlps)


def weights_and_biases(
    mlps: Sequence[ResidualMLP],
) -> tuple[list[list[Tensor]], list[list[Tensor]]]:
    """What :func:`flare_geo.ops.residual_mlps` takes of MLPs with :attr:`has_one_width`."""
    weights = [[linear.weight for linear in mlp.linears] for mlp in mlps]
    return weights, [[linear.bias for linear in mlp.linears] for mlp in mlps]


def _kernels(mlps: Sequence[ResidualMLP], x: Tensor) -> str | None:
    """The backend that computes all these MLPs at once; None for plain PyTorch."""
    first = mlps[0]
    if not (x.is_cuda or first.prefers_cpp):
        return None
    alike = len({(len(mlp.layers), mlp.act, mlp.backend) for mlp in mlps}) == 1
    if not alike or not all(mlp.has_one_width and not has_hooks(mlp) for mlp in mlps):
        return None
    if first.prefers_cpp and takes("residual_mlps", "cpp", x, first.act):
        return "cpp"
    return "auto" if x.is_cuda and first.backend == "auto" else None


def _fused(mlps: Sequence[ResidualMLP], x: Tensor, backend: str) -> tuple[Tensor, ...]:
    weights, biases = weights_and_biases(mlps)
    return residual_mlps(x, weights, biases, act=mlps[0].act, backend=backend)


def _refusal(mlp: ResidualMLP, x: Tensor) -> str:
    widths = [mlp.linears[0].in_features, *(linear.out_features for linear in mlp.linears)]
    return (
        "backend 'cpp' computes MLPs with one width, a multiple of 16, with both outer skips and "
        "gelu_tanh or silu, in float32 on the CPU, without autocast or hooks inside; got widths "
        f"{widths}, act '{mlp.act}', x {x.dtype} on {x.device}; use 'auto'"
    )


def has_hooks(module: nn.Module) -> bool:
    """Whether a hook, here or below, sees or changes what passes between layers."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or any(has_hooks(m) for m in module._modules.values() if m is not None)
    )


def gelu_mlp(*widths: int) -> nn.Sequential:
    """Linears from width to width with an exact GELU between them, without skips."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.GELU()]
    return nn.Sequential(*layers[:-1])


def reset_linears(module: nn.Module, init: Init) -> None:
    """Start all linear layers below `module`: the paper's N(0, 0.02) and zero bias, or PyTorch's.

    Raises:
        ValueError: if `init` is neither ``"paper"`` nor ``"default"``.
    """
    if init not in ("paper", "default"):
        raise ValueError(f"init must be 'paper' or 'default', got '{init}'")
    for linear in module.modules():
        if isinstance(linear, nn.Linear):
            if init == "default":
                linear.reset_parameters()
                continue
            nn.init.normal_(linear.weight, std=0.02)
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)


class FourierFeatures(nn.Module):
    r"""Appends :math:`\sin(2^k \pi x), \cos(2^k \pi x)`, k = 0..K-1, to the channels of x.

    From coordinates alone a network learns sharp gradients slowly; see `"Fourier Features Let
    Networks Learn High Frequency Functions" <https://arxiv.org/abs/2006.10739>`_.

    Args:
        num_frequencies: number K of octaves; 0 leaves x as it is.

    Shapes:
        - **x:** `[..., C]`; **returns** `[..., (2 K + 1) C]`
    """

    octaves: Tensor

    def __init__(self, num_frequencies: int) -> None:
        super().__init__()
        octaves = torch.pi * 2.0 ** torch.arange(num_frequencies)
        self.register_buffer("octaves", octaves, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Append the waves."""
        if self.octaves.numel() == 0:
            return x
        angles = (x.unsqueeze(-1) * self.octaves.to(x.dtype)).flatten(-2)  # [..., C K]
        return torch.cat([x, angles.sin(), angles.cos()], dim=-1)
