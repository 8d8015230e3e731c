"""Global pre-alignment: where fixed world points lie in the moving world, before any network looks.

Each function returns a homogeneous matrix, shape (d + 1, d + 1), float64, RAS mm, fixed world to moving world.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch.nn import functional as F

from monai_regplugins.checks import InputError, check_mask, check_same_size
from monai_regplugins.grids import map_points, rescaled_affine, voxel_spacing

if TYPE_CHECKING:
    import SimpleITK as sitk

__all__ = ["affine_matrix", "center_of_mass", "correlation_matrix", "moments_matrix"]

VOXELS = 64**3  # of the images that are registered; an affine map has few parameters, so that more only take longer
_Masked: TypeAlias = tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]  # image, affine, mask

SAMPLES = 10_000  # per resolution level; beyond this the metric only gets slower
SMALLEST_LEVEL = 10  # voxels along the shortest axis of a shrunk image, for a histogram
SMALLEST_CORRELATED_LEVEL = 8  # the same for a correlation, which takes fewer
HISTOGRAM_BINS = 50  # fewer blur the optimum of smooth images
ROBUST_RANGE = (0.5, 99.5)  # percent; metal and padding values would take most of the histogram


def center_of_mass(image: torch.Tensor, affine: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """World position of the center of mass, weights ``max(image - mean, 0)``.

    Subtracting the mean keeps air (any offset, any padding value) from pulling the center to that of the scan.

    Args:
        image: intensities, shape ``(1, *spatial)``, not constant.
        affine: voxel-to-world matrix, shape (d + 1, d + 1).
        mask: voxels that count (above zero), shape ``(1, *spatial)``; all by default, and if none is brighter than the
            others.

    Returns:
        Position of shape (d,), float64, mm.
    """
    values = image[0]
    counts = torch.ones_like(values, dtype=torch.bool) if mask is None else mask[0] > 0
    mean = values.mean(dtype=torch.float64) if mask is None else values[counts].mean(dtype=torch.float64)
    # plane by plane: a volume in float64 takes many times its memory
    planes = zip(values.split(1), counts.split(1), strict=True)
    sums = [_sums_along_axes((plane.double() - mean).clamp(min=0) * counted) for plane, counted in planes]
    first, *others = zip(*sums, strict=True)
    totals = [torch.cat(first), *(torch.stack(planes).sum(dim=0) for planes in others)]
    voxel = torch.stack([total @ torch.arange(len(total), dtype=torch.float64) for total in totals])
    return map_points(voxel[None] / totals[0].sum(), affine)[0]


def _sums_along_axes(weights: torch.Tensor) -> list[torch.Tensor]:
    """For each axis the sums of the weights over all others."""
    axes = range(weights.ndim)
    return [weights.sum(dim=[other for other in axes if other != axis]) for axis in axes]


def moments_matrix(
    fixed: torch.Tensor,
    fixed_affine: torch.Tensor,
    moving: torch.Tensor,
    moving_affine: torch.Tensor,
    fixed_mask: torch.Tensor | None = None,
    moving_mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Translation that carries the fixed center of mass to the moving one; arguments as :func:`affine_matrix`."""
    matrix = torch.eye(fixed_affine.shape[0], dtype=torch.float64)
    end, start = center_of_mass(moving, moving_affine, moving_mask), center_of_mass(fixed, fixed_affine, fixed_mask)
    matrix[:-1, -1] = end - start
    return matrix


def affine_matrix(
    fixed: torch.Tensor,
    fixed_affine: torch.Tensor,
    moving: torch.Tensor,
    moving_affine: torch.Tensor,
    iterations: int = 200,
    seed: int = 1,
    fixed_mask: torch.Tensor | None = None,
    moving_mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Affine registration by mutual information (Mattes, multi-resolution), started at the centers of mass.

    One thread and a seeded choice of samples: the same images give the same matrix.

    Args:
        fixed: intensities, shape ``(1, *spatial)``.
        fixed_affine: voxel-to-world matrix, shape (d + 1, d + 1).
        moving: intensities, shape ``(1, *spatial_m)``.
        moving_affine: voxel-to-world matrix, shape (d + 1, d + 1).
        iterations: at most, per resolution level.
        seed: of the sampling, 1 or more (0 would take the clock).
        fixed_mask: voxels of the fixed image that are compared (above zero), shape ``(1, *spatial)``; all by default.
        moving_mask: voxels of the moving image that they are compared with, shape ``(1, *spatial_m)``; all by default.

    Raises:
        InputError: When a mask is empty or not on the grid of its image, or the optimizer fails, as for images that
            hardly overlap.
    """
    import SimpleITK as sitk  # 95 MB of memory, so only where it is used

    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(HISTOGRAM_BINS)
    scans = _shrunk(fixed, fixed_affine), _shrunk(moving, moving_affine)
    levels = _levels(scans[0].image.shape[1:], (4, 2, 1), SMALLEST_LEVEL)
    levels = _set_masks(method, levels, (fixed, fixed_affine, fixed_mask), (moving, moving_affine, moving_mask))
    edge = float(voxel_spacing(scans[0].affine, fixed.ndim - 1).mean())
    # with a first step of a voxel the descent gets over small hills, and to a turned image in fewer steps
    _set_gradient_descent(method, levels, iterations, seed, smallest_gradient=1e-4, steps=(edge, edge / 2000))
    return _register(method, *scans)


def correlation_matrix(
    fixed: torch.Tensor,
    fixed_affine: torch.Tensor,
    moving: torch.Tensor,
    moving_affine: torch.Tensor,
    fixed_mask: torch.Tensor | None = None,
    moving_mask: torch.Tensor | None = None,
    iterations: int = 1000,
    seed: int = 1,
) -> torch.Tensor:
    """Affine registration by normalized correlation over five resolutions, started at the centers of mass.

    Source: Sokooti et al. 2017, section 3.2, with elastix. Here it is SimpleITK's gradient descent, which ends where
    its steps get small, and images too small for a shrinking by 16, 8, 4 or 2 go without. For images of one kind, as
    two CT scans of a patient; intensities may differ by a linear change.

    One thread and a seeded choice of samples: the same images give the same matrix.

    Args:
        fixed: intensities, shape ``(1, *spatial)``.
        fixed_affine: voxel-to-world matrix, shape (d + 1, d + 1).
        moving: intensities, shape ``(1, *spatial_m)``.
        moving_affine: voxel-to-world matrix, shape (d + 1, d + 1).
        fixed_mask: voxels of the fixed image that are compared (above zero), shape ``(1, *spatial)``; all by default.
        moving_mask: voxels of the moving image that they are compared with, shape ``(1, *spatial_m)``; all by default.
        iterations: at most, per resolution level.
        seed: of the sampling, 1 or more (0 would take the clock).

    Raises:
        InputError: When a mask is empty or not on the grid of its image, or the optimizer fails, as for images that
            hardly overlap.
    """
    import SimpleITK as sitk  # 95 MB of memory, so only where it is used

    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsCorrelation()
    levels = _levels(fixed.shape[1:], (16, 8, 4, 2, 1), SMALLEST_CORRELATED_LEVEL)
    levels = _set_masks(method, levels, (fixed, fixed_affine, fixed_mask), (moving, moving_affine, moving_mask))
    # a correlation near its optimum hardly changes over a millimeter, so small gradients are no reason to stop
    _set_gradient_descent(method, levels, iterations, seed, smallest_gradient=1e-8, steps=(1.0, 1e-3))
    return _register(method, _Scan(fixed.float(), fixed_affine), _Scan(moving.float(), moving_affine))


def _set_masks(
    method: sitk.ImageRegistrationMethod, levels: dict[int, float], fixed: _Masked, moving: _Masked
) -> dict[int, float]:
    """Compare within the masks; return the levels with the voxels that are left to draw samples from."""
    if fixed[2] is not None:
        method.SetMetricFixedMask(_mask_to_sitk(fixed[2], *fixed[:2], "fixed"))
    if moving[2] is not None:
        method.SetMetricMovingMask(_mask_to_sitk(moving[2], *moving[:2], "moving"))
    share = 1.0 if fixed[2] is None else float((fixed[2] > 0).double().mean())
    return {factor: share * voxels for factor, voxels in levels.items()}


class _Scan(NamedTuple):
    """An image ``(1, *spatial)``, float32, and its voxel-to-world matrix."""

    image: torch.Tensor
    affine: torch.Tensor


def _shrunk(image: torch.Tensor, affine: torch.Tensor) -> _Scan:
    """Average blocks of voxels, more along finer axes, until few enough are left."""
    shape, d = image.shape[1:], image.ndim - 1
    spacing, factors = voxel_spacing(affine, d).tolist(), [1] * d
    while math.prod(n // factor for n, factor in zip(shape, factors, strict=True)) > VOXELS:
        edges = [
            math.inf if n // 2 < factor else s * factor for n, s, factor in zip(shape, spacing, factors, strict=True)
        ]
        factors[int(np.argmin(edges))] += 1
    pool = F.avg_pool2d if d == 2 else F.avg_pool3d
    averages = pool(image.float()[None], tuple(factors))[0]  # without what is left over at the ends of the axes
    covered = [n * factor for n, factor in zip(averages.shape[1:], factors, strict=True)]
    return _Scan(averages, rescaled_affine(affine, covered, averages.shape[1:]))


def _levels(spatial_shape: torch.Size, factors: Sequence[int], smallest: int) -> dict[int, float]:
    """The factors that leave ``smallest`` voxels along each axis (1 always does), each with its number of voxels."""
    shrink = [factor for factor in factors if factor == 1 or min(spatial_shape) // factor >= smallest]
    return {factor: float(np.prod([size // factor for size in spatial_shape])) for factor in shrink}


def _set_gradient_descent(
    method: sitk.ImageRegistrationMethod,
    levels: Mapping[int, float],
    iterations: int,
    seed: int,
    smallest_gradient: float,
    steps: tuple[float, float],
) -> None:
    """Gradient descent from level to level: each has a shrink factor, and a number of voxels to draw samples from.

    The steps are the first and the last one, mm of the voxel that moves farthest.
    """
    import SimpleITK as sitk  # 95 MB of memory, so only where it is used

    shrink = list(levels)
    method.SetNumberOfWorkUnits(1)  # several add up the metric in random order
    method.SetInterpolator(sitk.sitkLinear)
    method.MetricUseFixedImageGradientFilterOff()  # of a whole image, which neither metric looks at
    method.SetMetricSamplingStrategy(sitk.ImageRegistrationMethod.RANDOM)
    method.SetMetricSamplingPercentagePerLevel([min(1.0, SAMPLES / voxels) for voxels in levels.values()], seed)
    method.SetShrinkFactorsPerLevel(shrink)
    method.SetSmoothingSigmasPerLevel([factor / 2 if factor > 1 else 0.0 for factor in shrink])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOff()
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=steps[0],
        minStep=steps[1],
        numberOfIterations=iterations,
        relaxationFactor=0.7,
        gradientMagnitudeTolerance=smallest_gradient,
    )


def _register(method: sitk.ImageRegistrationMethod, fixed: _Scan, moving: _Scan) -> torch.Tensor:
    """Run a method on affine transforms about the fixed center of mass."""
    import SimpleITK as sitk  # 95 MB of memory, so only where it is used

    start, end = (center_of_mass(scan.image, scan.affine) for scan in (fixed, moving))
    transform = sitk.AffineTransform(len(start))
    transform.SetCenter(start.tolist())
    transform.SetTranslation((end - start).tolist())
    method.SetInitialTransform(transform, inPlace=True)
    try:
        method.Execute(_clipped_to_sitk(fixed), _clipped_to_sitk(moving))
    except RuntimeError as error:
        raise InputError(
            "affine pre-alignment failed, the images overlap too little or have no common structure; "
            "use prealign='moments' or 'none'."
        ) from error
    matrix = _to_matrix(transform)
    if not bool(matrix.isfinite().all()):
        raise InputError(
            "affine pre-alignment found a map that is not finite, the images have too little in common; use "
            "prealign='moments' or 'none'."
        )
    return matrix


def _clipped_to_sitk(scan: _Scan) -> sitk.Image:
    """Hand intensities to SimpleITK without their extremes."""
    values = scan.image[0].numpy()
    return _to_sitk(np.clip(values, *np.percentile(values, ROBUST_RANGE)), scan.affine)


def _mask_to_sitk(mask: torch.Tensor, image: torch.Tensor, affine: torch.Tensor, side: str) -> sitk.Image:
    """Hand the mask of an image to SimpleITK."""
    check_same_size(mask, image, f"{side} mask", f"{side} image")
    check_mask(mask, f"{side} mask")
    return _to_sitk((mask[0] > 0).to(torch.uint8).numpy(), affine)


def _to_sitk(values: np.ndarray[Any, Any], affine: torch.Tensor) -> sitk.Image:
    """Hand an array to SimpleITK with its RAS header as it is: both images share the frame, so no sign changes."""
    import SimpleITK as sitk  # 95 MB of memory, so only where it is used

    result = sitk.GetImageFromArray(values.T)
    axes = affine[:-1, :-1].numpy()
    spacing = np.linalg.norm(axes, axis=0)
    result.SetSpacing(spacing.tolist())
    result.SetDirection((axes / spacing).ravel().tolist())
    result.SetOrigin(affine[:-1, -1].tolist())
    return result


def _to_matrix(transform: sitk.AffineTransform) -> torch.Tensor:
    """``x -> M (x - c) + t + c`` as a homogeneous matrix."""
    d = transform.GetDimension()
    linear = np.reshape(transform.GetMatrix(), (d, d))
    center = np.asarray(transform.GetCenter())
    matrix = np.eye(d + 1)
    matrix[:d, :d] = linear
    matrix[:d, d] = np.asarray(transform.GetTranslation()) + center - linear @ center
    return torch.from_numpy(matrix)
