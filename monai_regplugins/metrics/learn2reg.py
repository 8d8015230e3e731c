"""SDlogJ by the formula of Learn2Reg's evaluation script, for comparison with its tables.

The script adds 3 to the determinant before it takes the logarithm, so the measure has a name of its own here. Its
surface distances have no spacing: :func:`~monai_regplugins.metrics.surface_distances` with a spacing of 1 along each
axis gives them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from monai_regplugins.metrics.regularity import central_determinants, is_finite, pooled_deviation

__all__ = ["sdlogj_l2r"]

BORDER = 2  # voxels that the script leaves out on each side
OFFSET, LOWEST, HIGHEST = 3.0, 1e-9, 1e9  # added to the determinant, then what that is clipped to


def sdlogj_l2r(ddf: Tensor, mask: Tensor | None = None, volume: float = 1.0) -> float:
    r"""Spread of the volume change as Learn2Reg reports it ("SDlogJ").

    .. math::
        \operatorname{std} \log \operatorname{clip}(\det J + 3, \, 10^{-9}, \, 10^9)

    with central differences, a border of two voxels left out, and the deviation of the population. Where det J is about
    1 the logarithm is four times flatter than that of det J, and so are the published values. The truth is
    :func:`~monai_regplugins.metrics.sdlogj`.

    Args:
        ddf: displacement field in voxels, shape ``(d, *spatial)``.
        mask: voxels to look at (above zero), shape ``(*spatial)`` or ``(1, *spatial)``; all by default.
        volume: determinant of a linear map that follows the field, see :func:`.regularity.central_determinants`.

    Returns:
        A non-negative value without unit; NaN where no voxel is left or the field is not finite.
    """
    if not is_finite(ddf):
        return math.nan
    return pooled_deviation(determinant.log_() for determinant in _clipped_determinants(ddf, mask, volume))


def _clipped_determinants(ddf: Tensor, mask: Tensor | None, volume: float) -> Iterator[Tensor]:
    """Yield det J + 3 of the voxels that the script looks at, clipped, slab by slab, shape (N,), in float64."""
    looked_at = torch.zeros(ddf.shape[1:], dtype=torch.bool, device=ddf.device)
    inner = (slice(BORDER, -BORDER),) * len(ddf)
    looked_at[inner] = True if mask is None else mask.reshape(looked_at.shape)[inner] > 0
    for determinant in central_determinants(ddf, looked_at, volume):
        yield determinant.add_(OFFSET).clamp_(LOWEST, HIGHEST)
