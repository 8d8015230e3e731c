"""Image similarity inside a mask: squared local normalized cross correlation and mean squared error."""

from __future__ import annotations

import torch
from torch import nn

from monai_regplugins.checks import InputError
from monai_regplugins.losses.numerics import at_least_float32, check_spatial_match
from monai_regplugins.losses.window_sum import box_sum

__all__ = ["MaskedLNCCLoss", "MaskedMSELoss"]


class MaskedLNCCLoss(nn.Module):
    r"""Minus the squared local normalized cross correlation, averaged over a mask.

    With sums over the box of ``window`` voxels per axis around each voxel,

    .. math::
        cc = \frac{(\sum (I - \bar I)(J - \bar J))^2}{\sum (I - \bar I)^2 \, \sum (J - \bar J)^2 + \epsilon}, \qquad
        L = -\frac{1}{B} \sum_b \frac{\sum_x m_b(x) \, cc_b(x)}{\sum_x m_b(x)}.

    The term D of the RAN paper (Zheng et al. 2022, Eq. 13) for abdominal CT; the authors' code uses
    ``window=8`` and the mask "fixed brighter than 0.1". A box that crosses the image border is cut there and its means
    use the true voxel count (the authors pad with zeros, as if the image went on in black), so gain and offset of
    either image do not matter anywhere. An even window reaches one voxel further on the high side.

    Args:
        window: edge length of the box in voxels, at least 2, even or odd.
        threshold: with no mask given, voxels where ``fixed`` exceeds this count; None takes every voxel.
        eps: added to the product of the two sums of squares; suits intensities in [0, 1].

    Raises:
        InputError: ``window`` is below 2 or ``eps`` is not positive.

    Example:
        >>> image = torch.rand(1, 1, 16, 16)
        >>> bool(MaskedLNCCLoss()(0.5 * image + 0.2, image) < -0.99)  # gain and offset do not matter
        True
    """

    def __init__(self, window: int = 7, threshold: float | None = 0.1, eps: float = 1e-5) -> None:
        super().__init__()
        if window < 2:
            raise InputError(f"window is {window}, expected at least 2 voxels; the default is 7.")
        if not eps > 0:
            raise InputError(f"eps is {eps}, expected a positive number; the default is 1e-5.")
        self.window = window
        self.threshold = threshold
        self.eps = eps

    def forward(self, warped: torch.Tensor, fixed: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Return the loss, a scalar in [-1, 0].

        Args:
            warped: moving image on the fixed grid, ``(B, C, *spatial)``, 2D or 3D.
            fixed: fixed image, the same shape.
            mask: weights ``(B, 1, *spatial)`` that replace the threshold; a sample with an empty mask counts as zero.

        Raises:
            InputError: the shapes do not match.
        """
        warped, fixed = _wide_pair(warped, fixed)
        correlation = self.correlation(warped, fixed)
        weights = _weights(fixed, mask, self.threshold).expand_as(correlation)
        axes = tuple(range(1, fixed.ndim))
        # The floor only keeps an empty mask from dividing zero by zero.
        per_sample = (correlation * weights).sum(axes) / weights.sum(axes).clamp_min(1e-12)
        return -per_sample.mean()

    def correlation(self, warped: torch.Tensor, fixed: torch.Tensor) -> torch.Tensor:
        """Return the map of cc, in [0, 1] and of the shape of the images, which are in float32 or float64."""
        i, j = _centered(warped), _centered(fixed)
        count = box_sum(torch.ones_like(j[:1, :1]), self.window)
        # Two stacks, so that nothing is propagated back through the moments of the fixed image alone.
        sum_i, sum_ii, sum_ij = box_sum(torch.cat([i, i * i, i * j], dim=1), self.window).chunk(3, dim=1)
        sum_j, sum_jj = box_sum(torch.cat([j, j * j], dim=1), self.window).chunk(2, dim=1)
        cross = sum_ij - sum_i * sum_j / count
        # Rounding may leave a flat window slightly below zero.
        variance_i = (sum_ii - sum_i * sum_i / count).clamp_min(0)
        variance_j = (sum_jj - sum_j * sum_j / count).clamp_min(0)
        return cross * cross / (variance_i * variance_j + self.eps)


class MaskedMSELoss(nn.Module):
    r"""Mean squared error where the fixed image is not background.

    .. math::
        L = \frac{1}{|\Omega|} \sum_{x \in \Omega} m(x) \, (I(x) - J(x))^2.

    The term D of the RAN paper (Zheng et al. 2022, Eq. 13) for lung CT. As in the authors' code the
    mean is over all voxels, not those of the mask: a small mask makes a small loss.

    Args:
        threshold: with no mask given, voxels where ``fixed`` exceeds this count; None takes every voxel.

    Example:
        >>> MaskedMSELoss()(torch.zeros(1, 1, 8, 8), torch.full((1, 1, 8, 8), 0.5))
        tensor(0.2500)
    """

    def __init__(self, threshold: float | None = 0.01) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, warped: torch.Tensor, fixed: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Return the loss, a scalar.

        Args:
            warped: moving image on the fixed grid, ``(B, C, *spatial)``, 2D or 3D.
            fixed: fixed image, the same shape.
            mask: weights ``(B, 1, *spatial)`` that replace the threshold.

        Raises:
            InputError: the shapes do not match.
        """
        warped, fixed = _wide_pair(warped, fixed)
        return ((warped - fixed).square() * _weights(fixed, mask, self.threshold)).mean()


def _wide_pair(warped: torch.Tensor, fixed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Check that two images have one shape and return both in float32 at least."""
    check_spatial_match(warped, fixed, "warped", "fixed")
    if warped.shape[1] != fixed.shape[1]:
        raise InputError(f"warped has {warped.shape[1]} channels but fixed has {fixed.shape[1]}, expected the same.")
    return at_least_float32(warped), at_least_float32(fixed)


def _weights(fixed: torch.Tensor, mask: torch.Tensor | None, threshold: float | None) -> torch.Tensor:
    """Return the given mask, or that of the voxels above the threshold, or ones, in the type of ``fixed``."""
    if mask is not None:
        check_spatial_match(mask, fixed, "mask", "fixed")
        return mask.to(fixed.dtype)
    return torch.ones_like(fixed) if threshold is None else (fixed > threshold).to(fixed.dtype)


def _centered(image: torch.Tensor) -> torch.Tensor:
    """Subtract each image's mean, to which correlation is invariant, since differences of large sums lose digits."""
    return image - image.detach().mean(dim=tuple(range(2, image.ndim)), keepdim=True)
