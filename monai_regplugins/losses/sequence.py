"""Image similarity averaged over the steps of a recurrent registration."""

from __future__ import annotations

import torch
from torch import nn

from monai_regplugins import fields
from monai_regplugins.checks import InputError, check_choice
from monai_regplugins.losses.numerics import at_least_float32, check_spatial_match

__all__ = ["SequenceMSELoss", "masked_mse"]


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
        InputError: ``outside`` is unknown.

    Example:
        >>> image = torch.rand(1, 1, 8, 8)
        >>> SequenceMSELoss()(torch.zeros(1, 3, 2, 8, 8), image, image)  # three steps
        tensor(0.)
    """

    def __init__(self, outside: str = "ignore") -> None:
        super().__init__()
        check_choice(outside, ("ignore", "border"), "outside")
        self.outside = outside

    def forward(self, sequence: torch.Tensor, moving: torch.Tensor, fixed: torch.Tensor) -> torch.Tensor:
        """Return the loss, a scalar.

        Args:
            sequence: ddf after each step, ``(B, T, d, *spatial)``, voxels.
            moving: ``(B, C, *spatial)``, 2D or 3D.
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
        moving, fixed = (image.repeat_interleave(sequence.shape[1], dim=0) for image in (moving, fixed))
        return masked_mse(moving, fixed, sequence.flatten(0, 1), self.outside).mean()


def masked_mse(moving: torch.Tensor, fixed: torch.Tensor, ddf: torch.Tensor, outside: str = "ignore") -> torch.Tensor:
    """Mean squared error of each pair after the registration, ``(B,)``, as in :class:`SequenceMSELoss`.

    Args:
        moving: ``(B, C, *spatial)``.
        fixed: the same shape.
        ddf: ``(B, d, *spatial)``, voxels.
        outside: ``ignore`` or ``border``.
    """
    image, target, u = (at_least_float32(values) for values in (moving, fixed, ddf))
    error = (fields.warp(image, u, "linear", "border") - target).square().mean(1).flatten(1)
    if outside == "border":
        return error.mean(1)
    mask = _inside(u).flatten(1)
    return (error * mask).sum(1) / mask.sum(1).clamp_min(1)


def _inside(ddf: torch.Tensor) -> torch.Tensor:
    """Whether x + u(x) is no further out than the outer voxel centers, ``(B, *spatial)``."""
    inside = torch.ones_like(ddf[:, 0], dtype=torch.bool)
    for k, n in enumerate(ddf.shape[2:]):
        x = torch.arange(n, dtype=ddf.dtype, device=ddf.device).view(
            [-1 if axis == k else 1 for axis in range(ddf.ndim - 2)]
        )
        inside &= (ddf[:, k] >= -x) & (ddf[:, k] <= n - 1 - x)
    return inside
