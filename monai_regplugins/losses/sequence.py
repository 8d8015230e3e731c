"""Image similarity after every step of a registration that goes in steps."""

from __future__ import annotations

import torch
from torch import nn

from monai_regplugins import fields
from monai_regplugins.checks import InputError, check_choice
from monai_regplugins.losses.numerics import at_least_float32, check_spatial_match

__all__ = ["SequenceMSELoss"]


class SequenceMSELoss(nn.Module):
    r"""Mean squared error between the fixed and the warped image, averaged over the steps of a sequence.

    .. math::
        L = \frac{1}{B T} \sum_{b, t} \frac{\sum_x m_t(x) \, (F(x) - M(x + f_t(x)))^2}{\max(\sum_x m_t(x), 1)}

    The image term of R2N2 (Sandkühler et al. 2019, Eq. 6). As in the authors' code m is one where :math:`x + f_t(x)`
    lies in the moving image, zero elsewhere; so pushing what does not match over the border lowers it. A field that
    points outside everywhere makes it zero.

    Args:
        outside: ``ignore`` as above, or ``border``: points outside take the value of the closest voxel, and m is one.

    Raises:
        InputError: `outside` is unknown.
    """

    def __init__(self, outside: str = "ignore") -> None:
        super().__init__()
        check_choice(outside, ("ignore", "border"), "outside")
        self.outside = outside

    def forward(self, sequence: torch.Tensor, moving: torch.Tensor, fixed: torch.Tensor) -> torch.Tensor:
        """Return the loss, a scalar.

        Args:
            sequence: ddf after each step, `(B, T, d, *spatial)`, voxels.
            moving: `(B, C, *spatial)`, 2D or 3D.
            fixed: the same shape.

        Raises:
            InputError: the shapes do not match.
        """
        check_spatial_match(moving, fixed, "moving", "fixed")
        if sequence.ndim != fixed.ndim + 1:
            raise InputError(
                f"sequence has shape {tuple(sequence.shape)}, expected (B, T, d, *spatial); "
                "let the network return the fields of all steps."
            )
        check_spatial_match(sequence[:, 0], fixed, "field of the sequence", "fixed")
        steps = sequence.shape[1]
        ddf = at_least_float32(sequence.flatten(0, 1))
        image, target = (at_least_float32(i).repeat_interleave(steps, dim=0) for i in (moving, fixed))
        error = (fields.warp(image, ddf, "linear", "border") - target).square().mean(1)
        axes = tuple(range(1, error.ndim))
        if self.outside == "border":
            return error.mean()
        mask = _inside(ddf)
        return ((mask * error).sum(axes) / mask.sum(axes).clamp_min(1)).mean()


def _inside(ddf: torch.Tensor) -> torch.Tensor:
    """One where x + u(x) is no further out than the outer voxel centers, zero elsewhere, ``(B, *spatial)``."""
    size = list(ddf.shape[2:])
    points = fields.identity_grid(size, ddf.dtype, ddf.device) + ddf.detach()
    inside = [(points[:, k] >= 0) & (points[:, k] <= n - 1) for k, n in enumerate(size)]
    return torch.stack(inside).all(0).to(ddf.dtype)
