"""Gradient descent of a loss over displacements on a coarser grid of nodes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from monai_regplugins.checks import InputError
from monai_regplugins.losses.axis_products import along_axes, interpolation_matrix
from monai_regplugins.losses.slabs import SlabLoss

__all__ = ["Descent", "NodeDescent"]

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


class Descent(NamedTuple):
    """Where a descent led: the best residual field, and the loss before each step and after the last one.

    Example:
        >>> Descent(torch.zeros(1, 2, 8, 8), [0.5]).losses
        [0.5]
    """

    residual: Tensor
    losses: list[float]


class NodeDescent:
    r"""Minimize a loss of ``start + W v`` over nodal displacements v, by Adam (Kingma and Ba 2015), from v = 0.

    W interpolates linearly from the nodes to the voxels; the gradient of v is :math:`W^T \partial L / \partial u`,
    small matrix products along each axis.

    Args:
        steps: maximum number of steps.
        spacing: node spacing in voxels; 1 optimizes every voxel.
        learning_rate: approximate maximum displacement of a node per step, in voxels.
        patience: number of steps of the stopping criterion.
        smallest_change: stop when the loss range over the last ``patience`` steps falls below this fraction of its
            total range.

    Raises:
        InputError: When a number is out of its range.

    Example:
        >>> found = NodeDescent(steps=50)(lambda u: (u - 1).square().mean(), torch.zeros(1, 2, 8, 8))
        >>> bool(found.losses[-1] < found.losses[0])
        True
    """

    def __init__(
        self,
        steps: int,
        spacing: int = 2,
        learning_rate: float = 0.1,
        patience: int = 10,
        smallest_change: float = 1e-3,
    ) -> None:
        if steps < 0 or min(spacing, patience) < 1:
            raise InputError(
                f"steps, spacing and patience are {steps}, {spacing} and {patience}, expected at least 0, 1 and 1; 0 "
                "steps take the network's field as it is."
            )
        if not learning_rate > 0 or not 0 <= smallest_change < 1:
            raise InputError(
                f"learning_rate and smallest_change are {learning_rate} and {smallest_change}, expected voxels above 0 "
                "and a fraction from 0 to below 1; 0.1 and 0.001 are the defaults."
            )
        self.steps, self.spacing, self.learning_rate = steps, spacing, learning_rate
        self.patience, self.smallest_change = patience, smallest_change

    def __call__(self, objective: Callable[[Tensor], Tensor] | SlabLoss, start: Tensor) -> Descent:
        """Descend.

        Args:
            objective: the loss of a field, a scalar.
            start: the field to start at, ``(1, d, *spatial)``.

        Returns:
            The residual ``W v`` of the lowest loss seen, zero if no step lowered it.
        """
        size = start.shape[2:]
        weights = [interpolation_matrix(n, -(-n // self.spacing), start) for n in size]
        of_nodes = objective.of_nodes if isinstance(objective, SlabLoss) else partial(_by_autograd, objective)
        value_and_gradient = of_nodes(start, weights)
        nodes = start.new_zeros(1, len(size), *(w.shape[1] for w in weights))
        adam = _Adam(nodes, self.learning_rate)
        best, losses = torch.zeros_like(nodes), list[float]()
        while True:
            value, gradient = value_and_gradient(nodes)
            losses.append(value.item())
            if losses[-1] < min(losses[:-1], default=math.inf):
                best = nodes.clone()
            if len(losses) > self.steps or not math.isfinite(losses[-1]) or self._stalls(losses):
                return Descent(along_axes(best, weights), losses)
            # Losses are means over voxels; per voxel, Adam's epsilon means the same for images of any size.
            adam.step(gradient * size.numel())

    def _stalls(self, losses: Sequence[float]) -> bool:
        """Whether the loss has all but stopped to change."""
        recent = losses[-self.patience - 1 :]
        return len(losses) > self.patience and _range(recent) <= self.smallest_change * _range(losses)


def _by_autograd(
    objective: Callable[[Tensor], Tensor], start: Tensor, weights: Sequence[Tensor]
) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """The loss of ``start + W nodes`` and its gradient, as functions of the nodes."""

    @torch.enable_grad()
    def value_and_gradient(nodes: Tensor) -> tuple[Tensor, Tensor]:
        variable = nodes.detach().requires_grad_()
        value = objective(start + along_axes(variable, weights))
        return value.detach(), torch.autograd.grad(value, variable)[0]

    return value_and_gradient


class _Adam:
    """Adam for one tensor; ``torch.optim`` would import a compiler first, which takes longer than the descent."""

    def __init__(self, variable: Tensor, learning_rate: float) -> None:
        self.variable, self.learning_rate, self.steps = variable, learning_rate, 0
        self.mean, self.square = torch.zeros_like(variable), torch.zeros_like(variable)  # moving averages, m and v

    def step(self, gradient: Tensor) -> None:
        """Algorithm 1 of the paper."""
        self.steps += 1
        self.mean.lerp_(gradient, 1 - BETA1)
        self.square.mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
        deviation = self.square.sqrt().div_((1 - BETA2**self.steps) ** 0.5).add_(EPSILON)
        self.variable.addcdiv_(self.mean, deviation, value=-self.learning_rate / (1 - BETA1**self.steps))


def _range(values: Sequence[float]) -> float:
    """Difference between the largest and the smallest value."""
    return max(values) - min(values)
