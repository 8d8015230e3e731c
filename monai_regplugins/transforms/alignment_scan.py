"""Images as the initial alignment compares them: small, without extremes, and with a weight for what was measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from monai_regplugins.checks import check_mask, check_same_size
from monai_regplugins.grids import above_zero, map_points, rescaled_affine, voxel_spacing
from monai_regplugins.transforms.measured import is_measured
from monai_regplugins.transforms.padding import scanned_box

__all__ = ["Scan", "center_of_mass", "coarser", "scan_of", "shrunk", "without_frame"]

VOXELS = 64**3  # of the images that are registered; an affine map has few parameters, so that more only take longer
ROBUST_RANGE = (0.5, 99.5)  # percent; metal would take most of a histogram
HALF = 0.5  # of a voxel, that it counts
PERCENTILE_VOXELS = 100_000  # more do not change the percentiles, and sorting them takes long


class Scan(NamedTuple):
    """An image, where it lies, and what of it counts.

    Attributes:
        image: intensities, ``(1, *spatial)``, float32.
        affine: voxel-to-world matrix, (d + 1, d + 1), float64.
        weight: share of each voxel that was measured and lies in the mask, 0 to 1, ``(1, *spatial)``, float32.
    """

    image: torch.Tensor
    affine: torch.Tensor
    weight: torch.Tensor

    @property
    def counts(self) -> torch.Tensor:
        """The voxels that are compared, boolean, ``(1, *spatial)``."""
        return self.weight > HALF


def scan_of(image: torch.Tensor, affine: torch.Tensor, mask: torch.Tensor | None = None, name: str = "image") -> Scan:
    """Return an image as it is compared: shrunk to at most 64^3 voxels, clipped to its percentiles 0.5 and 99.5.

    Args:
        image: intensities, shape ``(1, *spatial)``.
        affine: voxel-to-world matrix, shape (d + 1, d + 1).
        mask: voxels that count (above zero), shape ``(1, *spatial)``; all that were measured by default.
        name: of the image in error messages.

    Raises:
        InputError: When the mask is empty or not on the grid of the image.
    """
    counts = is_measured(image)
    if mask is not None:
        check_same_size(mask, image, f"{name} mask", f"{name} image")
        counts = counts & above_zero(mask)
        check_mask(counts, f"{name} mask")
    full = Scan(image.float(), affine.double(), counts.float())
    return _clipped(shrunk(full, VOXELS))


def without_frame(scan: Scan) -> Scan:
    """Return an image of which a constant frame around it does not count."""
    weight = torch.zeros_like(scan.weight)
    box = scanned_box(scan.image)
    weight[box] = scan.weight[box]
    return scan._replace(weight=weight)


def shrunk(scan: Scan, voxels: int) -> Scan:
    """Average blocks of voxels, more along finer axes, until at most ``voxels`` are left."""
    shape, d = scan.image.shape[1:], scan.image.ndim - 1
    spacing, factors = voxel_spacing(scan.affine, d).tolist(), [1] * d
    while math.prod(n // factor for n, factor in zip(shape, factors, strict=True)) > voxels:
        edges = [
            math.inf if n // 2 < factor else s * factor for n, s, factor in zip(shape, spacing, factors, strict=True)
        ]
        factors[int(np.argmin(edges))] += 1
    return _averaged(scan, factors)


def coarser(scan: Scan, edge: float, smallest: int = 1) -> Scan:
    """Average blocks of voxels up to a length of ``edge`` mm along each axis, of which ``smallest`` blocks are left."""
    spacing = voxel_spacing(scan.affine, scan.image.ndim - 1).tolist()
    pairs = zip(spacing, scan.image.shape[1:], strict=True)
    return _averaged(scan, [max(1, min(n // smallest, int(edge / width + 1e-6))) for width, n in pairs])


def _averaged(scan: Scan, factors: Sequence[int]) -> Scan:
    """Weighted means over blocks of voxels, without what is left over at the ends of the axes."""
    if all(factor == 1 for factor in factors):
        return scan
    pool = F.avg_pool2d if len(factors) == 2 else F.avg_pool3d
    blocks = tuple(factors)
    weight = pool(scan.weight[None], blocks)[0]
    sums = pool((scan.image * scan.weight)[None], blocks)[0]
    beyond = pool(scan.image[None], blocks)[0] if bool((weight == 0).any()) else sums
    image = torch.where(weight > 0, sums / weight.clamp(min=torch.finfo(torch.float32).tiny), beyond)
    covered = [n * factor for n, factor in zip(image.shape[1:], factors, strict=True)]
    return Scan(image, rescaled_affine(scan.affine, covered, image.shape[1:]), weight)


def _clipped(scan: Scan) -> Scan:
    """Clip intensities to the percentiles of those that count; what does not count gets their mean."""
    counts = scan.counts if bool(scan.counts.any()) else scan.weight > 0
    values = scan.image[counts]
    every = max(1, len(values) // PERCENTILE_VOXELS)
    low, high = np.percentile(values[::every].numpy(), ROBUST_RANGE).tolist()
    image = scan.image.clamp(low, high)
    return scan._replace(image=torch.where(scan.weight > 0, image, values.clamp(low, high).mean()))


def center_of_mass(image: torch.Tensor, affine: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """World position of the center of mass, weights ``max(image - mean, 0)``.

    Subtracting the mean keeps air (any offset) from pulling the center to that of the scan. Voxels that were not
    measured, see :func:`~monai_regplugins.transforms.measured.is_measured`, do not count.

    Args:
        image: intensities, shape ``(1, *spatial)``, not constant.
        affine: voxel-to-world matrix, shape (d + 1, d + 1).
        mask: voxels that count (above zero), shape ``(1, *spatial)``; all by default, and if none is brighter than the
            others.

    Returns:
        Position of shape (d,), float64, mm.
    """
    values = image[0]
    counts = is_measured(values) if mask is None else is_measured(values) & above_zero(mask[0])
    mean = values[counts].mean(dtype=torch.float64)
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
