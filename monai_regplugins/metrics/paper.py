"""Measures as the RAN paper reports them (Zheng et al. 2022, Table 1), where they differ from the usual ones.

The definitions are those of the functions the authors published beside their network. Distances are in voxels, without
spacing; the usual measures in mm are :func:`~monai_regplugins.metrics.surface_distances` and
:func:`~monai_regplugins.metrics.folding`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import binary_erosion, distance_transform_edt, laplace, zoom
from scipy.spatial import KDTree
from torch import Tensor

from monai_regplugins.checks import InputError, check_same_size
from monai_regplugins.fields import jacobian_determinant
from monai_regplugins.metrics.regularity import is_finite

__all__ = ["asd_paper", "detj_paper", "hd_paper", "paper_metrics"]

SHRINK = 0.5  # factor by which the masks are zoomed for the average surface distance
SHELL = 0.1  # smallest Laplacian of a surface voxel

Array = npt.NDArray[Any]


def hd_paper(a: Tensor, b: Tensor) -> float:
    r"""Hausdorff distance between all voxels of two masks, not only their surfaces.

    .. math::
        \max \left( \max_{x \in A} \min_{y \in B} \|x - y\|_2, \; \max_{y \in B} \min_{x \in A} \|x - y\|_2 \right)

    Args:
        a: mask (above zero), any shape.
        b: mask of the same shape.

    Returns:
        The distance in voxels; NaN where a mask is empty.

    Raises:
        InputError: When the sizes differ.
    """
    first, second = _masks(a, b)
    if not (first.any() and second.any()):
        return math.nan
    box = tuple(slice(int(axis.min()), int(axis.max()) + 1) for axis in np.nonzero(first | second))
    first, second = first[box], second[box]
    return float(max(distance_transform_edt(~end)[start].max() for start, end in ((first, second), (second, first))))


def asd_paper(a: Tensor, b: Tensor) -> float:
    """Average surface distance between masks zoomed to half their size, in voxels of the full size.

    The masks are zoomed by cubic splines, the surface is the shell where the Laplacian of the result exceeds 0.1, and
    the mean is that of the nearest distances of both directions together, divided by 0.5.

    Args:
        a: mask (above zero), any shape.
        b: mask of the same shape.

    Returns:
        The distance in voxels. Where neither mask has a surface 0, where one has none the shortest axis of the image.

    Raises:
        InputError: When the sizes differ.
    """
    first, second = (np.argwhere(laplace(zoom(mask.astype(float), SHRINK, order=3)) > SHELL) for mask in _masks(a, b))
    if not (len(first) and len(second)):
        return float(min(a.shape)) if len(first) or len(second) else 0.0
    there, back = KDTree(second).query(first)[0], KDTree(first).query(second)[0]
    return float(np.concatenate([there, back]).mean() / SHRINK)


def detj_paper(ddf: Tensor, label: Tensor) -> float:
    """Count the folded voxels (det J < 0, central differences) inside the labels, their boundary left out.

    The labels, taken as one region, lose the voxels that touch the outside along an axis; then the region is brought to
    the grid of the field, which may be coarser by a whole factor. The paper prints thousands.

    Args:
        ddf: displacement field in voxels, shape (d, *spatial).
        label: label map, shape (*size) or (1, *size) with size a whole multiple of spatial, one factor for all axes.

    Returns:
        The number of voxels of the field's grid; NaN for a field that is not finite.

    Raises:
        InputError: When the size of the label map is no such multiple.
    """
    d = len(ddf)
    region = label.detach().cpu().reshape(label.shape[-d:]).numpy() > 0
    factor = region.shape[0] // ddf.shape[1]
    if region.shape != tuple(factor * n for n in ddf.shape[1:]):
        raise InputError(
            f"label map has size {region.shape} but the field {tuple(ddf.shape[1:])}, expected a whole multiple; "
            "resample the labels onto the grid of the field."
        )
    inner = torch.from_numpy(binary_erosion(region)[(slice(None, None, factor),) * d])
    if not is_finite(ddf):
        return math.nan
    determinant = jacobian_determinant(ddf[None].detach().cpu().to(torch.float64))[0]
    return int((determinant < 0)[inner].sum())


def paper_metrics(warped_label: Tensor, fixed_label: Tensor, ddf: Tensor, labels: Iterable[int]) -> dict[str, float]:
    """Measure one registered pair as the paper's Table 1 does.

    Args:
        warped_label: label map of the moving image, warped, shape (1, *spatial).
        fixed_label: label map of the fixed image, the same shape.
        ddf: displacement field in voxels, shape (d, *spatial).
        labels: the labels to compare.

    Returns:
        ``hd_paper`` and ``asd_paper``, means over the labels in voxels, and ``detj_paper``, a count of voxels inside
        the labels of the fixed image. Labels without a Hausdorff distance, which an image lacks, do not count there.

    Raises:
        InputError: When the sizes differ.
    """
    masks = [(warped_label == label, fixed_label == label) for label in labels]
    hd = [value for a, b in masks if not math.isnan(value := hd_paper(a[0], b[0]))]
    asd = [asd_paper(a[0], b[0]) for a, b in masks]
    region = torch.stack([b for _, b in masks]).any(dim=0) if masks else torch.zeros_like(fixed_label)
    return {
        "hd_paper": float(np.mean(hd)) if hd else math.nan,
        "asd_paper": float(np.mean(asd)) if asd else math.nan,
        "detj_paper": float(detj_paper(ddf, region)),
    }


def _masks(a: Tensor, b: Tensor) -> tuple[Array, Array]:
    """Return two masks of one size as boolean arrays."""
    check_same_size(a, b, "first mask", "second mask")
    first, second = (mask.detach().cpu().numpy() > 0 for mask in (a, b))
    return first, second
