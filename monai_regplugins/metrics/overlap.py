"""Agreement of two images on one grid: Dice overlap, surface distances and global correlation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from monai.metrics.utils import get_mask_edges, get_surface_distance
from torch import Tensor

from monai_regplugins.checks import check_same_size

__all__ = ["SurfaceDistances", "dice", "ncc", "surface_distances"]

NAN = float("nan")


class SurfaceDistances(NamedTuple):
    """Distances between two surfaces in mm: 95 % Hausdorff, average symmetric and (100 %) Hausdorff distance."""

    hd95: float
    asd: float
    hd: float


def dice(a: Tensor, b: Tensor, labels: Iterable[int]) -> dict[int, float]:
    """Dice coefficient 2 |A and B| / (|A| + |B|) of each label.

    Args:
        a: label map of non-negative integers, any shape.
        b: label map of the same shape.
        labels: the labels to compare.

    Returns:
        One value in [0, 1] per label; NaN where neither image has the label.

    Raises:
        InputError: When the sizes differ.
    """
    check_same_size(a, b, "first label map", "second label map")
    wanted = list(labels)
    first, second = a.flatten().long(), b.flatten().long()
    length = max([*wanted, int(first.max()), int(second.max())]) + 1
    shared = torch.bincount(first[first == second], minlength=length)
    total = torch.bincount(first, minlength=length) + torch.bincount(second, minlength=length)
    return {label: 2 * int(shared[label]) / int(total[label]) if total[label] else NAN for label in wanted}


def surface_distances(
    a: Tensor, b: Tensor, labels: Iterable[int], spacing: Sequence[float] | Tensor
) -> dict[int, SurfaceDistances]:
    """Distances between the surfaces of each label, from every surface voxel of one image to the nearest of the other.

    The 95 % Hausdorff distance is the larger of the two directed 95th percentiles, the Hausdorff distance the largest
    of all, the average distance is the mean over both directions together, as in
    :func:`monai.metrics.compute_hausdorff_distance` with ``percentile=95`` and without, and
    :func:`monai.metrics.compute_average_surface_distance` with ``symmetric=True``; all come from one search here.

    Args:
        a: label map, shape (*spatial) or (1, *spatial).
        b: label map of the same shape.
        labels: the labels to compare.
        spacing: voxel size along each axis in mm, shape (d,).

    Returns:
        Three values in mm per label; NaN where either image lacks the label, since no distance exists there.

    Raises:
        InputError: When the sizes differ.
    """
    check_same_size(a, b, "first label map", "second label map")
    steps = [float(step) for step in spacing]
    first, second = (label_map.cpu().reshape(label_map.shape[-len(steps) :]) for label_map in (a, b))
    return {label: _surface_distance(first == label, second == label, steps) for label in labels}


def _surface_distance(a: Tensor, b: Tensor, spacing: list[float]) -> SurfaceDistances:
    """Return the distances between two masks, (*spatial), with everything outside their common bounding box cut off."""
    if not (a.any() and b.any()):
        return SurfaceDistances(NAN, NAN, NAN)
    corners = (a | b).nonzero()
    box = tuple(slice(int(low), int(high) + 1) for low, high in zip(corners.amin(0), corners.amax(0), strict=True))
    edges_a, edges_b = get_mask_edges(a[box], b[box])
    there, back = (
        torch.as_tensor(get_surface_distance(start, end, spacing=spacing))
        for start, end in ((edges_a, edges_b), (edges_b, edges_a))
    )
    hd95 = max(float(torch.quantile(distances, 0.95)) for distances in (there, back))
    both = torch.cat([there, back])
    return SurfaceDistances(hd95, asd=float(both.mean()), hd=float(both.max()))


def ncc(a: Tensor, b: Tensor, mask: Tensor | None = None) -> float:
    """Global normalized cross-correlation: Pearson's coefficient of the intensities, computed in float64.

    Args:
        a: image, any shape.
        b: image of the same shape.
        mask: voxels to use (above zero), the same shape; all by default.

    Returns:
        A value in [-1, 1]; NaN where one image is constant or not finite.

    Raises:
        InputError: When the sizes differ.
    """
    check_same_size(a, b, "first image", "second image")
    inside = slice(None) if mask is None else mask.flatten() > 0
    first, second = (image.flatten()[inside].double() for image in (a, b))
    first, second = first - first.mean(), second - second.mean()
    scale = first.norm() * second.norm()
    return float((first @ second / scale).clamp(-1, 1)) if scale > 0 else NAN
