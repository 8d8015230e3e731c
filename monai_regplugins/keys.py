"""Dictionary keys of a pair and of its image metadata."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = [
    "IMAGE_KEYS",
    "ITK_KEY",
    "KEPT_META",
    "LABEL_KEYS",
    "MASK_KEYS",
    "PADDING_KEY",
    "PHASE_KEYS",
    "POINT_KEYS",
    "SERIES_KEY",
    "present",
    "side_of",
]

IMAGE_KEYS = ("moving", "fixed")
LABEL_KEYS = ("moving_label", "fixed_label")
MASK_KEYS = ("moving_mask", "fixed_mask")
POINT_KEYS = ("moving_keypoints", "fixed_keypoints", "moving_landmarks", "fixed_landmarks")
PHASE_KEYS = ("fixed_phase", "moving_phase")  # which volume of an image with several
SERIES_KEY = "dicom_series"  # in an image's metadata: which series it is of
ITK_KEY = "itk_world"  # the map from this package's world to that in which ITK places the file
PADDING_KEY = "padding"  # in an image's metadata: the value of voxels that were not measured, if its file states one
KEPT_META = ("filename_or_obj", SERIES_KEY, ITK_KEY, PADDING_KEY)  # metadata that hold whatever is done to the voxels


def present(pair: Mapping[Any, Any], *groups: tuple[str, ...]) -> Iterator[str]:
    """Yield the keys of ``groups`` that ``pair`` holds, in the order of the groups."""
    return (key for group in groups for key in group if key in pair)


def side_of(key: str) -> str:
    """Return the image that a key belongs to: ``"moving"`` or ``"fixed"``."""
    return key.split("_", maxsplit=1)[0]
