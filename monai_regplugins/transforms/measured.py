"""What of an image was measured: not the padding around the field of view of the scanner."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import torch
from monai.data import MetaTensor

from monai_regplugins.grids import as_meta_tensor
from monai_regplugins.keys import IMAGE_KEYS, PADDING_KEY
from monai_regplugins.transforms.pair_log import pair_logger

__all__ = ["COVERED", "LOWEST", "exclude_padding", "is_measured", "leave_out"]

logger = pair_logger(__name__)

LOWEST = -1024  # Hounsfield units; no scanner measures less
MOST = 0.5
COVERED = 0.999  # of an interpolated voxel, that what counts fills it


def is_measured(image: torch.Tensor, lowest: float | None = LOWEST, padding: float | None = None) -> torch.Tensor:
    """Where an image holds measurements, boolean, of its shape.

    Values below the lowest that a scanner measures are padding if most of them are one value, as that which CT scanners
    write outside of the reconstructed circle; else they are taken for another unit.

    Args:
        image: intensities, any shape.
        lowest: the lowest value that counts; None for all.
        padding: what is padding in any case, as the DICOM tag Pixel Padding Value states it (PS3.3, C.7.5.1.1.2).

    Example:
        >>> is_measured(torch.tensor([-3024.0, -3024.0, -1000.0, 50.0])).tolist()
        [False, False, True, True]
    """
    values = image.as_subclass(torch.Tensor)
    counts = torch.ones_like(values, dtype=torch.bool) if padding is None else values != padding
    if lowest is not None:
        below = values[(values < lowest) & counts]
        if len(below) and int(torch.count_nonzero(below == below.min())) > MOST * len(below):
            counts &= values >= lowest
    return counts


def exclude_padding(pair: dict[Hashable, Any], lowest: float | None) -> None:
    """Take the padding of both images out of their masks, which are made where there is none, and show it as air.

    Air is the smallest value that was measured, so that nothing blends with a value that no tissue has.

    Args:
        pair: images of shape ``(1, *spatial)`` and their masks, if any; changed.
        lowest: see :func:`is_measured`.
    """
    for key in IMAGE_KEYS:
        image: MetaTensor = pair[key]
        counts = is_measured(image, lowest, image.meta.get(PADDING_KEY))
        if bool(counts.all()) or not bool(counts.any()):
            continue
        values = image.as_tensor()
        air = values[counts].min()
        share = 100 * (1 - float(torch.count_nonzero(counts)) / counts.numel())
        logger.info("%.3g %% of the %s image are padding: left out, and shown as air (%g).", share, key, float(air))
        meta = {name: value for name, value in image.meta.items() if name != PADDING_KEY}
        pair[key] = as_meta_tensor(torch.where(counts, values, air), image.affine, meta)
        leave_out(pair, key, counts)


def leave_out(pair: dict[Hashable, Any], key: str, counts: torch.Tensor) -> None:
    """Take what does not count out of an image's mask, which is made if there is none.

    Args:
        pair: an image ``(1, *spatial)`` under ``key`` and perhaps its mask, on one grid; changed.
        key: ``moving`` or ``fixed``.
        counts: boolean, ``(1, *spatial)``.

    Example:
        >>> pair = {"fixed": MetaTensor(torch.rand(1, 1, 3)), "fixed_mask": MetaTensor(torch.tensor([[[1, 1, 0]]]))}
        >>> leave_out(pair, "fixed", torch.tensor([[[False, True, True]]]))
        >>> pair["fixed_mask"].as_tensor()
        tensor([[[0, 1, 0]]])
    """
    image, mask = pair[key], pair.get(f"{key}_mask")
    kept = counts.to(torch.uint8) if mask is None else counts * mask.as_tensor()
    pair[f"{key}_mask"] = as_meta_tensor(kept, image.affine, image.meta)
