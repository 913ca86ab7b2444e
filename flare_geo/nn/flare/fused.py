"""When a FLARE block can run as the one C++ operator, and its weights for it."""

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeGuard

import torch
from torch import Tensor, nn

from flare_geo.nn.flare.conv import FlareConv
from flare_geo.nn.mlp import ResidualMLP, has_hooks, weights_and_biases
from flare_geo.ops import Layout
from flare_geo.ops.dispatch import takes
from flare_geo.ops.residual_mlp import stack_layers

if TYPE_CHECKING:
    from flare_geo.ops.cpp import Weights

Parts = tuple[nn.Module, nn.Module, nn.Module, nn.Module]
"""Of a block, in the order of the computation: norm1, mixer, norm2, mlp."""
Fused = Callable[[Parts, Tensor, Layout], Tensor | None]


def cpp_block(parts: Parts, x: Tensor, layout: Layout) -> Tensor | None:
    """The output `[N, C]` of a block; None where the operator does not do what the block does.

    It knows LayerNorm, the paper's mixer without q/k norms, and residual MLPs of one width. Where a
    hook sees what passes between layers, they run one by one.
    """
    norm1, conv, norm2, mlp = parts
    if not (
        _is_layer_norm(norm1)
        and _is_layer_norm(norm2)
        and isinstance(conv, FlareConv)
        and isinstance(mlp, ResidualMLP)
        and isinstance(conv.q_norm, nn.Identity)
        and conv.conditioned is conv.latent_blocks is conv.g_mlp is conv.join is None
        and all(each.has_one_width for each in (conv.k_mlp, conv.v_mlp, mlp))
        and len(conv.k_mlp.layers) == len(conv.v_mlp.layers)
        and conv.k_mlp.act == conv.v_mlp.act == mlp.act
        and not any(has_hooks(part) for part in parts)
    ):
        return None
    from flare_geo.ops import cpp

    if not takes("residual_mlps", "cpp", x, mlp.act) or conv.width not in cpp.WIDTHS:
        return None
    eps = (norm1.eps, norm2.eps)
    weights = weights_of(norm1, conv, norm2, mlp)
    return cpp.flare_block(x, layout, weights, scale=conv.scale, act=mlp.act, eps=eps)


def weights_of(
    norm1: nn.LayerNorm, conv: FlareConv, norm2: nn.LayerNorm, mlp: ResidualMLP
) -> "Weights":
    """The parameters of a block as the operator takes them."""
    from flare_geo.ops.cpp import Weights

    return Weights(
        conv.q.expand(conv.heads, -1, -1).contiguous(),
        torch.stack([norm1.weight, norm1.bias]),
        *_stacked(conv.k_mlp, conv.v_mlp),
        conv.lin_out.weight,
        conv.lin_out.bias,
        torch.stack([norm2.weight, norm2.bias]),
        *_stacked(mlp),
    )


def _is_layer_norm(norm: nn.Module) -> TypeGuard[nn.LayerNorm]:
    return type(norm) is nn.LayerNorm and norm.elementwise_affine and norm.bias is not None


def _stacked(*mlps: ResidualMLP) -> tuple[Tensor, Tensor]:
    """Weights `[G, L, C, C]` and biases `[G, L, C]`."""
    weights, biases = weights_and_biases(mlps)
    return stack_layers(weights), stack_layers(biases)
