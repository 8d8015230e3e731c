"""Agreement of two images on one grid: Dice overlap, surface distances and global correlation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from scipy.spatial import KDTree
from torch import Tensor

from monai_regplugins.checks import InputError, check_same_size
from monai_regplugins.fields import slabs

__all__ = ["SurfaceDistances", "dice", "labels_in", "ncc", "surface_distances"]

NAN = float("nan")
CHUNK_VOXELS = 2**17  # voxels that are converted and counted at once
COUNTED_BY_NUMBER = 2**16  # labels below this are counted at their own number, others are looked up first

Array: TypeAlias = np.ndarray[Any, Any]


class SurfaceDistances(NamedTuple):
    """Distances between two surfaces in mm: 95 % Hausdorff, average symmetric and (100 %) Hausdorff distance.

    Example:
        >>> SurfaceDistances(hd95=2.0, asd=0.5, hd=3.0).asd
        0.5
    """

    hd95: float
    asd: float
    hd: float


def dice(a: Tensor, b: Tensor, labels: Iterable[int]) -> dict[int, float]:
    """Dice coefficient ``2 |A and B| / (|A| + |B|)`` of each label.

    Args:
        a: label map of whole numbers, any shape.
        b: label map of the same shape.
        labels: the labels to compare.

    Returns:
        One value in [0, 1] per label; NaN where neither image has the label.

    Raises:
        InputError: When the sizes differ, or a label map holds NaN.

    Example:
        >>> dice(torch.tensor([1, 1, 0, 2]), torch.tensor([1, 0, 0, 2]), labels=[2, 3])
        {2: 1.0, 3: nan}
    """
    check_same_size(a, b, "first label map", "second label map")
    wanted = [int(label) for label in labels]
    ends = [*_ends(a, "first label map"), *_ends(b, "second label map"), *wanted]
    if not wanted:
        return {}
    few = min(ends) >= 0 and max(ends) < COUNTED_BY_NUMBER
    names: Sequence[int] = range(int(max(ends)) + 1) if few else sorted(set(wanted))
    place = Tensor.long if few else partial(_places, torch.tensor(names, dtype=torch.int64, device=a.device))
    shared, total = torch.zeros(2, len(names) + 1, dtype=torch.int64, device=a.device)
    for first, second in _chunks(a, b, CHUNK_VOXELS):
        x, y = place(first), place(second)
        shared += torch.bincount(x[x == y], minlength=len(shared))
        total += torch.bincount(x, minlength=len(total)) + torch.bincount(y, minlength=len(total))
    found = zip(names, shared.tolist(), total.tolist(), strict=False)
    overlaps = {label: 2 * both / voxels for label, both, voxels in found if voxels}
    return {label: overlaps.get(label, NAN) for label in wanted}


def labels_in(label_map: Tensor) -> set[int]:
    """The labels of a label map, any shape, the background included."""
    values = label_map.detach().as_subclass(Tensor).reshape(-1)
    return {int(label) for part in slabs(values.shape, CHUNK_VOXELS) for label in values[part].unique()}


def surface_distances(
    a: Tensor, b: Tensor, labels: Iterable[int], spacing: Sequence[float] | Tensor
) -> dict[int, SurfaceDistances]:
    """Distances between the surfaces of each label, from every surface voxel of one image to the nearest of the other.

    The 95 % Hausdorff distance is the larger of the two directed 95th percentiles, the Hausdorff distance the largest
    of all, the average distance is the mean over both directions together, as in
    :func:`monai.metrics.compute_hausdorff_distance` with ``percentile=95`` and without, and
    :func:`monai.metrics.compute_average_surface_distance` with ``symmetric=True``; all come from one search here.

    Args:
        a: label map, shape ``(*spatial)`` or ``(1, *spatial)``.
        b: label map of the same shape.
        labels: the labels to compare.
        spacing: voxel size along each axis in mm, shape (d,).

    Returns:
        Three values in mm per label; NaN where either image lacks the label, since no distance exists there.

    Raises:
        InputError: When the sizes differ.

    Example:
        >>> a = torch.zeros(8, 8).index_fill(0, torch.tensor([2, 3]), 1)
        >>> surface_distances(a, a.roll(1, dims=0), labels=[1], spacing=[2.0, 2.0])[1].hd
        2.0
    """
    check_same_size(a, b, "first label map", "second label map")
    steps = [float(step) for step in spacing]
    first, second = (_label_array(label_map, len(steps)) for label_map in (a, b))
    return {label: _surface_distance(first == label, second == label, steps) for label in labels}


def _label_array(label_map: Tensor, d: int) -> Array:
    """Return a label map ``(*spatial)`` or ``(1, *spatial)`` as an array ``(*spatial)``."""
    array: Array = label_map.detach().as_subclass(Tensor).cpu().reshape(label_map.shape[-d:]).numpy()
    return array


def _surface_distance(a: Array, b: Array, spacing: list[float]) -> SurfaceDistances:
    """Return the distances between two masks, ``(*spatial)``.

    A tree of the surface voxels finds the nearest one; a surface has far fewer voxels than the box around it. Most of
    them lie on the other surface, too, which takes no search.
    """
    if not (a.any() and b.any()):
        return SurfaceDistances(NAN, NAN, NAN)
    box = _bounding_box(a | b)
    first, second = (mask[box] & ~_inner_voxels(mask[box]) for mask in (a, b))
    there, back = _nearest(first, second, spacing), _nearest(second, first, spacing)
    hd95 = max(float(np.quantile(distances, 0.95)) for distances in (there, back))
    both = np.concatenate([there, back])
    return SurfaceDistances(hd95, asd=float(both.mean()), hd=float(both.max()))


def _nearest(surface: Array, other: Array, spacing: list[float]) -> Array:
    """Distance in mm of each voxel of a surface ``(*spatial)`` to the nearest of another one, shape (N,)."""
    apart = np.argwhere(surface & ~other) * np.array(spacing)
    tree = KDTree(np.argwhere(other) * np.array(spacing), leafsize=50, balanced_tree=False, compact_nodes=False)
    shared: Array = np.zeros(np.count_nonzero(surface & other))
    return np.concatenate([shared, tree.query(apart)[0]])


def _bounding_box(mask: Array) -> tuple[slice, ...]:
    """The smallest box that holds all voxels of a mask, which has at least one."""
    box: tuple[slice, ...] = ()
    for axis in range(mask.ndim):  # each axis is looked at within what is left by those before
        others = tuple(k for k in range(mask.ndim) if k != axis)
        found = np.flatnonzero(np.any(mask[box], axis=others))
        box = (*box, slice(int(found[0]), int(found[-1]) + 1))
    return box


def _inner_voxels(mask: Array) -> Array:
    """The voxels of a mask ``(*spatial)`` all of whose neighbors across a face are in it."""
    inner: Array = mask.copy()
    for axis in range(mask.ndim):
        filled, kept = np.moveaxis(mask, axis, 0), np.moveaxis(inner, axis, 0)  # views, with this axis first
        kept[1:] &= filled[:-1]
        kept[:-1] &= filled[1:]
        kept[[0, -1]] = False
    return inner


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

    Example:
        >>> round(ncc(torch.arange(8.0), 3 - 2 * torch.arange(8.0)), 6)
        -1.0
    """
    check_same_size(a, b, "first image", "second image")
    count = 0
    sums, products = torch.zeros(2, 1, dtype=torch.float64), torch.zeros(2, 2, dtype=torch.float64)
    for values in _chunks(a, b, CHUNK_VOXELS, mask):
        count, sums = count + values[0].numel(), sums + _in_double(values).sum(1, keepdim=True)
    for values in _chunks(a, b, CHUNK_VOXELS, mask):
        centered = _in_double(values).sub_(sums / count)
        products += centered @ centered.T
    scale = float((products[0, 0] * products[1, 1]).sqrt())
    return max(-1.0, min(1.0, float(products[0, 1]) / scale)) if scale > 0 else NAN


def _in_double(values: tuple[Tensor, Tensor]) -> Tensor:
    """Stack the values of two images, shape (2, N), in float64 on the CPU."""
    return torch.stack([one.double().cpu() for one in values])


def _ends(label_map: Tensor, name: str) -> tuple[int, int]:
    """The least and the largest label of a label map, which must not hold NaN."""
    lowest, largest = (extreme.item() for extreme in label_map.aminmax())
    if lowest != lowest:
        raise InputError(f"{name} holds nan, expected whole numbers; change the label in the file.")
    return int(lowest), int(largest)


def _places(known: Tensor, labels: Tensor) -> Tensor:
    """Where labels stand among the known ones, which are sorted; their number for any other label."""
    values = labels.long()
    found = torch.searchsorted(known, values)
    there = known[found.clamp(max=len(known) - 1)] == values
    return torch.where(there, found, len(known))


def _chunks(a: Tensor, b: Tensor, voxels: int, mask: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the values of two images at the same voxels, those of the mask (above zero), some voxels at once."""
    first, second = (image.detach().as_subclass(Tensor).reshape(-1) for image in (a, b))
    inside = None if mask is None else mask.as_subclass(Tensor).reshape(-1)
    for part in slabs(first.shape, voxels):
        chosen = slice(None) if inside is None else inside[part] > 0
        yield first[part][chosen], second[part][chosen]
