"""Standard deviation of an optimized field, by how far other solutions of the same pair lie from it."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from monai_regplugins.inferers.observed_pair import gaussian_mean

__all__ = ["STIFFER", "deviation"]

STIFFER = 4.0  # times the weight of the smoothness
SMOOTHING = 2.0  # voxels
LEAST = 0.02  # voxels: no field is exact, even where all solutions agree


def deviation(ddf: Tensor, others: Iterable[Tensor], factor: float) -> Tensor:
    r"""Standard deviation of each component of a field by its distance from other solutions.

    .. math::
        s_k(x) = c \sqrt{G * \sum_m (u^m_k - u_k)^2 (x) + \delta^2}

    with the other solutions :math:`u^m`, a Gaussian G of two voxels, :math:`\delta` of a fiftieth of a voxel and the
    calibration factor c.

    Args:
        ddf: the field u, ``(1, d, *spatial)`` voxels.
        others: further solutions, the same shape, one after the other.
        factor: c.

    Returns:
        ``(1, d, *spatial)`` voxels.

    Example:
        >>> deviation(torch.zeros(1, 2, 4, 4), [torch.full((1, 2, 4, 4), 0.75)], 2.0)[0, 0, 0, 0]
        tensor(1.5005)
    """
    total = torch.zeros_like(ddf)
    for other in others:
        total += (other - ddf).square_()
    return gaussian_mean(total, SMOOTHING).add_(LEAST**2).sqrt_().mul_(factor)
