"""Edge padding: replace a constant frame around an image by its nearest voxels."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import torch
from torch.nn import functional

from monai_regplugins.grids import as_meta_tensor
from monai_regplugins.keys import IMAGE_KEYS
from monai_regplugins.transforms.measured import leave_out

__all__ = ["extend_border", "extend_borders", "scanned_box"]


def extend_borders(pair: dict[Hashable, Any], mask: bool = True) -> None:
    """Replace the constant frame around each image of a pair by its nearest scanned voxels.

    Crops that were padded to one size end in an edge stronger than any anatomy, and a network learns to match frames.
    Each image is extended on its own grid: once one is rotated, its frame is no box any more.

    Args:
        pair: images of shape ``(1, *spatial)`` and their masks, if any; changed.
        mask: whether the frames leave the masks, which are made if there are none.

    Example:
        >>> from monai.data import MetaTensor
        >>> image = MetaTensor(torch.tensor([[[0.0, 3.0, 5.0, 0.0]] * 4]))
        >>> pair = {"moving": image, "fixed": image}
        >>> extend_borders(pair)
        >>> pair["fixed"][0, 0].as_tensor(), pair["fixed_mask"][0, 0].as_tensor()
        (tensor([3., 3., 5., 5.]), tensor([0, 1, 1, 0], dtype=torch.uint8))
    """
    for key in IMAGE_KEYS:
        image = pair[key]
        box = scanned_box(image.as_tensor())
        counts = torch.zeros(image.shape, dtype=torch.bool)
        counts[box] = True
        if bool(counts.all()):
            continue
        pair[key] = as_meta_tensor(_extended(image.as_tensor(), box), image.affine, image.meta)
        if mask:
            leave_out(pair, key, counts)


def extend_border(image: torch.Tensor) -> torch.Tensor:
    """Repeat the faces of the box that holds every voxel above the minimum of ``image`` ``(1, *spatial)`` outwards.

    Example:
        >>> extend_border(torch.tensor([[[0.0, 3.0, 5.0, 0.0]] * 2]))[0, 0]
        tensor([3., 3., 5., 5.])
    """
    return _extended(image, scanned_box(image))


def scanned_box(image: torch.Tensor) -> tuple[slice, ...]:
    """Return the box that holds every voxel of ``image`` ``(1, *spatial)`` above the minimum; all if there is none.

    Example:
        >>> scanned_box(torch.tensor([[0.0, 3.0, 5.0, 0.0]]))[1]
        slice(1, 3, None)
    """
    scanned = (image[0] > image.min()).nonzero()
    if len(scanned) == 0:
        return (slice(None),) * image.ndim
    low, high = scanned.amin(0).tolist(), scanned.amax(0).tolist()
    return (slice(None), *(slice(a, b + 1) for a, b in zip(low, high, strict=True)))


def _extended(image: torch.Tensor, box: tuple[slice, ...]) -> torch.Tensor:
    """Repeat the faces of a box outwards."""
    ends = [part.indices(size)[:2] for part, size in zip(box, image.shape, strict=True)][1:]
    around = [(start, size - stop) for (start, stop), size in zip(ends, image.shape[1:], strict=True)]
    padding = [n for both in reversed(around) for n in both]
    return functional.pad(image[box][None].float(), padding, mode="replicate")[0].to(image.dtype)
