"""Regularity of a displacement field: where it folds, and how unevenly it changes volume."""

from __future__ import annotations

import torch
from torch import Tensor

from monai_regplugins.fields import jacobian_determinant

__all__ = ["folding", "sdlogj"]

SMALLEST_DETERMINANT = 1e-9  # a folded voxel has no logarithm; this stands for "almost all volume lost"


def folding(ddf: Tensor, mask: Tensor | None = None) -> tuple[int, float]:
    """Count the voxels where x + u(x) folds: det J <= 0.

    Args:
        ddf: displacement field in voxels, shape (d, *spatial).
        mask: voxels to look at (above zero), shape (*spatial) or (1, *spatial); all by default.

    Returns:
        The number of folded voxels, and their percentage; NaN percent for an empty mask.
    """
    determinant = _determinant(ddf, mask)
    count = int((determinant <= 0).sum())
    return count, 100 * count / determinant.numel() if determinant.numel() else float("nan")


def sdlogj(ddf: Tensor, mask: Tensor | None = None) -> float:
    """Standard deviation of log det J over the voxels: 0 for any field that changes volume evenly.

    The determinant is clipped from below at 1e-9; the deviation is that of the population, not of a sample.

    Args:
        ddf: displacement field in voxels, shape (d, *spatial).
        mask: voxels to look at (above zero), shape (*spatial) or (1, *spatial); all by default.

    Returns:
        A non-negative value without unit; NaN for an empty mask.
    """
    determinant = _determinant(ddf, mask)
    if not determinant.numel():
        return float("nan")
    return float(determinant.clamp(min=SMALLEST_DETERMINANT).log().std(correction=0))


def _determinant(ddf: Tensor, mask: Tensor | None) -> Tensor:
    """Return det J at the voxels of the mask, shape (N,), in float64."""
    determinant = jacobian_determinant(ddf[None].to(torch.float64))[0]
    return determinant.flatten() if mask is None else determinant[mask.reshape(determinant.shape) > 0]
