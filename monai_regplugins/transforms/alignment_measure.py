"""How well two images match under a linear map: one number for starts, results and the verdict."""

from __future__ import annotations

import math

import torch

from monai_regplugins.grids import sample_affine
from monai_regplugins.transforms.alignment_descent import CORRELATION, MUTUAL_INFORMATION
from monai_regplugins.transforms.alignment_scan import HALF, Scan

__all__ = ["OUTSIDE", "agreement", "metric_for", "overlap"]

OUTSIDE = -2.0  # what stands for a metric of images that hardly overlap
SMALLEST_OVERLAP = 0.3  # of the smaller image, below which nothing is compared
BINS = (8, 32)  # of a joint histogram, at least and at most
VOXELS_PER_BIN = 5  # fewer make noise of its information
SMALLEST_CORRELATION = 0.5  # below it there is no linear relation to go by
NONLINEAR = 0.06  # of the variance, that another function of the intensities explains beyond a linear one


def agreement(fixed: Scan, moving: Scan, matrix: torch.Tensor, metric: str) -> float:
    """Return how well the images match, over the voxels that both measured.

    Args:
        fixed: the fixed image.
        moving: the moving image.
        matrix: fixed world to moving world, (d + 1, d + 1).
        metric: ``"correlation"``, -1 to 1, or ``"mutual information"``, 0 or more, in nats.

    Returns:
        The metric, or -2 where the images have less than 30 % of the smaller one in common.
    """
    first, second = _common(fixed, moving, matrix)
    if len(first) < 2 or overlap(fixed, moving, len(first)) < SMALLEST_OVERLAP:
        return OUTSIDE
    return _correlation(first, second) if metric == CORRELATION else _mutual_information(first, second)


def overlap(fixed: Scan, moving: Scan, common: int) -> float:
    """Share of the smaller image that ``common`` fixed voxels are; images are as large as what counts of them."""
    volume = [float(scan.counts.sum() * torch.linalg.det(scan.affine[:-1, :-1]).abs()) for scan in (fixed, moving)]
    smaller = min(volume) / float(torch.linalg.det(fixed.affine[:-1, :-1]).abs())
    return common / max(1.0, smaller)


def metric_for(fixed: Scan, moving: Scan, matrix: torch.Tensor) -> str:
    """Choose the metric by contrast: correlation, unless it is low or another function explains clearly more.

    What a linear function explains of the fixed intensities is the squared correlation, what any function explains the
    correlation ratio (Roche et al., "The Correlation Ratio as a New Similarity Measure for Multimodal Image
    Registration", MICCAI 1998).

    Args:
        fixed: the fixed image.
        moving: the moving image.
        matrix: a map under which they nearly match.
    """
    first, second = _common(fixed, moving, matrix)
    if len(first) < 2:
        return MUTUAL_INFORMATION
    linear = _correlation(first, second)
    any_function = max(_correlation_ratio(first, second), _correlation_ratio(second, first))
    return CORRELATION if linear > SMALLEST_CORRELATION and any_function - linear**2 < NONLINEAR else MUTUAL_INFORMATION


def _common(fixed: Scan, moving: Scan, matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Intensities of the fixed voxels that both images measured, (N,) each, float64."""
    to_voxels = torch.linalg.inv(moving.affine) @ matrix @ fixed.affine
    both = torch.cat([moving.image, moving.weight])
    values, weight = sample_affine(both, to_voxels, fixed.image.shape[1:], "linear", 0.0)
    counts = fixed.counts[0] & (weight > HALF)
    return fixed.image[0][counts].double(), values[counts].double()


def _correlation(first: torch.Tensor, second: torch.Tensor) -> float:
    """Normalized correlation; 0 of a constant."""
    a, b = first - first.mean(), second - second.mean()
    norm = float(a.norm() * b.norm())
    return float(a @ b) / norm if norm > 0 else 0.0


def _correlation_ratio(of: torch.Tensor, given: torch.Tensor) -> float:
    """Share of the variance of one image that a function of the other's intensities explains; 0 of a constant."""
    place, number = _bins(given)
    count = torch.zeros(number, dtype=torch.float64)
    count.index_add_(0, place, torch.ones_like(of))
    centered = of - of.mean()
    sums = torch.zeros_like(count).index_add_(0, place, centered)
    total = float(centered.square().sum())
    return float((sums.square() / count.clamp(min=1)).sum()) / total if total > 0 else 0.0


def _mutual_information(first: torch.Tensor, second: torch.Tensor) -> float:
    """Mutual information of a joint histogram, nats."""
    (one, n), (other, _) = _bins(first), _bins(second)
    joint = torch.bincount(one * n + other, minlength=n * n).double().view(n, n)
    joint /= joint.sum()
    alone = joint.sum(dim=1, keepdim=True) * joint.sum(dim=0, keepdim=True)
    filled = joint > 0
    return float((joint[filled] * (joint[filled] / alone[filled]).log()).sum())


def _bins(values: torch.Tensor) -> tuple[torch.Tensor, int]:
    """The bin of each value, all of one width between the extremes, and how many there are: 32, fewer of few voxels."""
    number = min(BINS[1], max(BINS[0], int(math.sqrt(len(values) / VOXELS_PER_BIN))))
    low, high = values.aminmax()
    width = (high - low).clamp(min=torch.finfo(values.dtype).tiny)
    return ((values - low) / width * number).long().clamp(max=number - 1), number
