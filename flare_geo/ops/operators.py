"""What the attention operators of every set of kernels have in common: shapes and gradients.

A set has these operators; a backward one takes the gradients of what is differentiable, then the
tensors that its forward one took and gave, then the scale:

    encode(q, k, v, ptr, scale) -> z, lse
    decode(q, k, z, ptr, scale) -> y, r
    attention(q, k, v, ptr, scale) -> y, z, lse, r

`lse` is differentiable, r is not; one of dz and dlse may be None. Gradients have no gradients of
their own.
"""

from typing import Any

from torch import Tensor
from torch.library import CustomOpDef


def register_gradients(
    encode: CustomOpDef,
    encode_backward: CustomOpDef,
    decode: CustomOpDef,
    decode_backward: CustomOpDef,
    attention: CustomOpDef,
    attention_backward: CustomOpDef,
) -> None:
    """Give the forward operators their gradients, and the backward ones their shapes."""
    encode_backward.register_fake(lambda dz, dlse, q, k, v, *_: _like(q, k, v))
    decode_backward.register_fake(lambda dy, q, k, z, *_: _like(q, k, z))
    attention_backward.register_fake(lambda dy, q, k, v, *_: _like(q, k, v))

    def encode_gradient(ctx: Any, dz: Tensor | None, dlse: Tensor | None) -> tuple[Any, ...]:
        if dz is None and dlse is None:
            return None, None, None, None, None
        return *encode_backward(dz, dlse, *ctx.saved_tensors, ctx.scale), None, None

    def first_gradient(backward: CustomOpDef) -> Any:
        def gradient(ctx: Any, dy: Tensor | None, *_: None) -> tuple[Any, ...]:
            if dy is None:
                return None, None, None, None, None
            return *backward(dy, *ctx.saved_tensors, ctx.scale), None, None

        return gradient

    encode.register_autograd(encode_gradient, setup_context=_keep)
    decode.register_autograd(first_gradient(decode_backward), setup_context=_keep_first)
    attention.register_autograd(first_gradient(attention_backward), setup_context=_keep_first)


def _like(*inputs: Tensor) -> tuple[Tensor, ...]:
    return tuple(x.new_empty(x.shape) for x in inputs)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.set_materialize_grads(False)
    *tensors, ctx.scale = inputs
    ctx.save_for_backward(*tensors, *output)


def _keep_first(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _keep(ctx, inputs, output)
    ctx.mark_non_differentiable(*output[1:])
