"""Gradient descent of a loss over displacements on a coarser grid of nodes."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from monai_regplugins import fields
from monai_regplugins.checks import InputError
from monai_regplugins.inferers.field_sum import FieldSum
from monai_regplugins.losses.axis_products import along_axes, gaussian_matrix, interpolation_matrix
from monai_regplugins.losses.slabs import SlabLoss

__all__ = ["Descent", "NodeDescent"]

OfField: TypeAlias = Callable[[Tensor], Tensor]
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


class Descent(NamedTuple):
    """Where a descent led: the best residual field or velocity, and the loss before each step and after the last one.

    Example:
        >>> Descent(torch.zeros(1, 2, 8, 8), [0.5]).losses
        [0.5]
    """

    residual: Tensor
    losses: list[float]


class NodeDescent:
    r"""Minimize a loss of ``start + W G v`` over nodal values v, by Adam (Kingma and Ba 2015), from v = 0.

    G smooths the nodes by a Gaussian, and W interpolates linearly from them to the voxels; the gradient of v is
    :math:`G^T W^T \partial L / \partial u`, small matrix products along each axis. Adam's steps are about as long at
    each node, whatever the images show there: without G each node follows its own noise. With it neighbors move
    together, as by smoothed gradients (Sundaramoorthi et al. 2007, IJCV 73, 345), which leads farther in as many steps.

    Args:
        steps: maximum number of steps.
        spacing: node spacing in voxels; 1 optimizes every voxel.
        node_smoothing: standard deviation of G, nodes; 0 for none.
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
        learning_rate: float = 0.2,
        patience: int = 10,
        smallest_change: float = 1e-3,
        node_smoothing: float = 1.0,
    ) -> None:
        if steps < 0 or min(spacing, patience) < 1:
            raise InputError(
                f"steps, spacing and patience are {steps}, {spacing} and {patience}, expected at least 0, 1 and 1; 0 "
                "steps take the network's field as it is."
            )
        if not learning_rate > 0 or not 0 <= smallest_change < 1:
            raise InputError(
                f"learning_rate and smallest_change are {learning_rate} and {smallest_change}, expected voxels above 0 "
                "and a fraction from 0 to below 1; 0.2 and 0.001 are the defaults."
            )
        if not 0 <= node_smoothing < math.inf:
            raise InputError(f"node_smoothing is {node_smoothing}, expected nodes from 0 on; 1 is the default.")
        self.steps, self.spacing, self.learning_rate = steps, spacing, learning_rate
        self.node_smoothing = node_smoothing
        self.patience, self.smallest_change = patience, smallest_change

    def __call__(self, objective: OfField | SlabLoss, start: Tensor) -> Descent:
        """Descend.

        Args:
            objective: the loss of a field, a scalar.
            start: the field to start at, ``(1, d, *spatial)``.

        Returns:
            The residual ``W G v`` of the lowest loss seen, zero if no step lowered it.
        """
        best, losses = self._descend(objective, start, start)
        return Descent(along_axes(best, self._weights(start.shape[2:], start)), losses)

    def at_nodes(self, objective: SlabLoss, start: FieldSum) -> Descent:
        """Descend without a field of the size of the start; arguments as of a call.

        Returns:
            The residual ``G v`` at the nodes, as a field on their grid, in voxels of that.
        """
        best, losses = self._descend(objective, start, start.terms[0])
        return Descent(along_axes(best, self._smoothing(start.size, best)) / _growth(best, start.size), losses)

    def _descend(
        self, objective: OfField | SlabLoss, start: Tensor | FieldSum, like: Tensor
    ) -> tuple[Tensor, list[float]]:
        """Return the nodes v of the lowest loss seen, and the losses."""
        size = start.size if isinstance(start, FieldSum) else start.shape[2:]
        nodes = like.new_zeros(1, len(size), *self.nodes(size))
        return self._minimize(_of_nodes(objective, start, self._weights(size, like)), nodes, math.prod(size))

    def _weights(self, size: Sequence[int], like: Tensor) -> list[Tensor]:
        """W G along each axis."""
        smoothing = self._smoothing(size, like)
        return [w @ g for w, g in zip(self._interpolation(size, like), smoothing, strict=True)]

    def of_velocity(self, objective: OfField | SlabLoss, start: Tensor, size: list[int]) -> Descent:
        r"""Descend over stationary velocities at the nodes: minimize the loss of :math:`W \exp(v_0 + G v)`.

        The exponential is that of :func:`~monai_regplugins.fields.exponential` on the grid of the nodes.

        Args:
            objective: the loss of a field, a scalar.
            start: v0, the velocity to start at, ``(1, d, *nodes)`` in voxels of the nodes' grid, see :meth:`nodes`.
            size: of the field.

        Returns:
            The velocity of the lowest loss seen, ``(1, d, *nodes)``.
        """
        growth, smoothing = _growth(start, size), self._smoothing(size, start)
        still = start.new_zeros(1).expand(1, len(size), *size)
        of_field = _of_nodes(objective, still, self._interpolation(size, start))

        def velocity(nodes: Tensor) -> Tensor:
            return start + along_axes(nodes, smoothing) / growth  # nodes in voxels of the field, as steps are

        best, losses = self._minimize(
            _of_exponential(of_field, velocity, growth), torch.zeros_like(start), math.prod(size)
        )
        return Descent(velocity(best), losses)

    def after(self, steps: int) -> NodeDescent:
        """The descent of a level before which some steps were taken: half as many begin where a coarser one ended.

        Example:
            >>> NodeDescent(30).after(12).steps
            15
        """
        if steps == 0:
            return self
        other = copy.copy(self)
        other.steps = -(-self.steps // 2)
        return other

    def nodes(self, size: Sequence[int]) -> list[int]:
        """Number of nodes along each axis of a grid."""
        return [-(-n // self.spacing) for n in size]

    def _interpolation(self, size: Sequence[int], like: Tensor) -> list[Tensor]:
        """W along each axis."""
        return [interpolation_matrix(n, m, like) for n, m in zip(size, self.nodes(size), strict=True)]

    def _smoothing(self, size: Sequence[int], like: Tensor) -> list[Tensor]:
        """G along each axis."""
        return [gaussian_matrix(m, self.node_smoothing, like) for m in self.nodes(size)]

    def _minimize(
        self, value_and_gradient: Callable[[Tensor], tuple[Tensor, Tensor]], start: Tensor, voxels: int
    ) -> tuple[Tensor, list[float]]:
        """Descend from nodes; return those of the lowest loss, and the losses."""
        nodes = start.clone()
        adam = _Adam(nodes, self.learning_rate)
        best, losses = start, list[float]()
        while True:
            value, gradient = value_and_gradient(nodes)
            losses.append(value.item())
            if losses[-1] < min(losses[:-1], default=math.inf):
                best = nodes.clone()
            if len(losses) > self.steps or not math.isfinite(losses[-1]) or self._stalls(losses):
                return best, losses
            # Losses are means over voxels; per voxel, Adam's epsilon means the same for images of any size.
            adam.step(gradient * voxels)

    def _stalls(self, losses: Sequence[float]) -> bool:
        """Whether the loss has all but stopped to change."""
        recent = losses[-self.patience - 1 :]
        return len(losses) > self.patience and _range(recent) <= self.smallest_change * _range(losses)


def _growth(nodes: Tensor, size: Sequence[int]) -> Tensor:
    """Voxels from node to node along each axis, to be multiplied with a field ``(1, d, *nodes)``."""
    ratios = [n / m for n, m in zip(size, nodes.shape[2:], strict=True)]
    return nodes.new_tensor(ratios).view(1, -1, *[1] * len(ratios))


def _of_nodes(
    objective: OfField | SlabLoss, start: Tensor | FieldSum, weights: Sequence[Tensor]
) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """The loss of ``start + W nodes`` and its gradient, as functions of the nodes."""
    if isinstance(objective, SlabLoss):
        return objective.of_nodes(
            start.rows if isinstance(start, FieldSum) else lambda rows: start[:, :, rows], weights
        )
    assert isinstance(start, Tensor)
    return _by_autograd(objective, start, weights)


def _of_exponential(
    of_field: Callable[[Tensor], tuple[Tensor, Tensor]], velocity: Callable[[Tensor], Tensor], growth: Tensor
) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """A function of a field at the nodes, voxels, and its gradient, as functions of what states its velocity."""

    def value_and_gradient(nodes: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            variable = nodes.detach().requires_grad_()
            field = fields.exponential(velocity(variable)) * growth
        value, gradient = of_field(field.detach())
        return value, torch.autograd.grad(field, variable, gradient)[0]

    return value_and_gradient


def _by_autograd(
    objective: OfField, start: Tensor, weights: Sequence[Tensor]
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
