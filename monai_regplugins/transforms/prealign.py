"""Global pre-alignment: where fixed world points lie in the moving world, before any network looks.

Each function returns a homogeneous matrix, shape (d + 1, d + 1), float64, RAS mm, fixed world to moving world.
"""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
import torch

from monai_regplugins import fields
from monai_regplugins.checks import InputError
from monai_regplugins.transforms.grids import map_points

__all__ = ["affine_matrix", "center_of_mass", "moments_matrix"]

SAMPLES = 50_000  # per resolution level; beyond this the metric only gets slower
SMALLEST_LEVEL = 16  # voxels along the shortest axis of a shrunk image
HISTOGRAM_BINS = 50  # fewer blur the optimum of smooth images
ROBUST_RANGE = (0.5, 99.5)  # percent; metal and padding values would take most of the histogram


def center_of_mass(image: torch.Tensor, affine: torch.Tensor) -> torch.Tensor:
    """World position of the center of mass, weights ``max(image - mean, 0)``.

    Subtracting the mean keeps air (any offset, any padding value) from pulling the center to that of the scan.

    Args:
        image: intensities, shape (1, *spatial), not constant.
        affine: voxel-to-world matrix, shape (d + 1, d + 1).

    Returns:
        Position of shape (d,), float64, mm.
    """
    values = image[0].to(torch.float64)
    weights = (values - values.mean()).clamp(min=0)
    grid = fields.identity_grid(values.shape, dtype=torch.float64)
    voxel = (weights * grid).flatten(1).sum(dim=1) / weights.sum()
    return map_points(voxel[None], affine)[0]


def moments_matrix(
    fixed: torch.Tensor, fixed_affine: torch.Tensor, moving: torch.Tensor, moving_affine: torch.Tensor
) -> torch.Tensor:
    """Translation that carries the fixed center of mass to the moving one; arguments as :func:`affine_matrix`."""
    matrix = torch.eye(fixed_affine.shape[0], dtype=torch.float64)
    matrix[:-1, -1] = center_of_mass(moving, moving_affine) - center_of_mass(fixed, fixed_affine)
    return matrix


def affine_matrix(
    fixed: torch.Tensor,
    fixed_affine: torch.Tensor,
    moving: torch.Tensor,
    moving_affine: torch.Tensor,
    iterations: int = 200,
    seed: int = 1,
) -> torch.Tensor:
    """Affine registration by mutual information (Mattes, multi-resolution), started at the centers of mass.

    One thread and a seeded choice of samples: the same images give the same matrix.

    Args:
        fixed: intensities, shape (1, *spatial).
        fixed_affine: voxel-to-world matrix, shape (d + 1, d + 1).
        moving: intensities, shape (1, *spatial_m).
        moving_affine: voxel-to-world matrix, shape (d + 1, d + 1).
        iterations: at most, per resolution level.
        seed: of the sampling, 1 or more (0 would take the clock).

    Raises:
        InputError: When the optimizer fails, as for images that hardly overlap.
    """
    start = moments_matrix(fixed, fixed_affine, moving, moving_affine)
    transform = sitk.AffineTransform(fixed_affine.shape[0] - 1)
    transform.SetCenter(center_of_mass(fixed, fixed_affine).tolist())
    transform.SetTranslation(start[:-1, -1].tolist())
    method = _registration_method(fixed.shape[1:], iterations, seed)
    method.SetInitialTransform(transform, inPlace=True)
    try:
        method.Execute(_to_sitk(fixed, fixed_affine), _to_sitk(moving, moving_affine))
    except RuntimeError as error:
        raise InputError(
            "affine pre-alignment failed, the images overlap too little or have no common structure; "
            "use prealign='moments' or 'none'."
        ) from error
    return _to_matrix(transform)


def _registration_method(spatial_shape: torch.Size, iterations: int, seed: int) -> sitk.ImageRegistrationMethod:
    """Mattes mutual information with gradient descent over as many levels as the image allows (three at most)."""
    shrink = [factor for factor in (4, 2, 1) if factor == 1 or min(spatial_shape) // factor >= SMALLEST_LEVEL]
    voxels = [float(np.prod([size // factor for size in spatial_shape])) for factor in shrink]
    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfWorkUnits(1)  # several add up the metric in random order
    method.SetInterpolator(sitk.sitkLinear)
    method.SetMetricAsMattesMutualInformation(HISTOGRAM_BINS)
    method.SetMetricSamplingStrategy(sitk.ImageRegistrationMethod.RANDOM)
    method.SetMetricSamplingPercentagePerLevel([min(1.0, SAMPLES / count) for count in voxels], seed)
    method.SetShrinkFactorsPerLevel(shrink)
    method.SetSmoothingSigmasPerLevel([factor / 2 if factor > 1 else 0.0 for factor in shrink])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOff()
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=1.0, minStep=1e-3, numberOfIterations=iterations, relaxationFactor=0.7
    )
    return method


def _to_sitk(image: torch.Tensor, affine: torch.Tensor) -> sitk.Image:
    """Hand an image to SimpleITK with its RAS header as it is: both images share the frame, so no sign changes."""
    values = image[0].to(torch.float32).numpy()
    result = sitk.GetImageFromArray(np.clip(values, *np.percentile(values, ROBUST_RANGE)).T)
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
