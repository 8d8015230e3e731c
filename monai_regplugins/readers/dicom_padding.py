"""Pixel Padding Value: pixels of a DICOM slice that were not measured.

Source: DICOM PS3.3, C.7.5.1.1.2 (Pixel Padding Value and Range Limit, both stored values), C.11.1 (modality LUT).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from monai_regplugins.readers.dicom_files import INTERCEPT, SLOPE, tag_number

__all__ = ["air_for_padding", "is_padding"]

PADDING, LIMIT, SIGNED = "0028|0120", "0028|0121", "0028|0103"
ROUNDING = 0.25  # of a stored value, in float32

Tags = Mapping[str, str]


def is_padding(values: npt.NDArray[Any], tags: Tags) -> npt.NDArray[np.bool_]:
    """Where a slice is padding.

    Args:
        values: rescaled values of the slice, stored value * slope + intercept.
        tags: its header.

    Returns:
        Boolean, of the shape of ``values``; nowhere if the header states no padding.

    Example:
        >>> is_padding(np.array([-3024.0, 0.0]), {"0028|0120": "-2000", "0028|1053": "1", "0028|1052": "-1024"})
        array([ True, False])
    """
    ends = [_stored(tags, tag) for tag in (PADDING, LIMIT)]
    known = sorted(end for end in ends if end is not None)
    if ends[0] is None:
        return np.zeros(values.shape, dtype=bool)
    slope, intercept = tag_number(tags, SLOPE, 1.0) or 1.0, tag_number(tags, INTERCEPT, 0.0)
    stored = (np.asarray(values, np.float64) - intercept) / slope
    found: npt.NDArray[np.bool_] = (stored >= known[0] - ROUNDING) & (stored <= known[-1] + ROUNDING)
    return found


def air_for_padding(values: npt.NDArray[Any], padding: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
    """Return an image whose padding is the smallest value that was measured, so that nothing blends with it.

    Args:
        values: of any shape.
        padding: where it is padding, of this shape; an image that is nothing else stays as it is.

    Example:
        >>> air_for_padding(np.array([-3024.0, -1000.0, 40.0]), np.array([True, False, False])).tolist()
        [-1000.0, -1000.0, 40.0]
    """
    if not padding.any() or padding.all():
        return values
    shown: npt.NDArray[Any] = np.where(padding, values[~padding].min(), values)
    return shown


def _stored(tags: Tags, tag: str) -> float | None:
    """The stored value in a tag, of the sign that the pixels have; writers put values of either sign down as both."""
    value = tag_number(tags, tag, np.nan)
    if np.isnan(value):
        return None
    signed = tag_number(tags, SIGNED, np.nan)
    if signed == 1 and value >= 2**15:
        return value - 2**16
    return value + 2**16 if signed == 0 and value < 0 else value
