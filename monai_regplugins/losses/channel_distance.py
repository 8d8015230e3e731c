"""Mean squared difference between the channels of a fixed image and those of a moving one under a field."""

from __future__ import annotations

import torch
from torch import Tensor

from monai_regplugins.losses.sampled_image import SampledImage
from monai_regplugins.losses.with_gradient import with_gradient

__all__ = ["ChannelDistance"]

SMALLEST_EXTENT = 1e-6  # of a mask: less is none


class ChannelDistance:
    r"""Weighted mean squared difference to fixed channels, with its closed-form gradient by the field.

    .. math::
        L(u) = \frac{\sum_x w \, \frac{1}{C} \sum_c (M_c(x + u) - F_c(x))^2}{\sum_x w}, \qquad
        \frac{\partial L}{\partial u(x)} = \frac{2 w}{C \sum w} \sum_c (M_c(x + u) - F_c(x)) \, \nabla M_c(x + u)

    with w the weights of the fixed image times what is seen of the moving one. Descriptors of the moving image are
    warped, rather than made of the warped image: they are made once, as ConvexAdam does (Siebert et al. 2021). All
    channels share the cells of the positions, and no more than a slab of one channel is held at a time.

    Args:
        moving: M, whose image has C channels.
        fixed: F, ``(1, C, *spatial)``.
        weights: of the fixed voxels, ``(1, 1, *spatial)``; ones by default.

    Example:
        >>> image = torch.rand(1, 3, 8, 8)
        >>> ChannelDistance(SampledImage(image), image)(torch.zeros(1, 2, 8, 8))
        tensor(0.)
    """

    def __init__(self, moving: SampledImage, fixed: Tensor, weights: Tensor | None = None) -> None:
        self.moving, self.fixed = moving, fixed
        self.weights = torch.ones_like(fixed[:, :1]) if weights is None else weights.to(fixed.dtype)

    def __call__(self, ddf: Tensor) -> Tensor:
        """Return the distance, a scalar, under a field ``(1, d, *spatial)``; 0 where nothing counts."""
        return with_gradient(self.value_and_gradient, ddf)

    def value_and_gradient(self, ddf: Tensor) -> tuple[Tensor, Tensor]:
        """Return the distance and its gradient, of the shape of ``ddf``."""
        value, extent, gradient = ddf.new_zeros(()), ddf.new_zeros(()), torch.zeros_like(ddf)
        for slab, seen, channels in self.moving.slabs(ddf):
            weights = self.weights[0, 0, slab] if seen is None else self.weights[0, 0, slab] * seen
            extent += weights.sum()
            for (values, slopes), fixed in zip(channels, self.fixed[0], strict=True):
                difference = values - fixed[slab]
                weighted = difference * weights
                value += difference.flatten() @ weighted.flatten()
                for axis, slope in enumerate(slopes):
                    gradient[0, axis, slab].addcmul_(weighted, slope)
        total = extent.clamp_(min=SMALLEST_EXTENT) * len(self.fixed[0])
        return value / total, gradient.mul_(2 / total)
