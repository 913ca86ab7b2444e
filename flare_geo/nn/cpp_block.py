"""When a block can run as the one C++ operator, and its weights for it."""

from typing import TYPE_CHECKING, TypeGuard, cast

import torch
from torch import Tensor, nn

from flare_geo.nn.flare_conv import FlareConv
from flare_geo.nn.mlp import ResidualMLP, has_hooks, weights_and_biases
from flare_geo.ops import Layout
from flare_geo.ops.dispatch import takes
from flare_geo.ops.residual_mlp import stack_layers

if TYPE_CHECKING:
    from flare_geo.nn.block import FlareBlock
    from flare_geo.ops.cpp import Weights


def cpp_block(block: "FlareBlock", x: Tensor, layout: Layout) -> Tensor | None:
    """The output `[N, C]` of a block; None where the operator does not do what the block does.

    It does not for other norms than LayerNorm, q/k norms, a mixer that does more than the paper's,
    MLPs that are no chains of one width, or where somebody listens to what passes between the
    layers.
    """
    conv, mlp = _parts(block)
    k_mlp, v_mlp = conv.k_mlp, conv.v_mlp
    norm1, norm2 = block.norm1, block.norm2
    if not (
        _is_layer_norm(norm1)
        and _is_layer_norm(norm2)
        and isinstance(conv.q_norm, nn.Identity)
        and conv.is_plain
        and conv.join is None
        and all(chain.is_chain for chain in (k_mlp, v_mlp, mlp))
        and len(k_mlp.layers) == len(v_mlp.layers)
        and k_mlp.act == v_mlp.act == mlp.act
        and not has_hooks(block)
    ):
        return None
    from flare_geo.ops import cpp

    if not takes("residual_mlps", "cpp", x, mlp.act) or conv.q.shape[-1] not in cpp.WIDTHS:
        return None
    return cpp.flare_block(
        x,
        layout,
        weights_of(block),
        scale=conv.scale,
        act=mlp.act,
        eps=(norm1.eps, norm2.eps),
    )


def weights_of(block: "FlareBlock") -> "Weights":
    """The parameters of a block as the operator takes them."""
    from flare_geo.ops.cpp import Weights

    conv, mlp = _parts(block)
    return Weights(
        conv.q.expand(conv.heads, -1, -1).contiguous(),
        _norm(block.norm1),
        *_chains(conv.k_mlp, conv.v_mlp),
        conv.lin_out.weight,
        conv.lin_out.bias,
        _norm(block.norm2),
        *_chains(mlp),
    )


def _parts(block: "FlareBlock") -> tuple[FlareConv, ResidualMLP]:
    return cast(FlareConv, block.conv), cast(ResidualMLP, block.mlp)


def _is_layer_norm(norm: nn.Module) -> TypeGuard[nn.LayerNorm]:
    return type(norm) is nn.LayerNorm and norm.elementwise_affine and norm.bias is not None


def _norm(norm: nn.Module) -> Tensor:
    assert _is_layer_norm(norm)
    return torch.stack([norm.weight, norm.bias])


def _chains(*mlps: ResidualMLP) -> tuple[Tensor, Tensor]:
    """Weights `[G, L, C, C]` and biases `[G, L, C]`."""
    weights, biases = weights_and_biases(mlps)
    return stack_layers(weights), stack_layers(biases)
