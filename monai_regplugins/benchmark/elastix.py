"""Registration by elastix (Klein et al. 2010), the baseline of RegNet.

Sokooti et al. 2017, section 3.2: an affine registration with normalized correlation, five resolutions of 1000
iterations; then B-splines with a final grid spacing of 10 mm, one resolution of 2000 iterations (1R) or three of 500
(3R). The paper names neither the metric nor the optimizer of the B-splines. Here they are those of the affine
registration, normalized correlation and adaptive stochastic gradient descent on 2000 random points; mutual information
is an option.
"""

from __future__ import annotations

import importlib
import math
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch

from monai_regplugins.checks import (
    InputError,
    check_choice,
    check_image,
    check_mask,
    check_same_size,
)

__all__ = ["METHODS", "METRICS", "ElastixResult", "elastix_parameters", "load_elastix", "register_elastix"]

METHODS = {"affine": (5, 1000), "bspline_1r": (1, 2000), "bspline_3r": (3, 500)}  # resolutions, iterations on each
METRICS = {"ncc": "AdvancedNormalizedCorrelation", "mi": "AdvancedMattesMutualInformation"}
GRID_SPACING = 10.0  # mm, at the finest resolution; twice that at each one before
SAMPLES = 2000  # per iteration
SMALLEST_LEVEL = 8  # voxels along the shortest axis of a shrunk image


class ElastixResult(NamedTuple):
    """Outcome of :func:`register_elastix`.

    Attributes:
        ddf: ``(1, d, *spatial)`` in voxels, float32.
        seconds: wall time of registration and evaluation of the field, without loading the library.
    """

    ddf: torch.Tensor
    seconds: float


def register_elastix(
    fixed: torch.Tensor,
    moving: torch.Tensor,
    spacing: Sequence[float] | torch.Tensor,
    method: str = "bspline_3r",
    metric: str = "ncc",
    mask: torch.Tensor | None = None,
    seed: int = 0,
    threads: int = 1,
    grid_spacing: float = GRID_SPACING,
) -> ElastixResult:
    """Register one pair of images that lie on one grid, as section 3.2 of the paper does.

    The images keep their intensities: both metrics are the same for a linear change of them. It runs on the CPU. One
    thread and the same seed give the same field.

    Args:
        fixed: image to match, ``(1, 1, *spatial)``, 2D or 3D.
        moving: image to deform, the same shape.
        spacing: voxel size along each axis in mm, ``(d,)``.
        method: one of :data:`METHODS`.
        metric: one of :data:`METRICS`, normalized correlation or mutual information.
        mask: voxels of the fixed image that are compared (above zero), ``(1, 1, *spatial)``; all by default.
        seed: of the random points.
        threads: CPU threads.
        grid_spacing: of the B-splines at the finest resolution, mm.

    Returns:
        The :class:`ElastixResult`.

    Raises:
        InputError: itk-elastix is not installed; the images do not match, are constant or not finite; an option is out
            of range; or elastix fails, as where the images hardly overlap.
    """
    size = _check_images(fixed, moving, mask)
    widths = _check_options(spacing, size, threads)
    parameters = elastix_parameters(method, metric, size, seed, grid_spacing)
    itk = load_elastix()
    with _threads(itk, threads), TemporaryDirectory() as folder:
        start = time.perf_counter()
        stated = itk.ParameterObject.New()
        stated.AddParameterMap(parameters)
        images = [_to_itk(itk, image[0, 0].float(), widths) for image in (fixed, moving)]
        masks = {} if mask is None else {"fixed_mask": _to_itk(itk, (mask[0, 0] > 0).byte(), widths)}
        try:
            _, transform = itk.elastix_registration_method(
                *images, parameter_object=stated, log_to_console=False, **masks
            )
            # it writes the field to a file too, in the working directory if no other one is set
            field = itk.transformix_deformation_field(images[1], transform, output_directory=folder)
        except RuntimeError as error:
            raise InputError(
                f"elastix ({method}) failed: the images overlap too little, or the mask is too small; "
                "align them first, or leave out the mask."
            ) from error
        millimeters = np.asarray(itk.array_from_image(field)).T  # (z, y, x, component) -> (component, x, y, z)
        ddf = torch.from_numpy(np.stack([u / width for u, width in zip(millimeters, widths, strict=True)]))
        return ElastixResult(ddf[None].float(), time.perf_counter() - start)


def elastix_parameters(
    method: str, metric: str, spatial_shape: Sequence[int], seed: int = 0, grid_spacing: float = GRID_SPACING
) -> dict[str, list[str]]:
    """Return elastix's parameter map of a method, as in a parameter file: each key with its words.

    The images are smoothed and shrunk by 2 from each resolution to the next. The affine registration leaves out the
    resolutions at which less than 8 voxels would be left along an axis.

    Args:
        method: one of :data:`METHODS`.
        metric: one of :data:`METRICS`.
        spatial_shape: number of voxels along each axis.
        seed: of the random points.
        grid_spacing: of the B-splines at the finest resolution, mm.

    Raises:
        InputError: When there is no such method or metric, or no distance between the nodes.
    """
    check_choice(method, METHODS, "method")
    check_choice(metric, METRICS, "metric")
    if not 0 < grid_spacing < math.inf:
        raise InputError(f"grid_spacing is {grid_spacing}, expected a number above 0; give mm.")
    count, iterations = METHODS[method]
    factors = [2**level for level in range(count)][::-1]
    if method == "affine":
        factors = [factor for factor in factors if factor == 1 or min(spatial_shape) // factor >= SMALLEST_LEVEL]
    return {
        **(_AFFINE if method == "affine" else {**_BSPLINE, "FinalGridSpacingInPhysicalUnits": [str(grid_spacing)]}),
        "NumberOfResolutions": [str(len(factors))],
        "ImagePyramidSchedule": [str(factor) for factor in factors for _ in spatial_shape],
        "FixedImagePyramid": ["FixedRecursiveImagePyramid"],
        "MovingImagePyramid": ["MovingRecursiveImagePyramid"],
        "Registration": ["MultiResolutionRegistration"],
        "Metric": [METRICS[metric]],
        "NumberOfHistogramBins": ["32"],
        "ErodeMask": ["false"],
        "Optimizer": ["AdaptiveStochasticGradientDescent"],
        "AutomaticParameterEstimation": ["true"],
        "MaximumNumberOfIterations": [str(iterations)],
        "ImageSampler": ["RandomCoordinate"],
        "NumberOfSpatialSamples": [str(SAMPLES)],
        "NewSamplesEveryIteration": ["true"],
        "RandomSeed": [str(seed)],
        "Interpolator": ["LinearInterpolator"],
        "ResampleInterpolator": ["FinalBSplineInterpolator"],
        "FinalBSplineInterpolationOrder": ["3"],
        "Resampler": ["DefaultResampler"],
        "WriteResultImage": ["false"],
    }


def load_elastix() -> Any:
    """Import ITK with elastix, which takes ten seconds the first time; whoever measures time does it beforehand.

    Returns:
        The module ``itk``.

    Raises:
        InputError: When itk-elastix is not installed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of ITK's generated types; raised as errors they crash the interpreter
        try:
            itk = importlib.import_module("itk")
            for name in ("ParameterObject", "ElastixRegistrationMethod", "TransformixFilter"):
                getattr(itk, name)  # loads on first use
        except (ImportError, AttributeError) as error:
            raise InputError(
                'elastix needs the package itk-elastix; install it with: pip install "monai-regplugins[benchmark]"'
            ) from error
    return itk


_AFFINE = {
    "Transform": ["AffineTransform"],
    "AutomaticScalesEstimation": ["true"],
    "AutomaticTransformInitialization": ["true"],
}
_BSPLINE = {"Transform": ["BSplineTransform"], "BSplineTransformSplineOrder": ["3"]}


@contextmanager
def _threads(itk: Any, count: int) -> Iterator[None]:
    """Let ITK use so many threads; elastix's own argument crashes in some builds."""
    threader = itk.MultiThreaderBase
    before = threader.GetGlobalDefaultNumberOfThreads()
    threader.SetGlobalDefaultNumberOfThreads(count)
    try:
        yield
    finally:
        threader.SetGlobalDefaultNumberOfThreads(before)


def _to_itk(itk: Any, values: torch.Tensor, spacing: Sequence[float]) -> Any:
    """Hand an array to ITK, which counts the last array axis first: reversed, so that ITK's axis k is ours."""
    image = itk.image_from_array(np.ascontiguousarray(values.detach().cpu().numpy().T))
    image.SetSpacing(list(spacing))
    return image


def _check_images(fixed: torch.Tensor, moving: torch.Tensor, mask: torch.Tensor | None) -> list[int]:
    """Check the tensors of :func:`register_elastix` and return the size of their grid."""
    others = {"moving": moving} if mask is None else {"moving": moving, "mask": mask}
    for name, image in {"fixed": fixed, **others}.items():
        if image.ndim not in (4, 5) or image.shape[:2] != (1, 1):
            raise InputError(
                f"{name} has shape {tuple(image.shape)}, expected (1, 1, *spatial) in 2D or 3D; give one pair."
            )
        check_same_size(image, fixed, name, "fixed")
    for name, image in (("fixed image", fixed), ("moving image", moving)):
        check_image(image[0].detach(), name, fixed.ndim - 2)
    if mask is not None:
        check_mask(mask, "mask")
    return list(fixed.shape[2:])


def _check_options(spacing: Sequence[float] | torch.Tensor, size: Sequence[int], threads: int) -> list[float]:
    """Check the numbers of :func:`register_elastix` and return the voxel size along each axis."""
    widths = [float(width) for width in spacing]
    if len(widths) != len(size) or not all(0 < width < math.inf for width in widths):
        raise InputError(f"spacing is {widths}, expected {len(size)} positive numbers; give the voxel size in mm.")
    if threads < 1:
        raise InputError(f"threads is {threads}, expected at least 1; 1 gives the same field each time.")
    return widths
