"""Descent to a linear map that matches two images, from a start that is near, by SimpleITK."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from monai_regplugins.checks import InputError
from monai_regplugins.grids import voxel_spacing
from monai_regplugins.transforms.alignment_scan import Scan

if TYPE_CHECKING:
    import SimpleITK as sitk

__all__ = ["CORRELATION", "MUTUAL_INFORMATION", "Descent", "nearest_of_kind"]

CORRELATION, MUTUAL_INFORMATION = "correlation", "mutual information"
HISTOGRAM_BINS = 50  # fewer blur the optimum of smooth images
SAMPLES = 10_000  # per level; beyond this the metric only gets slower


def nearest_of_kind(linear: np.ndarray[Any, Any], kind: str) -> np.ndarray[Any, Any]:
    """Return the nearest rotation of a linear map, times its mean scale for ``similarity``; an affine map as it is."""
    if kind == "affine":
        return linear
    left, stretches, right = np.linalg.svd(linear)
    flip = np.ones(len(linear))
    flip[-1] = np.sign(np.linalg.det(left @ right))
    rotation: np.ndarray[Any, Any] = (left * flip) @ right
    return rotation * float(np.exp(np.log(stretches).mean())) if kind == "similarity" else rotation


class Descent:
    """Gradient descent of one metric on one pair at one resolution.

    One thread and a seeded choice of samples: the same images give the same matrix.

    Args:
        fixed: the fixed image.
        moving: the moving image.
        metric: ``"correlation"``, for images of one kind, or ``"mutual information"`` (Mattes).
        steps: the first and the last step, in voxels of the fixed image.
        iterations: at most.
        seed: of the sampling, 1 or more (0 would take the clock).
    """

    def __init__(
        self,
        fixed: Scan,
        moving: Scan,
        metric: str,
        steps: tuple[float, float] = (1.0, 1e-2),
        iterations: int = 100,
        seed: int = 1,
    ) -> None:
        self.d = fixed.image.ndim - 1
        self.images = _to_sitk(fixed.image, fixed.affine), _to_sitk(moving.image, moving.affine)
        self.center = _middle(fixed)
        edge = float(voxel_spacing(fixed.affine, self.d).mean())
        self.method = _method(metric, fixed, moving, seed)
        self.method.SetOptimizerAsRegularStepGradientDescent(
            learningRate=steps[0] * edge,
            minStep=steps[1] * edge,
            numberOfIterations=iterations,
            relaxationFactor=0.7,
            gradientMagnitudeTolerance=1e-8,  # a correlation hardly changes near its optimum
        )

    def run(self, matrix: torch.Tensor, kind: str) -> torch.Tensor:
        """Descend from a matrix among the maps of one kind.

        Args:
            matrix: fixed world to moving world, (d + 1, d + 1), float64.
            kind: ``rigid``, ``similarity`` or ``affine``.

        Raises:
            InputError: When the optimizer fails, as for images that hardly overlap.
        """
        transform = self._transform(matrix.numpy(), kind)
        self.method.SetInitialTransform(transform, inPlace=True)
        try:
            self.method.Execute(*self.images)
        except RuntimeError as error:
            raise InputError("the images overlap too little or have no common structure") from error
        found = _to_matrix(transform)
        if not bool(found.isfinite().all()):
            raise InputError("the map is not finite, the images have too little in common")
        return found

    def _transform(self, matrix: np.ndarray[Any, Any], kind: str) -> Any:
        """The map of a kind that is nearest to a matrix, about the middle of the fixed image."""
        import SimpleITK as sitk  # 95 MB of memory, so only where it is used

        d = self.d
        classes: dict[str, tuple[Any, Any]] = {
            "rigid": (sitk.Euler2DTransform, sitk.VersorRigid3DTransform),
            "similarity": (sitk.Similarity2DTransform, sitk.Similarity3DTransform),
        }
        transform: Any = sitk.AffineTransform(d) if kind == "affine" else classes[kind][d - 2]()
        transform.SetCenter(self.center.tolist())
        transform.SetMatrix(nearest_of_kind(matrix[:d, :d], kind).ravel().tolist())
        transform.SetTranslation((matrix[:d, :d] @ self.center + matrix[:d, d] - self.center).tolist())
        return transform


def _method(metric: str, fixed: Scan, moving: Scan, seed: int) -> sitk.ImageRegistrationMethod:
    """A registration without an optimizer: the metric, the masks and the samples."""
    import SimpleITK as sitk  # 95 MB of memory, so only where it is used

    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfWorkUnits(1)  # several add up the metric in random order
    if metric == CORRELATION:
        method.SetMetricAsCorrelation()
    else:
        method.SetMetricAsMattesMutualInformation(HISTOGRAM_BINS)
    if not bool(fixed.counts.all()):
        method.SetMetricFixedMask(_to_sitk(fixed.counts.to(torch.uint8), fixed.affine))
    if not bool(moving.counts.all()):
        method.SetMetricMovingMask(_to_sitk(moving.counts.to(torch.uint8), moving.affine))
    method.SetInterpolator(sitk.sitkLinear)
    method.MetricUseFixedImageGradientFilterOff()  # of a whole image, which neither metric looks at
    voxels = float(fixed.counts.sum())
    if voxels > SAMPLES:
        method.SetMetricSamplingStrategy(sitk.ImageRegistrationMethod.RANDOM)
        method.SetMetricSamplingPercentage(SAMPLES / voxels, seed)
    method.SetOptimizerScalesFromPhysicalShift()
    return method


def _middle(scan: Scan) -> np.ndarray[Any, Any]:
    """World position of the middle of what counts."""
    index = scan.counts[0].nonzero().double().mean(dim=0).numpy()
    affine = scan.affine.numpy()
    middle: np.ndarray[Any, Any] = affine[:-1, :-1] @ index + affine[:-1, -1]
    return middle


def _to_sitk(values: torch.Tensor, affine: torch.Tensor) -> sitk.Image:
    """Hand ``(1, *spatial)`` to SimpleITK with its RAS header as it is: both images share the frame."""
    import SimpleITK as sitk  # 95 MB of memory, so only where it is used

    result = sitk.GetImageFromArray(values[0].numpy().T)
    axes = affine[:-1, :-1].numpy()
    spacing = np.linalg.norm(axes, axis=0)
    result.SetSpacing(spacing.tolist())
    result.SetDirection((axes / spacing).ravel().tolist())
    result.SetOrigin(affine[:-1, -1].tolist())
    return result


def _to_matrix(transform: Any) -> torch.Tensor:
    """``x -> M (x - c) + t + c`` as a homogeneous matrix."""
    d = transform.GetDimension()
    linear = np.reshape(transform.GetMatrix(), (d, d))
    center = np.asarray(transform.GetCenter())
    matrix = np.eye(d + 1)
    matrix[:d, :d] = linear
    matrix[:d, d] = np.asarray(transform.GetTranslation()) + center - linear @ center
    return torch.from_numpy(matrix)
