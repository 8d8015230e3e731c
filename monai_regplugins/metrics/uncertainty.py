"""Whether a standard deviation of the displacement predicts its error: sparsification and coverage."""

from __future__ import annotations

import math

import torch
from scipy.special import gammaincinv
from torch import Tensor

from monai_regplugins.checks import check_same_size

__all__ = ["ause", "coverage", "interval_radius", "sparsification"]


def sparsification(error: Tensor, uncertainty: Tensor) -> Tensor:
    """Mean error of what is left when the 0, 1, ... most uncertain points are taken away, over that of all, ``(N,)``.

    Args:
        error: length of the error at each point, ``(N,)``.
        uncertainty: by which the points are ordered, ``(N,)``.

    Raises:
        InputError: When the sizes differ.

    Example:
        >>> sparsification(torch.tensor([1.0, 5.0, 0.0]), torch.tensor([0.2, 0.9, 0.1]))
        tensor([1.0000, 0.2500, 0.0000], dtype=torch.float64)
    """
    check_same_size(error, uncertainty, "error", "uncertainty")
    ascending = error.double()[uncertainty.argsort(stable=True)]
    return (ascending.cumsum(0) / torch.arange(1, len(error) + 1)).flip(0) / ascending.mean()


def ause(error: Tensor, uncertainty: Tensor | None) -> float:
    """Area between the sparsification curves of an uncertainty and of the error itself, 0 if it orders as the error.

    The area under the sparsification error curve of Ilg et al. 2018, "Uncertainty estimates and multi-hypotheses
    networks for optical flow", ECCV, section 5, in units of the mean error.

    Args:
        error: length of the error at each point, ``(N,)``.
        uncertainty: by which the points are ordered, ``(N,)``; None is the expectation of a random order.

    Example:
        >>> ause(torch.tensor([1.0, 5.0, 0.0]), torch.tensor([0.2, 0.9, 0.1]))
        0.0
    """
    best = sparsification(error, error)
    curve = torch.ones_like(best) if uncertainty is None else sparsification(error, uncertainty)
    return float((curve - best).mean())


def interval_radius(level: float, spatial_dims: int) -> float:
    r"""Radius k of the ball that holds the error with a probability, in standard deviations of the displacement.

    The error e of a displacement is taken to be Gaussian with the same variance along each of d axes. With
    :math:`\sigma^2 = E \, \|e\|^2`, :math:`d \, \|e\|^2 / \sigma^2` has a chi-squared distribution of d degrees of
    freedom (:math:`\|e\|` that of Rayleigh in 2D, of Maxwell in 3D), and

    .. math::
        P(\|e\| \le k \sigma) = p, \qquad k = \sqrt{\chi^2_d(p) / d},

    see Johnson, Kotz, Balakrishnan 1994, "Continuous univariate distributions", vol. 1, chapter 18.

    Args:
        level: p, between 0 and 1.
        spatial_dims: d.

    Example:
        >>> round(interval_radius(0.9, 3), 4), round(interval_radius(0.9, 2), 4)
        (1.4435, 1.5174)
    """
    return math.sqrt(2 * float(gammaincinv(spatial_dims / 2, level)) / spatial_dims)


def coverage(error: Tensor, uncertainty: Tensor, spatial_dims: int, level: float = 0.9) -> float:
    r"""Share of the points whose error lies within its interval, :math:`\|e\| \le k \sigma`.

    The radius k is that of :func:`interval_radius`.

    Args:
        error: length of the error at each point, ``(N,)`` mm.
        uncertainty: standard deviation :math:`\sigma` of the displacement there, ``(N,)`` mm.
        spatial_dims: 2 or 3.
        level: probability of the interval.

    Raises:
        InputError: When the sizes differ.

    Example:
        >>> coverage(torch.tensor([1.0, 1.5]), torch.ones(2), spatial_dims=3)
        0.5
    """
    check_same_size(error, uncertainty, "error", "uncertainty")
    return float((error <= interval_radius(level, spatial_dims) * uncertainty).double().mean())
