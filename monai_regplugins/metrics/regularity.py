"""Regularity of a displacement field: where it folds, and how unevenly it changes volume."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product

import torch
from torch import Tensor

from monai_regplugins.checks import check_minimum_size
from monai_regplugins.fields import determinant_of, jacobian_determinant

__all__ = ["corner_determinants", "folding", "folding_strict", "regularity", "sdlogj"]

SMALLEST_DETERMINANT = 1e-9  # a folded voxel has no logarithm; this stands for "almost all volume lost"


def folding(ddf: Tensor, mask: Tensor | None = None) -> tuple[int, float]:
    """Count the voxels where x + u(x) folds: det J <= 0.

    Derivatives are central differences, which do not see what alternates from voxel to voxel; :func:`folding_strict`
    does.

    Args:
        ddf: displacement field in voxels, shape (d, *spatial).
        mask: voxels to look at (above zero), shape (*spatial) or (1, *spatial); all by default.

    Returns:
        The number of folded voxels, and their percentage; NaN percent for an empty mask.
    """
    return _count(_determinant(ddf, mask) <= 0)


def folding_strict(ddf: Tensor, mask: Tensor | None = None) -> tuple[int, float]:
    r"""Count the voxels where any of the 2^d determinants of one-sided differences is not positive.

    .. math::
        \min_{s \in \{+,-\}^d} \det \left( \partial^{s_1}_1 (x + u), \ldots, \partial^{s_d}_d (x + u) \right) \le 0

    Each of these is the volume of a triangle or tetrahedron between the voxel and one neighbor along every axis, after
    the map, over that before it. In 2D a field without such voxels is a digital diffeomorphism: it turns no triangle of
    the grid over (Liu et al. 2024, "On finite difference Jacobian computation in deformable image registration", IJCV).
    In 3D their definition also asks for the two tetrahedra in the middle of each cube of eight voxels, which are not
    looked at here. The mean over the corners is the determinant of central differences, so what :func:`folding` finds
    is found here too.

    Args:
        ddf: displacement field in voxels, shape (d, *spatial).
        mask: voxels to look at (above zero), shape (*spatial) or (1, *spatial); all by default.

    Returns:
        The number of folded voxels, and their percentage; NaN percent for an empty mask.

    Raises:
        InputError: When ``ddf`` has an axis of less than 2 voxels.
    """
    folded = torch.zeros_like(ddf[0], dtype=torch.bool)
    for determinant in corner_determinants(ddf):
        folded |= determinant <= 0
    return _count(_inside(folded, mask))


def corner_determinants(ddf: Tensor) -> Iterator[Tensor]:
    """Yield det J by one-sided differences for each of the 2^d choices of a side along every axis.

    A voxel at the border has a neighbor on one side only and takes the same difference for both.

    Args:
        ddf: displacement field in voxels, shape (d, *spatial).

    Yields:
        Determinants, shape (*spatial), float64.

    Raises:
        InputError: When ``ddf`` has an axis of less than 2 voxels.
    """
    u, d = ddf[None].to(torch.float64), len(ddf)
    check_minimum_size(list(u.shape[2:]), 2, "displacement field")
    identity = torch.eye(d, dtype=u.dtype, device=u.device).view(1, d, d, *[1] * d)
    sides = []
    for axis in range(2, 2 + d):
        step, n = u.diff(dim=axis), u.shape[axis]
        backward = torch.cat([step.narrow(axis, 0, 1), step], dim=axis)
        forward = torch.cat([step, step.narrow(axis, n - 2, 1)], dim=axis)
        sides.append((backward, forward))
    for corner in product(*sides):
        yield determinant_of(torch.stack(corner, dim=2) + identity)[0]


def sdlogj(ddf: Tensor, mask: Tensor | None = None) -> float:
    """Standard deviation of log det J over the voxels: 0 for any field that changes volume evenly.

    The determinant is clipped from below at 1e-9; the deviation is that of the population, not of a sample. What
    Learn2Reg publishes under this name is about four times smaller, see
    :func:`~monai_regplugins.metrics.learn2reg.sdlogj_l2r`.

    Args:
        ddf: displacement field in voxels, shape (d, *spatial).
        mask: voxels to look at (above zero), shape (*spatial) or (1, *spatial); all by default.

    Returns:
        A non-negative value without unit; NaN for an empty mask.
    """
    return _deviation(_determinant(ddf, mask))


def regularity(ddf: Tensor, mask: Tensor | None = None) -> dict[str, float]:
    """Measure a field in all the ways of this module, with its determinant computed once.

    Args:
        ddf: displacement field in voxels, shape (d, *spatial).
        mask: voxels to look at (above zero), shape (*spatial) or (1, *spatial); all by default.

    Returns:
        ``folding_count`` and ``folding_percent`` of :func:`folding`, ``folding_strict_percent`` of
        :func:`folding_strict`, ``sdlogj`` of :func:`sdlogj`.
    """
    determinant = _determinant(ddf, mask)
    count, percent = _count(determinant <= 0)
    return {
        "folding_count": float(count),
        "folding_percent": percent,
        "folding_strict_percent": folding_strict(ddf, mask)[1],
        "sdlogj": _deviation(determinant),
    }


def _determinant(ddf: Tensor, mask: Tensor | None) -> Tensor:
    """Return det J at the voxels of the mask, shape (N,), in float64."""
    return _inside(jacobian_determinant(ddf[None].to(torch.float64))[0], mask)


def _inside(values: Tensor, mask: Tensor | None) -> Tensor:
    """Return the values (*spatial) at the voxels of the mask, shape (N,)."""
    return values.flatten() if mask is None else values[mask.reshape(values.shape) > 0]


def _count(folded: Tensor) -> tuple[int, float]:
    """Return how many of the voxels are folded, and what percentage."""
    count = int(folded.sum())
    return count, 100 * count / folded.numel() if folded.numel() else math.nan


def _deviation(determinant: Tensor) -> float:
    """Return the standard deviation of the logarithms, NaN where there is nothing."""
    if not determinant.numel():
        return math.nan
    return float(determinant.clamp(min=SMALLEST_DETERMINANT).log().std(correction=0))
