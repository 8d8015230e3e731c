"""Soft Dice loss between warped moving and fixed labels (weak supervision)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from monai_regplugins import fields
from monai_regplugins.checks import InputError, check_same_size
from monai_regplugins.losses.numerics import at_least_float32

__all__ = ["LabelOverlapLoss"]


class LabelOverlapLoss(nn.Module):
    r"""One minus the soft Dice overlap of warped moving labels with the fixed ones.

    .. math::
        L = 1 - \frac{1}{|K|} \sum_{k \in K} \frac{2 \sum_x W m_k \, f_k}{\sum_x (W m_k)^2 + \sum_x f_k^2}

    with the indicators m and f of label k, and W the warp by the ddf, linear, zeros outside. Labels only help to train;
    a trained network needs none. Source: the weak supervision of Hu et al. 2018 (Medical Image Analysis 49, 1), with
    the Dice of Milletari et al. 2016.

    Args:
        labels: K, the values that count; empty for those that both images of a sample have.

    Raises:
        InputError: A label is 0, which is the background.

    Example:
        >>> label = torch.zeros(1, 1, 8, 8).index_fill(2, torch.tensor([3, 4]), 1.0)
        >>> LabelOverlapLoss()(torch.zeros(1, 2, 8, 8), label, label)
        tensor(0.)
    """

    def __init__(self, labels: Sequence[int] = ()) -> None:
        super().__init__()
        if 0 in labels:
            raise InputError(f"labels are {list(labels)}, expected none of them 0, the background; leave it out.")
        self.labels = list(labels)

    def forward(
        self,
        ddf: torch.Tensor,
        moving_label: torch.Tensor,
        fixed_label: torch.Tensor,
        mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the loss, a scalar, the mean over the samples; a sample without a label in both images counts 0.

        Args:
            ddf: field ``(B, d, *spatial)``, voxels.
            moving_label: whole numbers ``(B, 1, *spatial)``.
            fixed_label: the same.
            mask: where on the fixed grid to count the overlap, of the labels' shape; None for everywhere.

        Raises:
            InputError: When the labels, or the mask, differ in size.
        """
        check_same_size(moving_label, fixed_label, "moving label", "fixed label")
        if mask is None:
            mask = torch.ones_like(fixed_label)
        check_same_size(mask, fixed_label, "mask", "fixed label")
        wide = at_least_float32(ddf)
        samples = zip(*(part.split(1) for part in (wide, moving_label, fixed_label, mask.to(wide.dtype))), strict=True)
        return torch.stack([self._of_sample(*sample) for sample in samples]).mean()

    def _of_sample(
        self, ddf: torch.Tensor, moving: torch.Tensor, fixed: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        labels = self.labels or [k for k in moving.unique().tolist() if k != 0 and bool((fixed == k).any())]
        if not labels:
            return (ddf * 0).sum()
        values = torch.tensor(labels, device=fixed.device).reshape(1, -1, *[1] * (fixed.ndim - 2))
        m, f = ((label == values).to(ddf.dtype) for label in (moving, fixed))  # (1, K, *spatial)
        warped, f = fields.warp(m, ddf) * mask, f * mask
        axes = list(range(2, f.ndim))
        overlap = 2 * (warped * f).sum(axes)
        volumes = warped.square().sum(axes) + f.square().sum(axes)
        return 1 - (overlap / volumes.clamp_min(1)).mean()
