"""Standard deviation of an optimized field, by its distance from a smoother solution, its bending and its length."""

from __future__ import annotations

import torch
from torch import Tensor

from monai_regplugins.fields import central_difference
from monai_regplugins.inferers.gaussian import gaussian_mean

__all__ = ["STIFFER", "bending", "deviation"]

STIFFER = 4.0  # times the weight of the smoothness
SMOOTHING = 2.0  # voxels
BENT = 0.5  # variance of a position along an axis, squared voxels
SHORTER = 0.15  # of a displacement
LEAST = 0.02  # voxels: no field is exact


def deviation(ddf: Tensor, smoother: Tensor, factor: float) -> Tensor:
    r"""Standard deviation of each component of a field.

    .. math::
        s_k(x)^2 = c^2 \Big( G * (v_k - u_k)^2 (x) + \beta \sum_j (\partial_j u_k)^2 (x) + (\alpha u_k(x))^2
            + \delta^2 \Big)

    The distance from a smoother solution v of the same pair, averaged by a Gaussian G of two voxels, is large where the
    images determine the displacement less than the smoothness does. Where the field bends, a position that is off
    changes the displacement by the derivatives; :math:`\beta` is half a squared voxel. The smoothness also draws both
    solutions towards no displacement, by a share of it, :math:`\alpha` = 0.15. What is left where none of that is the
    case, :math:`\delta`, is a fiftieth of a voxel. The factor c calibrates the sum, so that 90 % of known errors lie
    within :func:`~monai_regplugins.metrics.uncertainty.interval_radius` standard deviations.

    Args:
        ddf: the field u, ``(1, d, *spatial)`` voxels.
        smoother: v, the same shape.
        factor: c.

    Returns:
        ``(1, d, *spatial)`` voxels.

    Example:
        >>> deviation(torch.zeros(1, 2, 4, 4), torch.full((1, 2, 4, 4), 0.75), factor=2.0)[0, 0, 0, 0]
        tensor(1.5005)
    """
    variance = torch.empty_like(ddf)
    for k in range(ddf.shape[1]):  # one component at a time: less memory
        u, v, out = (values[:, k : k + 1] for values in (ddf, smoother, variance))
        out.copy_(gaussian_mean((v - u).square_(), SMOOTHING)).add_(bending(u), alpha=BENT)
        out.addcmul_(u, u, value=SHORTER**2)
    return variance.add_(LEAST**2).sqrt_().mul_(factor)


def bending(ddf: Tensor) -> Tensor:
    r"""Sum of the squared derivatives of each component along all axes, :math:`\sum_j (\partial_j u_k)^2`.

    Args:
        ddf: ``(1, d, *spatial)`` voxels, at least two along each axis.

    Example:
        >>> ramp = torch.arange(4.0).view(1, 1, 4, 1).expand(1, 2, 4, 4)  # grows by 1 a voxel along the first axis
        >>> bending(ramp).unique()
        tensor([1.])
    """
    total = torch.zeros_like(ddf)
    for axis in range(2, ddf.ndim):
        total.add_(central_difference(ddf, axis).square_())
    return total
