"""MONOCHROME1: DICOM slices whose low values are to be shown bright, which GDCM inverts when it reads them.

What a value means does not depend on how it is to be shown: CT has Hounsfield units either way.

Source: DICOM PS3.3, C.7.6.3.1.2 (photometric interpretation), C.11.1 (modality LUT).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from monai_regplugins.readers.dicom_files import INTERCEPT, SLOPE, tag_number

__all__ = ["as_stored"]

PHOTOMETRIC, BITS_STORED, SIGNED = "0028|0004", "0028|0101", "0028|0103"


def as_stored(values: npt.NDArray[Any], tags: Mapping[str, str]) -> npt.NDArray[Any]:
    """Undo the inversion of a MONOCHROME1 slice that was read by GDCM.

    GDCM has replaced each stored value ``v`` by ``highest + lowest - v``, of the range that its bits can hold.

    Args:
        values: rescaled values of the slice.
        tags: its header.

    Returns:
        ``v * slope + intercept``; ``values`` themselves of other slices.

    Example:
        >>> import numpy as np
        >>> tags = {"0028|0004": "MONOCHROME1", "0028|0101": "12", "0028|0103": "0", "0028|1052": "-1024"}
        >>> as_stored(np.array([4095.0, 4094.0]) - 1024, tags).tolist()
        [-1024.0, -1023.0]
    """
    if tags.get(PHOTOMETRIC, "").strip() != "MONOCHROME1":
        return values
    both_ends = -1.0 if tag_number(tags, SIGNED, 0) == 1 else 2.0 ** tag_number(tags, BITS_STORED, 16) - 1
    inverted: npt.NDArray[Any] = (
        both_ends * (tag_number(tags, SLOPE, 1.0) or 1.0) + 2 * tag_number(tags, INTERCEPT, 0.0) - values
    )
    return inverted.astype(values.dtype)
