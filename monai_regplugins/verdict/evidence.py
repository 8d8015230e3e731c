"""What states whether a registration is to be trusted, as numbers: fields of view, motion, inverse, similarity."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from monai_regplugins import fields
from monai_regplugins.losses.axis_products import along_axes, box_matrix
from monai_regplugins.losses.local_correlation import LocalCorrelation
from monai_regplugins.metrics.regularity import is_finite
from monai_regplugins.transforms.prepare import resize_image

__all__ = [
    "brightness_shift",
    "clipped_percent",
    "covered_percent",
    "extents",
    "field_evidence",
    "local_similarity",
    "mirror_gain",
    "overlap_percent",
    "sides_match",
    "unchanged_percent",
]

COARSE = 48  # voxels along an axis that state enough; an inverse at full resolution takes longer than the registration
PARTS = 32  # of an axis, at whose middles it is looked whether they lie in the other image
SIDES = 16  # voxels along an axis, on which left and right of two patients differ more than the patients
WINDOW = 7  # voxels of the coarse grid, of the local correlation
STRUCTURE = 0.1  # of the image's standard deviation; windows that vary less show no structure
EQUAL = 0.05  # by which the similarity of a window may be lower
STEPS = 20  # of the inversion
SMALLEST_SHARE = 1e-4  # of a coarse voxel that counts; less is rounding
FLAT = 1e-5  # product of two variances of standardized images that is rounding


def overlap_percent(to_moving: Tensor, fixed_shape: Sequence[int], moving_shape: Sequence[int]) -> float:
    """Volume that both fields of view share, in percent of the smaller one.

    Args:
        to_moving: matrix from fixed voxels to moving voxels, (d + 1, d + 1).
        fixed_shape: voxels of the fixed image along each axis.
        moving_shape: those of the moving image.

    Example:
        >>> shift = torch.eye(3)
        >>> shift[0, 2] = 6.0
        >>> overlap_percent(shift, [8, 8], [8, 8])
        25.0
    """
    scale = float(torch.linalg.det(to_moving.double()[:-1, :-1]).abs())
    fixed = math.prod(fixed_shape) * scale  # in voxels of the moving image
    covered = covered_percent(to_moving, fixed_shape, moving_shape)
    return min(100.0, covered * fixed / min(fixed, math.prod(moving_shape)))


def covered_percent(to_moving: Tensor, fixed_shape: Sequence[int], moving_shape: Sequence[int]) -> float:
    """Volume that both fields of view share, in percent of the fixed one; arguments as of :func:`overlap_percent`.

    Example:
        >>> covered_percent(torch.eye(3), [8, 8], [8, 4])
        50.0
    """
    axes = [(torch.arange(PARTS, dtype=torch.float64) + 0.5) * n / PARTS - 0.5 for n in fixed_shape]
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, -2)
    matrix = to_moving.double()
    found = points @ matrix[:-1, :-1].T + matrix[:-1, -1]
    inside = ((found >= -0.5) & (found <= torch.tensor(moving_shape) - 0.5)).all(dim=1)
    return 100 * float(inside.double().mean())


def extents(shape: Sequence[int], affine: Tensor) -> list[float]:
    """Length of an image along each of its axes, mm, for its matrix from voxels to mm, (d + 1, d + 1)."""
    steps = torch.linalg.vector_norm(affine[:, : len(shape)], dim=0)
    return [n * float(step) for n, step in zip(shape, steps, strict=True)]


def field_evidence(ddf: Tensor, spacing: Sequence[float] | Tensor, mask: Tensor | None = None) -> dict[str, float]:
    """Size and invertibility of a field, on a grid of at most 48 voxels along an axis.

    Args:
        ddf: the field without initial alignment, ``(d, *spatial)``, voxels.
        spacing: voxel size, mm, (d,).
        mask: voxels to look at, ``(1, *spatial)``.

    Returns:
        ``motion95``, 95th percentile of the displacement's length, mm; ``motion_percent``, the same in percent of the
        image's mean length; ``inverse95``, 95th percentile of the length of ``v(x) + u(x + v(x))``, mm, with v what 20
        steps of :func:`~monai_regplugins.fields.invert` find. NaN for a field that is not finite.
    """
    if not is_finite(ddf):
        return dict.fromkeys(("motion95", "motion_percent", "inverse95"), math.nan)
    shape = ddf.shape[1:]
    size = [min(n, COARSE) for n in shape]
    u = fields.resize(ddf[None].float(), size)
    steps = torch.as_tensor(spacing).to(u) * torch.tensor([n / m for n, m in zip(shape, size, strict=True)]).to(u)
    inside = None if mask is None else resize_image(mask.as_subclass(Tensor).float(), size) > 0.5
    inverse, _ = fields.invert(u, STEPS)
    motion, left = (_length95(field[0], steps, inside) for field in (u, fields.compose(u, inverse)))
    mean_length = sum(n * float(step) for n, step in zip(size, steps, strict=True)) / len(size)
    return {"motion95": motion, "motion_percent": 100 * motion / mean_length, "inverse95": left}


def _length95(field: Tensor, steps: Tensor, inside: Tensor | None) -> float:
    """95th percentile of the length of vectors in mm."""
    lengths = (field * steps.reshape(-1, *[1] * (field.ndim - 1))).square().sum(dim=0).sqrt()
    counted = lengths.flatten() if inside is None or not bool(inside.any()) else lengths[inside[0]]
    return float(np.percentile(counted.numpy(), 95))  # several times as fast as torch.quantile, which sorts all


def local_similarity(image: Tensor, fixed: Tensor, weights: Tensor | None = None) -> float:
    r"""Mean squared local correlation with the fixed image, on a coarse grid, where that shows structure.

    Windows of 7 voxels on a grid of at most 48 voxels along an axis, in which the fixed image varies by a tenth of its
    standard deviation at least: neither gain, offset and bias of an image nor noise between its voxels matter.

    Args:
        image: ``(1, *spatial)``.
        fixed: the same shape.
        weights: where both images count, ``(1, *spatial)``.

    Returns:
        0 for images that have nothing in common, 1 for equal ones; NaN where the fixed image shows no structure.

    Example:
        >>> fixed = torch.rand(1, 16, 16)
        >>> round(local_similarity(1 - fixed, fixed), 2)
        1.0
    """
    coarse, shares = _on_coarse_grid((image, fixed), weights)
    first, second = (_standardized(one, shares) for one in coarse)
    centers = (_local_moments(second, second, shares).sqrt() > STRUCTURE).to(second) * (shares > 0.5)
    if not bool(centers.any()):
        return math.nan
    return -float(LocalCorrelation(second[None], WINDOW, shares[None], centers[None])(first[None]))


def unchanged_percent(before: Tensor, after: Tensor, fixed: Tensor, weights: Tensor | None = None) -> float:
    """Share of the fixed image that matched as well before a registration as after it, percent.

    In two images of one patient a part of the body, such as back and spine, stays where it is. What is compared is the
    squared correlation in each window of :func:`local_similarity`; one that is lower by a twentieth at most is equal.

    Args:
        before: moving image before the registration, ``(1, *spatial)``.
        after: the same after it.
        fixed: the same shape.
        weights: where both images count, ``(1, *spatial)``.

    Returns:
        Percent of the windows; NaN where the fixed image shows no structure.

    Example:
        >>> fixed = torch.rand(1, 16, 16)
        >>> unchanged_percent(fixed, fixed, fixed), unchanged_percent(torch.rand(1, 16, 16), fixed, fixed)
        (100.0, 0.0)
    """
    coarse, shares = _on_coarse_grid((before, after, fixed), weights)
    *states, target = (_standardized(one, shares) for one in coarse)
    centers = (_local_moments(target, target, shares).sqrt() > STRUCTURE) & (shares > 0.5)
    if not bool(centers.any()):
        return math.nan
    first, second = (_local_squared_correlation(one, target, shares)[centers] for one in states)
    return 100 * float((first >= second - EQUAL).float().mean())


def brightness_shift(image: Tensor, fixed: Tensor, weights: Tensor | None = None) -> float:
    """Difference of the mean values of two images in standard deviations of the fixed one, on a coarse grid.

    Args:
        image: ``(1, *spatial)``.
        fixed: the same shape.
        weights: where both images count, ``(1, *spatial)``.

    Returns:
        0 for equal means; NaN where the fixed image is flat.

    Example:
        >>> fixed = torch.tensor([0.0, 2.0, 0.0, 2.0]).reshape(1, 2, 2)
        >>> brightness_shift(fixed + 3.0, fixed)
        3.0
    """
    coarse, shares = _on_coarse_grid((image, fixed), weights)
    (mean, _), (fixed_mean, deviation) = (_moments(one, shares) for one in coarse)
    return float((mean - fixed_mean).abs() / deviation) if float(deviation) > 0 else math.nan


def mirror_gain(image: Tensor, fixed: Tensor, affine: Tensor) -> float:
    """By how much an image matches the fixed one better when its left and right are swapped.

    The local similarity of the mirrored image less that of the image, on a grid of at most 16 voxels along an axis.

    Args:
        image: on the fixed grid, ``(1, *spatial)``.
        fixed: the same shape.
        affine: of the fixed grid, voxels to RAS mm, (d + 1, d + 1).

    Returns:
        A number that is positive where the sides are likely to be swapped; NaN where no axis runs from left to right,
        or the fixed image shows no structure.

    Example:
        >>> fixed = torch.rand(1, 16, 16)
        >>> mirror_gain(fixed.flip(1), fixed, torch.eye(3)) > 0.5
        True
    """
    axis = _sideways(affine, fixed.ndim - 1)
    if axis is None:
        return math.nan
    small, target = _on_sides_grid(image, fixed)
    return local_similarity(small.flip(axis), target) - local_similarity(small, target)


def sides_match(image: Tensor, fixed: Tensor, affine: Tensor) -> float:
    r"""Correlation of the differences between left and right of an image and of the fixed one.

    .. math::
        \frac{\sum a(x) \, b(x)}{\sqrt{\sum a(x)^2 \sum b(x)^2}}, \qquad a(x) = I(x) - I(\bar x)

    with :math:`\bar x` the mirrored position in the field of view and b of the fixed image, on a grid of at most 16
    voxels along an axis. A registration undoes how two bodies lie, by which a pair can match better mirrored, but does
    not carry a liver to the other side.

    Args:
        image: registered, on the fixed grid, ``(1, *spatial)``.
        fixed: the same shape.
        affine: of the fixed grid, voxels to RAS mm, (d + 1, d + 1).

    Returns:
        1 for equal images, -1 for an image and its mirror image; NaN where no axis runs from left to right, or an image
        is symmetric.

    Example:
        >>> fixed = torch.rand(1, 16, 16)
        >>> round(sides_match(fixed, fixed, torch.eye(3)), 3), round(sides_match(fixed.flip(1), fixed, torch.eye(3)), 3)
        (1.0, -1.0)
    """
    axis = _sideways(affine, fixed.ndim - 1)
    if axis is None:
        return math.nan
    first, second = (one - one.flip(axis) for one in _on_sides_grid(image, fixed))
    norm = float(first.norm() * second.norm())
    return float((first * second).sum()) / norm if norm > 0 else math.nan


def _sideways(affine: Tensor, d: int) -> int | None:
    """The dimension of an image ``(1, *spatial)`` that runs from left to right, None if there is none."""
    directions = affine[:d, :d] / torch.linalg.vector_norm(affine[:d, :d], dim=0)
    axis = int(directions[0].abs().argmax())
    return axis + 1 if float(directions[0, axis].abs()) >= 0.7 else None


def _on_sides_grid(*images: Tensor) -> list[Tensor]:
    """Images on a grid on which left and right of two patients differ more than the patients."""
    return [resize_image(one.as_subclass(Tensor).float(), [min(n, SIDES) for n in one.shape[1:]]) for one in images]


def _on_coarse_grid(images: Sequence[Tensor], weights: Tensor | None) -> tuple[list[Tensor], Tensor]:
    """Images of one shape on a grid of at most 48 voxels along an axis, and the share of each voxel that counts."""
    size = [min(n, COARSE) for n in images[0].shape[1:]]
    counts = None if weights is None else weights.as_subclass(Tensor)
    shares = torch.ones(1, *size, device=images[0].device) if counts is None else resize_image(counts.float(), size)
    return [_coarse(one, counts, shares) for one in images], shares


def _coarse(image: Tensor, counts: Tensor | None, shares: Tensor) -> Tensor:
    """An image at the size of the shares, each voxel the average of what counts."""
    values = image.as_subclass(Tensor).float()
    if counts is None:
        return resize_image(values, shares.shape[1:])
    # a product would make a float32 copy of the mask first
    counted = torch.where(counts, values, 0) if counts.dtype == torch.bool else values * counts
    return resize_image(counted, shares.shape[1:]) / shares.clamp_min(SMALLEST_SHARE)


def _standardized(image: Tensor, shares: Tensor) -> Tensor:
    """An image of mean 0 and standard deviation 1 in what counts, 0 elsewhere; a flat one becomes 0."""
    mean, deviation = _moments(image, shares)
    return torch.where(shares > 0, image - mean, 0) / deviation if float(deviation) > 0 else torch.zeros_like(image)


def _moments(image: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of what counts of an image."""
    number = shares.sum().clamp_min(SMALLEST_SHARE)
    mean = (image * shares).sum() / number
    centered = torch.where(shares > 0, image - mean, 0)
    return mean, ((centered.square() * shares).sum() / number).sqrt()


def _local_moments(image: Tensor, other: Tensor, shares: Tensor) -> Tensor:
    """Covariance of what counts of two images in each window; of an image and itself its variance, which is not < 0."""
    boxes = [box_matrix(n, WINDOW, 1, image) for n in image.shape[1:]]
    number = along_axes(shares[None], boxes).clamp_min(SMALLEST_SHARE)

    def mean(values: Tensor) -> Tensor:
        return (along_axes((values * shares)[None], boxes) / number)[0]

    found = mean(image * other) - mean(image) * mean(other)
    return found.clamp_min(0) if image is other else found


def _local_squared_correlation(image: Tensor, other: Tensor, shares: Tensor) -> Tensor:
    """Squared correlation of two images in each window, 0 where one of them is flat."""
    variances = _local_moments(image, image, shares) * _local_moments(other, other, shares)
    return _local_moments(image, other, shares).square() / (variances + FLAT)


def clipped_percent(image: Tensor) -> float:
    """Voxels that have the image's largest value, in percent of those brighter than its mean.

    Example:
        >>> clipped_percent(torch.tensor([0.0, 0.0, 0.0, 0.5, 1.0, 1.0, 1.0, 1.0]).reshape(1, 2, 4))
        100.0
    """
    values = image.as_subclass(Tensor)
    bright = int(torch.count_nonzero(values > values.mean()))  # a sum would hold the mask as 64-bit integers
    return 100 * int(torch.count_nonzero(values == values.max())) / bright if bright else math.nan
