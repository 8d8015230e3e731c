"""Registration methods that install from pip, each as one function from a pair of images to a displacement field.

They are what the bundles are compared with. All of them get the same two images on one grid, with the grid's axes as
axes of the world and its first voxel at the origin, and run on the CPU. ``greedy-affine`` begins with an affine
registration of its own, for pairs that are prepared without one; the others take none. Their settings are the
developers' defaults or those of their papers; ``about`` in :data:`BASELINES` gives them in words.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, Protocol

import numpy as np
import SimpleITK as sitk
import torch
from torch import Tensor

from monai_regplugins.benchmark.bspline import register_bspline
from monai_regplugins.benchmark.elastix import GRID_SPACING, load_elastix, register_elastix
from monai_regplugins.checks import InputError, check_choice

__all__ = ["BASELINES", "Baseline", "Register", "load_baseline"]

SMALLEST_LEVEL = 8  # voxels along the shortest axis of a shrunk image
CC_RADIUS = 4  # DIPY's default


class Register(Protocol):
    """A registration method: from one pair on a common grid to the field that takes it along."""

    def __call__(
        self, fixed: Tensor, moving: Tensor, spacing: Tensor, mask: Tensor | None, seed: int, threads: int
    ) -> Tensor:
        """Register one pair.

        Args:
            fixed: image to match, ``(1, *spatial)``, float32, 2D or 3D.
            moving: image to deform, the same shape.
            spacing: voxel size along each axis in mm, ``(d,)``.
            mask: voxels of the fixed image that are compared (above zero), ``(1, *spatial)``, for methods that can.
            seed: of random numbers, for methods that draw any.
            threads: CPU threads.

        Returns:
            The displacement field ``(d, *spatial)``, voxels: ``warped(x) = moving(x + ddf(x))``.
        """


class Job(NamedTuple):
    """What a method gets: the arguments of :class:`Register`, and a factor on its regularization, if it has one."""

    fixed: Tensor
    moving: Tensor
    spacing: Tensor
    mask: Tensor | None
    seed: int
    threads: int
    stiffness: float = 1.0


class Baseline(NamedTuple):
    """A method and what it needs.

    Attributes:
        method: from a :class:`Job` to the field.
        about: method and settings in words.
        package: its distribution on PyPI.
        load: imports what takes time; raises :class:`~monai_regplugins.checks.InputError` where it is not installed.
    """

    method: Callable[[Job], Tensor]
    about: str
    package: str
    load: Callable[[], object]


def load_baseline(name: str, stiffness: float = 1.0) -> Register:
    """Return a method of :data:`BASELINES` with its package imported, so that timings exclude the import.

    Args:
        name: of the method.
        stiffness: factor on its regularization: the widths of the Gaussians that smooth the field (greedy, demons,
            DIPY), the distance of the nodes (elastix, SimpleITK) or the weight of the differences (ConvexAdam, total
            variation). ANTs smooths its total field by half a voxel for each unit above 1, below which it is as with 1.

    Raises:
        InputError: When there is no such method, or its package is not installed.
    """
    check_choice(name, BASELINES, "method")
    BASELINES[name].load()
    method = BASELINES[name].method

    def register(
        fixed: Tensor, moving: Tensor, spacing: Tensor, mask: Tensor | None, seed: int, threads: int
    ) -> Tensor:
        return method(Job(fixed, moving, spacing, mask, seed, threads, stiffness))

    return register


def _identity(job: Job) -> Tensor:
    """No displacement."""
    return torch.zeros(len(job.spacing), *job.fixed.shape[1:])


def _demons(job: Job) -> Tensor:
    """Fast symmetric forces demons (Vercauteren et al. 2009), coarse to fine; it takes no mask and is deterministic."""
    images = [_to_sitk(image, job.spacing) for image in (job.fixed, job.moving)]
    start: list[sitk.Image] = []
    for factor, iterations in ((4, 100), (2, 100), (1, 50)):
        shrink = [max(1, min(factor, n // SMALLEST_LEVEL)) for n in images[0].GetSize()]
        coarse = [sitk.BinShrink(image, shrink) for image in images]
        start = [_resampled(field, coarse[0]) for field in start]
        demons = sitk.FastSymmetricForcesDemonsRegistrationFilter()
        demons.SetNumberOfThreads(job.threads)
        demons.SetNumberOfIterations(iterations)
        demons.SetSmoothDisplacementField(True)
        demons.SetStandardDeviations(1.5 * job.stiffness)
        start = [demons.Execute(*coarse, *start)]
    return _to_voxels(start[0], job.spacing)


def _simpleitk_bspline(job: Job) -> Tensor:
    """SimpleITK's B-splines, mean squared difference, L-BFGS; both images scaled alike, else L-BFGS may never end."""
    low, high = min(job.fixed.min(), job.moving.min()), max(job.fixed.max(), job.moving.max())
    images = [_to_sitk((image - low) / (high - low), job.spacing) for image in (job.fixed, job.moving)]
    levels = (4, 2, 1)
    mesh = [max(1, round(n / (10 * job.stiffness) / levels[0])) for n in images[0].GetSize()]
    spline = sitk.BSplineTransformInitializer(images[0], mesh, order=3)
    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(job.threads)
    method.SetMetricAsMeanSquares()
    if job.mask is not None:
        method.SetMetricFixedMask(_to_sitk(job.mask > 0, job.spacing))
    method.SetOptimizerAsLBFGS2(solutionAccuracy=1e-8, numberOfIterations=50, deltaConvergenceTolerance=1e-4)
    method.SetInitialTransformAsBSpline(spline, inPlace=True, scaleFactors=[levels[0] // level for level in levels])
    method.SetShrinkFactorsPerLevel(levels)
    method.SetSmoothingSigmasPerLevel([2.0, 1.0, 0.0])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOff()
    method.SetInterpolator(sitk.sitkLinear)
    grid = [getattr(images[0], f"Get{name}")() for name in ("Size", "Origin", "Spacing", "Direction")]
    field = sitk.TransformToDisplacementField(method.Execute(*images), sitk.sitkVectorFloat64, *grid)
    return _to_voxels(field, job.spacing)


def _elastix(job: Job, metric: str = "ncc") -> Tensor:
    """The baseline of RegNet."""
    within = None if job.mask is None else job.mask[None]
    nodes = job.stiffness * GRID_SPACING
    found = register_elastix(
        job.fixed[None],
        job.moving[None],
        job.spacing,
        metric=metric,
        mask=within,
        seed=job.seed,
        threads=job.threads,
        grid_spacing=nodes,
    )
    return found.ddf[0]


def _bspline_tv(job: Job) -> Tensor:
    """The baseline of R2N2; it takes no mask and is deterministic."""
    return register_bspline(job.moving[None], job.fixed[None], smoothness_weight=0.01 * job.stiffness).ddf[0]


def _greedy(job: Job, metric: str = "", affine: bool = False) -> Tensor:
    """Greedy diffeomorphic registration (Yushkevich et al. 2016), the command line given in memory."""
    d = len(job.spacing)
    images = {"fixed": _to_sitk(job.fixed, job.spacing), "moving": _to_sitk(job.moving, job.spacing)}
    if job.mask is not None:
        images["mask"] = _to_sitk(job.mask > 0, job.spacing)
    tool = getattr(importlib.import_module("picsl_greedy"), f"Greedy{d}D")()
    metric = metric or f"NCC {'x'.join('2' * d)}"
    common = f"-V 0 -threads {job.threads}"
    mask = "" if job.mask is None else "-gm mask"
    pair = f"{common} -seed {job.seed + 1} -i fixed moving {mask} -m {metric} -n 100x50x10"
    if affine:
        tool.execute(f"{pair} -a -dof 12 -ia-image-centers -o affine", **images, affine=None)
    tool.execute(
        f"{pair} {'-it affine' if affine else ''} -s {1.7 * job.stiffness:g}vox {0.7 * job.stiffness:g}vox "
        "-wp 0 -o field",  # -wp 0: not rounded to 0.1 voxel
        **images,
        field=None,
    )
    if affine:
        tool.execute(f"{common} -rf fixed -rc total -wp 0 -r field affine", total=None)
    return _to_voxels(tool["total" if affine else "field"], job.spacing)


def _ants(job: Job, metric: tuple[str, int] = ("CC", 2)) -> Tensor:
    """SyN of ANTs (Avants et al. 2008). It takes ``threads`` from ``ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS`` only."""
    ants: Any = importlib.import_module("ants")
    widths = [float(width) for width in job.spacing]
    images = [ants.from_numpy(image[0].numpy(), spacing=widths) for image in (job.fixed, job.moving)]
    masks = {} if job.mask is None else {"mask": ants.from_numpy((job.mask[0] > 0).float().numpy(), spacing=widths)}
    with TemporaryDirectory() as folder:
        found = ants.registration(
            *images,
            type_of_transform="SyNOnly",
            initial_transform="Identity",
            syn_metric=metric[0],
            syn_sampling=metric[1],
            reg_iterations=(40, 20, 0),
            total_sigma=0.5 * max(job.stiffness - 1, 0),  # flow_sigma hardly changes it
            random_seed=job.seed + 1,
            outprefix=str(Path(folder, "step")),
            **masks,
        )
        total = ants.apply_transforms(*images, found["fwdtransforms"], compose=str(Path(folder, "total")))
        field = ants.image_read(total).numpy()  # (*spatial, component), mm
    return _divided(np.moveaxis(field, -1, 0), job.spacing)


def _dipy(job: Job) -> Tensor:
    """SyN of DIPY; it takes no mask and is deterministic. Levels too small for the correlation window are left out."""
    d = len(job.spacing)
    imwarp, metrics = (importlib.import_module(f"dipy.align.{name}") for name in ("imwarp", "metrics"))
    levels = [n for level, n in ((2, 100), (1, 50), (0, 20)) if min(job.fixed.shape[1:]) >> level > 2 * CC_RADIUS + 1]
    if not levels:
        raise InputError(f"the image has {tuple(job.fixed.shape[1:])} voxels, DIPY needs at least 10 along each axis.")
    affine = np.diag([*job.spacing.double().tolist(), 1.0])
    method = imwarp.SymmetricDiffeomorphicRegistration(
        metrics.CCMetric(d, sigma_diff=2.0 * job.stiffness, radius=CC_RADIUS), level_iters=levels
    )
    images = (np.ascontiguousarray(image[0].numpy()) for image in (job.fixed, job.moving))
    mapping = method.optimize(*images, static_grid2world=affine, moving_grid2world=affine)
    return _divided(np.moveaxis(np.asarray(mapping.get_forward_field()), -1, 0), job.spacing)


def _convexadam(job: Job) -> Tensor:
    """ConvexAdam (Siebert et al. 2021): discrete search over MIND, coupled convex, then Adam. It takes no spacing."""
    if job.fixed.ndim != 4:
        raise InputError("ConvexAdam registers volumes, the images are slices; leave it out.")
    register: Any = importlib.import_module("convexAdam.convex_adam_MIND").convex_adam_pt
    device = torch.device("cpu")
    found = register(
        job.fixed[0], job.moving[0], lambda_weight=1.25 * job.stiffness, dtype=torch.float32, device=device
    )
    return torch.from_numpy(np.moveaxis(found, -1, 0)).float()


def _imported(module: str, package: str) -> None:
    """Import an optional package."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the packages' own imports
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise InputError(
                f'it needs the package {package}; install it with: pip install "monai-regplugins[benchmark]"'
            ) from error


def _nothing() -> None:
    """Load what is there already."""


def _to_sitk(values: Tensor, spacing: Tensor) -> sitk.Image:
    """Hand ``(1, *spatial)`` to ITK, which counts the last array axis first: reversed, so that its axis k is ours."""
    array = values[0].to(torch.uint8 if values.dtype == torch.bool else torch.float32).numpy()
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    image.SetSpacing([float(width) for width in spacing])
    return image


def _to_voxels(field: sitk.Image, spacing: Tensor) -> Tensor:
    """Return a field of ITK, mm, as ``(d, *spatial)`` in voxels."""
    return _divided(sitk.GetArrayFromImage(field).T, spacing)


def _divided(millimeters: np.ndarray[Any, Any], spacing: Sequence[float] | Tensor) -> Tensor:
    """Bring ``(d, *spatial)`` from mm to voxels."""
    pairs = zip(millimeters, spacing, strict=True)
    return torch.from_numpy(np.stack([component / float(width) for component, width in pairs])).float()


def _resampled(field: sitk.Image, grid: sitk.Image) -> sitk.Image:
    """Interpolate a field on another grid, continued at its edges."""
    identity = sitk.Transform()
    return sitk.Resample(field, grid, identity, sitk.sitkLinear, 0.0, sitk.sitkUnknown, True)


BASELINES: dict[str, Baseline] = {
    "identity": Baseline(_identity, "no displacement", "torch", _nothing),
    "elastix": Baseline(
        _elastix, "B-splines of 10 mm, normalized correlation, 3 x 500 iterations", "itk-elastix", load_elastix
    ),
    "greedy": Baseline(
        _greedy,
        "NCC of 2 voxels radius, 100 x 50 x 10 iterations, smoothing 1.7 and 0.7 voxels",
        "picsl_greedy",
        partial(_imported, "picsl_greedy", "picsl_greedy"),
    ),
    "greedy-affine": Baseline(
        partial(_greedy, affine=True),
        "an affine registration of its own from the centers, then as greedy",
        "picsl_greedy",
        partial(_imported, "picsl_greedy", "picsl_greedy"),
    ),
    "ants": Baseline(
        _ants,
        "SyN, CC of 2 voxels radius, 40 x 20 x 0 iterations",
        "antspyx",
        partial(_imported, "ants", "antspyx"),
    ),
    "elastix-mi": Baseline(
        partial(_elastix, metric="mi"),
        "B-splines of 10 mm, Mattes mutual information, 3 x 500 iterations",
        "itk-elastix",
        load_elastix,
    ),
    "greedy-nmi": Baseline(
        partial(_greedy, metric="NMI"),
        "NMI, 100 x 50 x 10 iterations, smoothing 1.7 and 0.7 voxels",
        "picsl_greedy",
        partial(_imported, "picsl_greedy", "picsl_greedy"),
    ),
    "ants-mi": Baseline(
        partial(_ants, metric=("mattes", 32)),
        "SyN, Mattes mutual information of 32 bins, 40 x 20 x 0 iterations",
        "antspyx",
        partial(_imported, "ants", "antspyx"),
    ),
    "demons": Baseline(
        _demons,
        "fast symmetric forces, 100 x 100 x 50 iterations, smoothing 1.5 voxels, no mask",
        "SimpleITK",
        _nothing,
    ),
    "dipy": Baseline(
        _dipy,
        "SyN, CC of 4 voxels radius, 100 x 50 x 20 iterations, no mask",
        "dipy",
        partial(_imported, "dipy.align.imwarp", "dipy"),
    ),
    "convexadam": Baseline(
        _convexadam,
        "MIND-SSC, discrete search of 4 x 6 voxels, 80 iterations of Adam, no mask",
        "convexAdam",
        partial(_imported, "convexAdam.convex_adam_MIND", "convexAdam"),
    ),
    "simpleitk-bspline": Baseline(
        _simpleitk_bspline,
        "mesh of 10 voxels, mean squares, L-BFGS, at most 3 x 50 iterations",
        "SimpleITK",
        _nothing,
    ),
    "bspline-tv": Baseline(
        _bspline_tv,
        "nodes 8 voxels apart, mean squares, total variation, 3 x 250 iterations of Adam, no mask",
        "torch",
        _nothing,
    ),
}
