"""Weighted differences of a field, squared or in Huber's form, with closed-form gradients."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from monai_regplugins.losses.deform import EDGE_SCALES
from monai_regplugins.losses.with_gradient import with_gradient

__all__ = [
    "Bending",
    "Roughness",
    "bending",
    "bending_along",
    "bending_scale",
    "edge_huber",
    "edge_roughness",
    "edge_weights",
    "plain_roughness",
    "plain_weights",
]

STEEP = 0.1  # voxels per voxel: where the absolute form of the differences begins
BENT = 0.05  # voxels per squared voxel: that of the second differences


class Roughness:
    r"""Sum of weighted differences between neighbors along each axis, squared or in Huber's form.

    .. math::
        L(u) = \sum_k \sum_x g_k(x) \, \| D_k u(x) \|^2, \qquad
        \frac{\partial L}{\partial u} = 2 \sum_k D_k^T \, g_k \, D_k u

    with :math:`D_k u(x) = u(x + e_k) - u(x)` and its adjoint :math:`D_k^T`, which adds to the upper neighbor what it
    takes from the lower one. With a threshold :math:`\delta` each component s of a difference counts by the function
    of Huber 1964 (Ann. Math. Stat. 35, 73) instead,

    .. math::
        h(s) = \begin{cases} s^2 / 2 \delta & |s| \le \delta \\ |s| - \delta / 2 & |s| > \delta \end{cases},

    as in optical flow with edges (Werlberger et al. 2009, BMVC): small differences are smoothed as by squares, and a
    jump costs no more than a ramp, as with absolute values.

    Args:
        weights: :math:`g_k` for each axis, ``(1, 1, *spatial)`` with one voxel less along that axis, or a number.
        threshold: :math:`\delta`; None for squares.

    Example:
        >>> ramp = torch.arange(4.0).view(1, 1, 1, 4).expand(1, 2, 4, 4)  # grows by 1 a voxel along one of two axes
        >>> Roughness([1.0, 0.5])(ramp)  # 2 components, 4 x 3 differences
        tensor(12.)
    """

    def __init__(self, weights: Sequence[Tensor | float], threshold: float | None = None) -> None:
        self.weights, self.threshold = list(weights), threshold

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
                value, weighted = _penalty(steps, weight, self.threshold)
                total += value
                slope.narrow(axis, 1, n).add_(weighted)
                slope.narrow(axis, 0, n).sub_(weighted)
        return total, gradient


class Bending:
    r"""Second differences of a field along each axis, in Huber's form.

    .. math::
        L(u) = \sum_k \sum_x g_k(x) \sum_c h\big(u_c(x + e_k) - 2 u_c(x) + u_c(x - e_k)\big)

    with h of :class:`Roughness`. A displacement that grows evenly costs nothing, unlike with first differences, so
    that noise is smoothed away without making the displacement shorter. It would also continue evenly where nothing
    is compared, so that :func:`bending` weighs it by what counts.

    Args:
        weights: :math:`g_k` for each axis, ``(1, 1, *spatial)`` with two voxels less along that axis, or a number.
        threshold: :math:`\delta`, voxels.

    Example:
        >>> ramp = torch.arange(4.0).view(1, 1, 1, 4).expand(1, 2, 4, 4)
        >>> Bending([1.0, 1.0])(ramp)
        tensor(0.)
    """

    def __init__(self, weights: Sequence[Tensor | float], threshold: float = BENT) -> None:
        self.weights, self.threshold = list(weights), threshold

    def __call__(self, ddf: Tensor) -> Tensor:
        """Return the loss, a scalar, for a field ``(1, d, *spatial)``."""
        return with_gradient(self.value_and_gradient, ddf)

    def value_and_gradient(self, ddf: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss and its gradient, of the shape of ``ddf``."""
        total, gradient = ddf.new_zeros(()), torch.zeros_like(ddf)
        for component in range(ddf.shape[1]):
            u, slope = ddf[:, component : component + 1], gradient[:, component : component + 1]
            for axis, weight in enumerate(self.weights, start=2):
                n = u.shape[axis] - 2
                if n < 1 or (isinstance(weight, float) and weight == 0):
                    continue
                bends = u.narrow(axis, 2, n) + u.narrow(axis, 0, n)
                bends.sub_(u.narrow(axis, 1, n), alpha=2)
                value, weighted = _penalty(bends, weight, self.threshold)
                total += value
                slope.narrow(axis, 2, n).add_(weighted)
                slope.narrow(axis, 1, n).sub_(weighted, alpha=2)
                slope.narrow(axis, 0, n).add_(weighted)
        return total, gradient


def _penalty(steps: Tensor, weight: Tensor | float, threshold: float | None) -> tuple[Tensor, Tensor]:
    """The weighted sum of squares or of Huber's function, and its derivative by each difference."""
    if threshold is None:
        weighted = steps * weight
        return steps.flatten() @ weighted.flatten(), weighted.mul_(2)
    clipped = steps.clamp(-threshold, threshold)
    weighted = clipped * (weight / threshold)
    return steps.sub(clipped, alpha=0.5).flatten() @ weighted.flatten(), weighted


def plain_roughness(fixed: Tensor) -> Roughness:
    """:class:`~monai_regplugins.losses.GradientLoss` with power 2 on the grid of ``fixed`` ``(1, 1, *spatial)``."""
    return Roughness(plain_weights(fixed.shape[2:]))


def bending(size: torch.Size, weights: Tensor | None = None) -> Bending:
    r"""Second differences on a grid, as means over its voxels and over both kinds of axes, of the voxels that count.

    .. math::
        g_k(x) = w(x) / d^2 |\Omega|

    Args:
        size: of the grid.
        weights: w, ``(1, 1, *spatial)``; 1 by default.

    Example:
        >>> bending(torch.Size([4, 4]))(torch.eye(4).expand(1, 2, 4, 4)) > 0
        tensor(True)
    """
    scale = bending_scale(size)
    return Bending([bending_along(axis, scale, weights) for axis in range(2, 2 + len(size))])


def bending_scale(size: torch.Size) -> float:
    """The weight of a voxel that counts in :func:`bending`.

    Example:
        >>> bending_scale(torch.Size([2, 4]))
        0.03125
    """
    return 1 / (len(size) ** 2 * size.numel())


def bending_along(axis: int, scale: float, weights: Tensor | None = None) -> Tensor | float:
    """The weights of the second differences along an axis of ``(1, 1, *spatial)``.

    Example:
        >>> bending_along(2, 0.5, torch.ones(1, 1, 4, 3)).shape
        torch.Size([1, 1, 2, 3])
    """
    n = 0 if weights is None else weights.shape[axis] - 2
    return scale if weights is None or n < 1 else weights.narrow(axis, 1, n) * scale


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
    return Roughness(_along_axes(edge_weights(fixed, weights, scale) / fixed.shape[2:].numel()))


def edge_huber(fixed: Tensor, weights: Tensor | None = None) -> Roughness:
    r"""Huber's form of :class:`~monai_regplugins.losses.EdgeAwareSmoothnessLoss` for one fixed image.

    .. math::
        g(x) = \frac{1}{d^2 |\Omega|} e^{-2 s \|\nabla I(x)\|^2}

    with s and the threshold of this module; arguments as :func:`edge_roughness`.

    Example:
        >>> edge_huber(torch.rand(1, 1, 8, 8))(torch.ones(1, 2, 8, 8))  # no gradient
        tensor(0.)
    """
    size = fixed.shape[2:]
    g = edge_weights(fixed, weights, EDGE_SCALES["l1"]) / (len(size) ** 2 * size.numel())
    return Roughness(_along_axes(g), STEEP)


def _along_axes(g: Tensor) -> list[Tensor | float]:
    """The weights of the differences along each axis."""
    return [g.narrow(axis, 1, g.shape[axis] - 1).contiguous() for axis in range(2, g.ndim)]


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
