"""Autograd functions whose gradient is computed together with the value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["with_gradient"]


def with_gradient(function: Callable[[Tensor], tuple[Tensor, Tensor | None]], argument: Tensor) -> Tensor:
    """Return the value of a function; the graph holds its gradient alone, and none of the steps on the way.

    Args:
        function: returns value and gradient. The gradient is that of a scalar value, or, of a function of each voxel by
            itself, the derivatives there; None where the argument needs none.
        argument: where to evaluate it.

    Example:
        >>> x = torch.tensor(3.0, requires_grad=True)
        >>> with_gradient(lambda x: (x * x, 2 * x), x).backward()
        >>> x.grad
        tensor(6.)
    """
    value: Tensor = _WithGradient.apply(argument, function)  # type: ignore[no-untyped-call]
    return value


class _WithGradient(torch.autograd.Function):
    """The chain rule with the gradient that was found on the way forward."""

    @staticmethod
    def forward(ctx: Any, argument: Tensor, function: Callable[[Tensor], tuple[Tensor, Tensor | None]]) -> Tensor:
        value, gradient = function(argument)
        ctx.save_for_backward(gradient)
        return value

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.saved_tensors[0] * gradients[0], None
