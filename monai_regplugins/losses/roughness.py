"""Weighted squared differences of a field, a quadratic form with its closed-form gradient."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from monai_regplugins.losses.with_gradient import with_gradient

__all__ = ["Roughness", "edge_roughness", "edge_weights", "plain_roughness", "plain_weights"]


class Roughness:
    r"""Sum of weighted squared differences between neighbors along each axis.

    .. math::
        L(u) = \sum_k \sum_x g_k(x) \, \| u(x + e_k) - u(x) \|^2, \qquad
        \frac{\partial L}{\partial u} = 2 \sum_k D_k^T \, g_k \, D_k u

    with :math:`D_k` the differences and :math:`D_k^T` their adjoint, which adds to the upper neighbor what it takes
    from the lower one.

    Args:
        weights: :math:`g_k` for each axis, ``(1, 1, *spatial)`` with one voxel less along that axis, or a number.

    Example:
        >>> ramp = torch.arange(4.0).view(1, 1, 1, 4).expand(1, 2, 4, 4)  # grows by 1 a voxel along one of two axes
        >>> Roughness([1.0, 0.5])(ramp)  # 2 components, 4 x 3 differences
        tensor(12.)
    """

    def __init__(self, weights: Sequence[Tensor | float]) -> None:
        self.weights = list(weights)

    def __call__(self, ddf: Tensor) -> Tensor:
        """Return the sum, a scalar, for a field ``(1, d, *spatial)``."""
        return with_gradient(self.value_and_gradient, ddf)

    def value_and_gradient(self, ddf: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sum and its gradient, of the shape of ``ddf``."""
        total, gradient = ddf.new_zeros(()), torch.zeros_like(ddf)
        for component in range(ddf.shape[1]):  # one at a time: less to hold in the processor's cache
            u, slope = ddf[:, component : component + 1], gradient[:, component : component + 1]
            for axis, weight in enumerate(self.weights, start=2):
                if isinstance(weight, float) and weight == 0:
                    continue
                n = u.shape[axis] - 1
                steps = u.narrow(axis, 1, n) - u.narrow(axis, 0, n)  # diff takes three times as long
                weighted = steps * weight
                total += steps.flatten() @ weighted.flatten()
                slope.narrow(axis, 1, n).add_(weighted, alpha=2)
                slope.narrow(axis, 0, n).sub_(weighted, alpha=2)
        return total, gradient


def plain_roughness(fixed: Tensor) -> Roughness:
    """:class:`~monai_regplugins.losses.GradientLoss` with power 2 on the grid of ``fixed`` ``(1, 1, *spatial)``."""
    return Roughness(plain_weights(fixed.shape[2:]))


def plain_weights(size: torch.Size) -> list[float]:
    """The weights of :func:`plain_roughness` along each axis of a grid.

    Example:
        >>> plain_weights(torch.Size([2, 2]))
        [0.125, 0.125]
    """
    return [n / (len(size) ** 2 * (n - 1) * size.numel()) for n in size]


def edge_roughness(fixed: Tensor, weights: Tensor | None = None, scale: float = 1.0) -> Roughness:
    r"""The l2 form of :class:`~monai_regplugins.losses.EdgeAwareSmoothnessLoss` for one fixed image.

    .. math::
        g(x) = \frac{1}{|\Omega|} e^{-2 s \|\nabla I(x)\|^2}

    Args:
        fixed: I, ``(1, 1, *spatial)``.
        weights: of the voxels, the same shape; an edge counts as far as the voxels on both sides do.
        scale: s.

    Example:
        >>> edge_roughness(torch.rand(1, 1, 8, 8))(torch.ones(1, 2, 8, 8))  # no gradient
        tensor(0.)
    """
    g = edge_weights(fixed, weights, scale) / fixed.shape[2:].numel()
    return Roughness([g.narrow(axis, 1, g.shape[axis] - 1).contiguous() for axis in range(2, fixed.ndim)])


def edge_weights(fixed: Tensor, weights: Tensor | None = None, scale: float = 1.0) -> Tensor:
    r"""Return :math:`e^{-2 s \|\nabla I(x)\|^2}` of an image ``(1, 1, *spatial)``; arguments as :func:`edge_roughness`.

    Of an image with several channels it is their mean.

    Example:
        >>> edge_weights(torch.ones(1, 1, 2, 2))
        tensor([[[[1., 1.],
                  [1., 1.]]]])
    """
    edges = torch.zeros_like(fixed)
    for axis in range(2, fixed.ndim):
        n = fixed.shape[axis] - 1
        steps = fixed.diff(dim=axis).square()
        if weights is not None:
            steps = steps * weights.narrow(axis, 1, n) * weights.narrow(axis, 0, n)
        edges.narrow(axis, 1, n).add_(steps)
    return torch.exp(-2 * scale * edges).mean(dim=1, keepdim=True)
