"""Enhanced multi-frame DICOM: a file whose frames are the slices of one or more volumes.

What classic DICOM writes into the header of each slice, an Enhanced object holds in its functional groups: those of a
frame, and those that all frames share. Here they become the tags of a slice, so that both kinds are read alike.

Source: DICOM PS3.3, C.7.6.16 (multi-frame functional groups), A.36 and A.38 (Enhanced MR and CT).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from monai_regplugins.checks import InputError, import_optional
from monai_regplugins.readers.dicom_files import INTERCEPT, SLOPE

__all__ = ["frame_tags", "frame_values"]

SHARED, PER_FRAME = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"
BINARY = ("OB", "OD", "OF", "OL", "OV", "OW", "UN")


def frame_tags(file: Path, name: str) -> list[dict[str, str]]:
    """What the functional groups state of each frame, as texts by ``"gggg|eeee"``; of equal tags those of the frame.

    Args:
        file: a DICOM file with more than one frame.
        name: of the image, for messages.

    Raises:
        InputError: When pydicom is missing, or the file has no functional groups for its frames.
    """
    header = _pydicom(name).dcmread(file, stop_before_pixels=True)
    groups = header.get(PER_FRAME, [])
    if len(groups) != int(header.NumberOfFrames):
        raise InputError(
            f"{name} holds {header.NumberOfFrames} frames in one file and states the places of {len(groups)}, expected "
            "Enhanced CT or MR, or a file for each slice; export it again as one of these, or as NIfTI."
        )
    shared = dict(_texts(header.get(SHARED, [])))
    return [{**shared, **dict(_texts([group]))} for group in groups]


def frame_values(file: Path, frames: Mapping[int, Mapping[str, str]], name: str) -> dict[int, npt.NDArray[np.float32]]:
    """The rescaled values of frames, each (columns, rows): stored value * slope + intercept of its own.

    Args:
        file: the file.
        frames: tags by the number of the frame, from 0.
        name: of the image, for messages.

    Raises:
        InputError: When the pixels are damaged, or compressed in a way for which a decoder is missing.
    """
    try:
        stored = _pydicom(name).dcmread(file).pixel_array
    except InputError:
        raise
    except Exception as error:  # decoders raise anything
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{name} holds no pixels that can be decoded ({reason}); install pylibjpeg with its plugins if they are "
            "compressed, else export it again."
        ) from error
    return {
        number: (stored[number] * _float(tags, SLOPE, 1.0) + _float(tags, INTERCEPT, 0.0)).astype(np.float32).T
        for number, tags in frames.items()
    }


def _texts(items: Any) -> Iterator[tuple[str, str]]:
    """The elements of sequence items, nested ones included, with backslashes between several values."""
    for element in (element for item in items for element in item):
        if element.VR == "SQ":
            yield from _texts(element.value)
        elif element.VR not in BINARY and element.value is not None:
            several = element.value if element.VM > 1 else [element.value]
            tag = f"{element.tag.group:04x}|{element.tag.element:04x}"
            yield tag, "\\".join(str(value) for value in several)


def _float(tags: Mapping[str, str], tag: str, default: float) -> float:
    return float(tags.get(tag) or default)


def _pydicom(name: str) -> Any:
    return import_optional("pydicom", f"DICOM files with many frames such as {name}", "pydicom>=3")
