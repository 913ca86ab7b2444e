"""Gradients of an operator of torch by another operator, which computes them from the inputs."""

from typing import Any

from torch import Tensor
from torch.library import CustomOpDef


def register_gradient(op: CustomOpDef, backward: CustomOpDef, count: int) -> None:
    """Make an operator with one output differentiable in its first inputs.

    Args:
        op: takes tensors, then other arguments; all tensors are kept for the backward pass.
        backward: takes the gradient of the output, then what `op` takes; returns the gradients,
            contiguous.
        count: number of inputs that have gradients.
    """

    def keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        tensors = [x for x in inputs if isinstance(x, Tensor)]
        ctx.options = inputs[len(tensors) :]
        ctx.save_for_backward(*tensors)

    def gradient(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        inputs = (*ctx.saved_tensors, *ctx.options)
        return *backward(dy, *inputs), *(None for _ in inputs[count:])

    backward.register_fake(lambda dy, *x: tuple(t.new_empty(t.shape) for t in x[:count]))
    op.register_autograd(gradient, setup_context=keep)
