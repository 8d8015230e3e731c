"""Gaussian mean of an image, in little time and memory."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.layers import gaussian_1d
from torch import Tensor

from monai_regplugins import fields

__all__ = ["gaussian_mean"]


def gaussian_mean(image: Tensor, sigma: float) -> Tensor:
    """Smooth ``(B, C, *spatial)`` by a Gaussian; the border voxels continue beyond the image.

    The same as a convolution, which on a CPU takes six times as long and several times the memory.

    Args:
        image: what to smooth.
        sigma: standard deviation, voxels; 0 leaves the image as it is.

    Example:
        >>> gaussian_mean(torch.ones(1, 1, 8, 8), 0.75).std() < 1e-6
        tensor(True)
    """
    sampled = gaussian_1d(torch.tensor(sigma), approx="sampled") if sigma else torch.ones(1)
    weights = (sampled / sampled.sum()).tolist()  # a narrow one sums to more than 1
    image = image.clone()
    for axis in range(2, image.ndim):
        across = 3 if axis == 2 else 2
        thickness = max(1, fields.SLAB_VOXELS * image.shape[across] // image.numel())
        for part in image.split(thickness, dim=across):
            part.copy_(_mean_along(part, weights, axis))
    return image


def _mean_along(image: Tensor, weights: Sequence[float], axis: int) -> Tensor:
    """Weighted mean along an axis, an odd number of voxels."""
    n, reach = image.shape[axis], len(weights) // 2
    continued = image.index_select(axis, torch.arange(-reach, n + reach, device=image.device).clamp(0, n - 1))
    mean = torch.zeros_like(image)
    for start, weight in enumerate(weights):
        mean.add_(continued.narrow(axis, start, n), alpha=weight)
    return mean
