"""A pair in the contrast of one of its images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from monai_regplugins import fields
from monai_regplugins.inferers.gaussian import gaussian_mean
from monai_regplugins.losses.contrast import ContrastMap
from monai_regplugins.losses.instance import WeightedImage
from monai_regplugins.transforms.prepare import resize_image

__all__ = ["bias_of", "in_contrast_of", "without_bias"]

SAMPLES = 2**20  # voxels whose intensities state a contrast, about
SLAB = 2**22  # voxels of which these are taken at a time: the whole of an image would take many times its memory
EDGE = 0.75  # voxels, the scale of a gradient
REACH = 4  # voxels that smoothing by this and a difference see
LEAST_STEEPNESS = 1e-3  # variances of the image per squared voxel: less is that of noise
BIAS_SCALE = {2: 0.15, 3: 0.1}  # of the shortest axis, deviation of the Gaussian; in 2D fewer voxels state a bias
NEGATIVE = 0.01  # of the mean magnitude, what noise leaves below zero
DARK = 0.05  # of the mean intensity, added to both means: nothing is known where both images are dark

Read: TypeAlias = Callable[[slice], Tensor]  # a part of an image along its first axis


def in_contrast_of(
    side: str, moving: WeightedImage, fixed: WeightedImage, ddf: Tensor
) -> tuple[WeightedImage, WeightedImage]:
    r"""Two images in the contrast of one of them, as far as a field matches them.

    The other image is mapped by the regression of that one on it, see
    :class:`~monai_regplugins.losses.contrast.ContrastMap`. Where an image is steep a small error of the field pairs
    unlike intensities: each voxel counts by the inverse of the variance that this adds,
    :math:`w = 1 / (|\nabla I|^2 / s_I + |\nabla J|^2 / s_J + \epsilon)` with the variances s of the images.

    Args:
        side: ``fixed`` or ``moving``, the image that is left as it is.
        moving: the moving image.
        fixed: the fixed image, on the same grid.
        ddf: the field on that grid, ``(1, d, *spatial)``.

    Returns:
        The moving and the fixed image.

    Example:
        >>> pair = WeightedImage(torch.rand(1, 1, 16, 16)), WeightedImage(torch.zeros(1, 1, 16, 16))
        >>> in_contrast_of("fixed", *pair, torch.zeros(1, 2, 16, 16))[0].image.abs().max() < 1e-6
        tensor(True)
    """
    size = list(ddf.shape[2:])
    one = _sampled(size, partial(_warped, moving.image, ddf, "linear", "border"))
    other = _sampled(size, partial(_part, fixed.image))
    weights = (one.steepness + other.steepness).add_(LEAST_STEEPNESS).reciprocal_()
    if moving.weights is not None:
        weights *= _thinned(size, partial(_warped, moving.weights, ddf, "nearest", "zeros"))
    if fixed.weights is not None:
        weights *= _thinned(size, partial(_part, fixed.weights))
    if not bool(weights.any()):
        return moving, fixed
    if side == "fixed":
        return moving._replace(image=_mapped(moving.image, one.values, other.values, weights)), fixed
    return moving, fixed._replace(image=_mapped(fixed.image, other.values, one.values, weights))


def bias_of(moving: WeightedImage, fixed: WeightedImage, ddf: Tensor) -> Tensor | None:
    r"""The ratio of the local brightness of two images, as far as a field matches them: of their bias fields.

    .. math::
        b = \frac{G (w J) + \epsilon \bar J}{G (w \, I \circ \phi) + \epsilon \, \overline{I \circ \phi}}

    with a wide Gaussian G, the weights w of both images and the means of the images over them.

    Args:
        moving: the moving image I.
        fixed: the fixed image J, on the same grid.
        ddf: the field on that grid, ``(1, d, *spatial)``.

    Returns:
        b, ``(1, C, *spatial)``; None where an image has more than noise below zero: intensities are no multiples then.

    Example:
        >>> image = torch.rand(1, 1, 16, 16)
        >>> bias = bias_of(WeightedImage(image), WeightedImage(3 * image), torch.zeros(1, 2, 16, 16))
        >>> (bias - 3).abs().max() < 1e-4
        tensor(True)
    """
    if any(bool(-image.clamp(max=0).mean() > NEGATIVE * image.abs().mean()) for image in (moving.image, fixed.image)):
        return None
    one, counts = fields.warp(moving.image, ddf, padding="border"), torch.ones_like(fixed.image[:, :1])
    if moving.weights is not None:
        counts = counts * fields.warp(moving.weights.float(), ddf, mode="nearest")
    if fixed.weights is not None:
        counts = counts * fixed.weights
    sigma = BIAS_SCALE[ddf.ndim - 2] * min(ddf.shape[2:])
    spread = [gaussian_mean(counts * image, sigma) for image in (fixed.image, one)]
    least = [DARK * image.mean(dim=list(range(2, image.ndim)), keepdim=True) for image in spread]
    tiny = torch.finfo(one.dtype).tiny
    return (spread[0] + least[0]).clamp_min(tiny) / (spread[1] + least[1]).clamp_min(tiny)


def without_bias(image: Tensor, bias: Tensor) -> Tensor:
    """The fixed image divided by :func:`bias_of` a pair of any size."""
    return resize_image(bias[0], list(image.shape[2:]))[None].reciprocal_().mul_(image)


class _Samples(NamedTuple):
    """Some voxels of an image ``(C, N)``, and there the squared gradient, in variances per squared voxel."""

    values: Tensor
    steepness: Tensor


def _part(image: Tensor, part: slice) -> Tensor:
    """A part of an image."""
    return image[:, :, part]


def _warped(image: Tensor, ddf: Tensor, mode: str, padding: str, part: slice) -> Tensor:
    """A part of an image under a field."""
    return fields.warp(image, ddf[:, :, part], mode, padding, part.start)


def _sampled(size: Sequence[int], read: Read) -> _Samples:
    """The samples of an image."""
    parts = []
    for slab in fields.slabs(size, SLAB):
        first = max(0, slab.start - REACH)
        inner = slice(slab.start - first, slab.stop - first)
        image = read(slice(first, min(slab.stop + REACH, size[0])))
        smooth = gaussian_mean(image, EDGE)
        parts.append([_every(each[:, :, inner], size) for each in (image, smooth, _squared_gradient(smooth))])
    values, smooth, steepness = (torch.cat(part, dim=1) for part in zip(*parts, strict=True))
    return _Samples(values, steepness.div_(smooth.var().clamp_min(torch.finfo(smooth.dtype).tiny)))


def _thinned(size: Sequence[int], read: Read) -> Tensor:
    """The values of an image at the samples."""
    return torch.cat([_every(read(slab), size) for slab in fields.slabs(size, SLAB)], dim=1)


def _every(part: Tensor, size: Sequence[int]) -> Tensor:
    """The samples ``(C, N)`` in a part ``(1, C, *spatial)`` of an image of some size, which leave that to be freed."""
    step = -(-math.prod(size) // SAMPLES)
    return part[0].flatten(1)[:, ::step].clone()


def _squared_gradient(image: Tensor) -> Tensor:
    """Sum of squared central differences; those at the ends of an axis are 0."""
    total = torch.zeros_like(image)
    for axis in range(2, image.ndim):
        inner = total.narrow(axis, 1, image.shape[axis] - 2)
        inner += (image.narrow(axis, 2, inner.shape[axis]) - image.narrow(axis, 0, inner.shape[axis])).square_() / 4
    return total


def _mapped(image: Tensor, one: Tensor, other: Tensor, weights: Tensor) -> Tensor:
    """An image with each channel mapped by the regression of samples of one image on those of another."""
    mapped = torch.empty_like(image)
    for k, channel in enumerate(zip(one, other, weights, strict=True)):
        change = ContrastMap.fitted(*channel)
        for slab in fields.slabs(image.shape[2:]):
            mapped[:, k, slab] = change(image[:, k, slab])
    return mapped
