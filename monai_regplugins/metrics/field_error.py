"""Error of a displacement field where the true one is known."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from monai_regplugins.checks import InputError, check_same_size

__all__ = ["field_errors"]


def field_errors(
    ddf: Tensor,
    true_ddf: Tensor,
    spacing: Sequence[float] | Tensor | None = None,
    mask: Tensor | None = None,
    within: float | None = None,
) -> dict[str, float]:
    r"""Mean absolute error of a field along each axis, and the sum over the axes.

    .. math::
        MAE_k = \frac{1}{n} \sum_x D_k \, |u_k(x) - u^*_k(x)|, \qquad MAE = \sum_k MAE_k

    The MAE of Sokooti et al. 2017, Table 1, is this sum, not the mean over the axes: its x, y and z add up to it.

    Args:
        ddf: displacement field u in voxels, shape ``(d, *spatial)``.
        true_ddf: the true one, the same shape.
        spacing: voxel size D along each axis in mm, shape (d,); None leaves everything in voxels.
        mask: voxels to look at (above zero), shape ``(*spatial)`` or ``(1, *spatial)``; all by default.
        within: largest absolute value of every component of the true field at the voxels to look at, the capture range,
            in mm if there is a spacing, else in voxels; None for no limit.

    Returns:
        ``mae`` and ``mae_axis_<k>``; ``mae_zero`` and ``mae_zero_axis_<k>``, those of the identity, which a useful
        prediction has to beat; and ``voxels``, how many were looked at. NaN where there are none.

    Raises:
        InputError: When the sizes differ, or ``spacing`` does not have one value per axis.

    Example:
        >>> field_errors(torch.zeros(2, 8, 8), torch.ones(2, 8, 8))["mae_axis_0"]
        1.0
    """
    check_same_size(ddf, true_ddf, "field", "true field")
    d = len(true_ddf)
    widths = torch.ones(d) if spacing is None else torch.as_tensor(spacing)
    if widths.shape != (d,):
        raise InputError(f"spacing is {widths.tolist()}, expected {d} numbers; give the voxel size along each axis.")
    looked_at = torch.ones_like(true_ddf[0], dtype=torch.bool) if mask is None else _grid_mask(mask, true_ddf)
    found, true = (field[:, looked_at].to(torch.float64) * widths.to(field)[:, None] for field in (ddf, true_ddf))
    if within is not None:
        near = (true.abs() <= within).all(dim=0)
        found, true = found[:, near], true[:, near]
    values = {"voxels": float(true.shape[1])}
    for name, error in (("mae", found - true), ("mae_zero", true)):
        axes = error.abs().mean(dim=1).tolist() if error.shape[1] else [math.nan] * d
        values |= {name: sum(axes), **{f"{name}_axis_{k}": value for k, value in enumerate(axes)}}
    return values


def _grid_mask(mask: Tensor, ddf: Tensor) -> Tensor:
    """A mask ``(*spatial)`` or ``(1, *spatial)`` as boolean ``(*spatial)`` of the field's grid."""
    flat = mask[0] if mask.ndim == ddf.ndim and len(mask) == 1 else mask
    check_same_size(flat, ddf[0], "mask", "field")
    return flat.to(ddf.device) > 0
