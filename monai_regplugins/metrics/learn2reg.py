"""Regularity and landmark error by the formulas of Learn2Reg's evaluation script, for comparison with its tables.

Two of them are not what their names say, so they have names of their own here: the script adds 3 to the determinant
before it takes the logarithm, and counts foldings after it has clipped them away. Its surface distances have no
spacing: :func:`~monai_regplugins.metrics.surface_distances` with a spacing of 1 along each axis gives them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from scipy.ndimage import map_coordinates
from torch import Tensor

from monai_regplugins.checks import check_same_size
from monai_regplugins.metrics.regularity import central_determinants, is_finite, pooled_deviation

__all__ = ["foldings_l2r", "landmark_errors_l2r", "sdlogj_l2r"]

BORDER = 2  # voxels that the script leaves out on each side
OFFSET, LOWEST, HIGHEST = 3.0, 1e-9, 1e9  # added to the determinant, then what that is clipped to


def sdlogj_l2r(ddf: Tensor, mask: Tensor | None = None) -> float:
    r"""Spread of the volume change as Learn2Reg reports it ("SDlogJ").

    .. math::
        \operatorname{std} \log \operatorname{clip}(\det J + 3, \, 10^{-9}, \, 10^9)

    with central differences, a border of two voxels left out, and the deviation of the population. Where det J is about
    1 the logarithm is four times flatter than that of det J, and so are the published values. The truth is
    :func:`~monai_regplugins.metrics.sdlogj`.

    Args:
        ddf: displacement field in voxels, shape (d, *spatial).
        mask: voxels to look at (above zero), shape (*spatial) or (1, *spatial); all by default.

    Returns:
        A non-negative value without unit; NaN where no voxel is left or the field is not finite.
    """
    if not is_finite(ddf):
        return math.nan
    return pooled_deviation(determinant.log_() for determinant in _clipped_determinants(ddf, mask))


def foldings_l2r(ddf: Tensor, mask: Tensor | None = None) -> float:
    """Count foldings as Learn2Reg reports them ("num_foldings"): det J + 3 <= 0 after it was clipped to 1e-9.

    So this is 0 for every finite field. The truth is :func:`~monai_regplugins.metrics.folding`.

    Args:
        ddf: displacement field in voxels, shape (d, *spatial).
        mask: voxels to look at (above zero), shape (*spatial) or (1, *spatial); all by default.

    Returns:
        The number of voxels; NaN for a field that is not finite.
    """
    if not is_finite(ddf):
        return math.nan
    return sum(int((determinant <= 0).sum()) for determinant in _clipped_determinants(ddf, mask))


def landmark_errors_l2r(
    fixed_points: Tensor, moving_points: Tensor, spacing: Sequence[float] | Tensor, ddf: Tensor
) -> Tensor:
    """Distance of corresponding points after the registration as Learn2Reg measures it, in mm.

    Between voxels the field is interpolated by cubic splines, outside of the image it is 0. The rest is as in
    :func:`~monai_regplugins.metrics.landmark_errors`, which interpolates linearly.

    Args:
        fixed_points: voxel coordinates of the fixed grid, shape (N, d).
        moving_points: the corresponding points of the moving image, in voxels of the same grid, as the challenge
            resamples both images to one.
        spacing: voxel size along each axis in mm, shape (d,).
        ddf: displacement field in voxels, shape (d, *spatial).

    Returns:
        N distances, shape (N,), float64.

    Raises:
        InputError: When the numbers of points differ.
    """
    check_same_size(fixed_points, moving_points, "fixed points", "moving points")
    fixed, moving = (np.asarray(points.detach().cpu(), dtype=np.float64) for points in (fixed_points, moving_points))
    u = ddf.detach().cpu().numpy()
    mapped = fixed + np.stack([map_coordinates(component, fixed.T, output=np.float64) for component in u], axis=1)
    return torch.from_numpy(np.linalg.norm((mapped - moving) * np.asarray(spacing, dtype=np.float64), axis=1))


def _clipped_determinants(ddf: Tensor, mask: Tensor | None) -> Iterator[Tensor]:
    """Yield det J + 3 of the voxels that the script looks at, clipped, slab by slab, shape (N,), in float64."""
    looked_at = torch.zeros(ddf.shape[1:], dtype=torch.bool, device=ddf.device)
    inner = (slice(BORDER, -BORDER),) * len(ddf)
    looked_at[inner] = True if mask is None else mask.reshape(looked_at.shape)[inner] > 0
    for determinant in central_determinants(ddf, looked_at):
        yield determinant.add_(OFFSET).clamp_(LOWEST, HIGHEST)
