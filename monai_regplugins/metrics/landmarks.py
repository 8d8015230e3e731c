"""Target registration error: how far corresponding points are apart."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from monai_regplugins.fields import sample_at

__all__ = ["landmark_errors"]


def landmark_errors(
    fixed_points: Tensor, moving_points: Tensor, spacing: Sequence[float] | Tensor, ddf: Tensor | None = None
) -> Tensor:
    r"""Distance of each pair of corresponding points after the registration, in mm.

    .. math::
        e_k = \| D \, (p^F_k + u(p^F_k) - p^M_k) \|_2

    A field points from fixed to moving, so it is the fixed points that it moves. Between voxels it is interpolated
    linearly.

    Args:
        fixed_points: voxel coordinates of the fixed grid, shape (N, d).
        moving_points: the corresponding points of the moving image, in voxels of the fixed grid too.
        spacing: voxel size D of the fixed grid along each axis in mm, shape (d,).
        ddf: displacement field in voxels, shape (d, *spatial); None for the distances before the registration.

    Returns:
        N distances, float64.
    """
    fixed, moving = (torch.as_tensor(points).to(torch.float64) for points in (fixed_points, moving_points))
    if ddf is not None:
        fixed = fixed + sample_at(ddf[None].to(torch.float64), fixed[None])[0]
    errors: Tensor = torch.linalg.vector_norm((fixed - moving) * torch.as_tensor(spacing).to(fixed), dim=1)
    return errors
