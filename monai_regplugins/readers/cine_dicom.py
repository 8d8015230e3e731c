"""Read the frames of a DICOM cine series in order of acquisition."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from monai_regplugins.checks import InputError
from monai_regplugins.grids import LPS_TO_RAS
from monai_regplugins.memory import check_memory
from monai_regplugins.readers.dicom_files import (
    SERIES_UID,
    check_length,
    dicom_files,
    dicom_reader,
    dicom_series,
    dicom_tags,
    tag_number,
    without_copies,
)
from monai_regplugins.readers.dicom_gray import as_stored
from monai_regplugins.readers.dicom_padding import air_for_padding, is_padding

if TYPE_CHECKING:
    import SimpleITK as sitk

__all__ = ["DicomFrame", "dicom_frames"]

Array = npt.NDArray[Any]
Tags = Mapping[str, str]

READING = 16  # bytes per pixel: as GDCM decodes it (float64 at most), in float32, and stacked
NUMBER_OF_FRAMES, FRAME_TIME = "0028|0008", "0018|1063"


class DicomFrame(NamedTuple):
    """One frame.

    Attributes:
        image: float32 (H, W), H the rows.
        affine: voxel (row, column, slice) to RAS mm, (4, 4).
        time: s, from any origin; None if unknown.
    """

    image: Array
    affine: Array
    time: float | None


def dicom_frames(path: Path) -> list[DicomFrame]:
    """Read the frames of a series.

    They are sorted by the first of these that differs from frame to frame: acquisition date and time, acquisition
    time, trigger time, content time, temporal position, instance number. The latter two order, but give no times.

    Args:
        path: a folder with the files of one series, one of these files, or a file with many frames.

    Raises:
        InputError: When the path holds no DICOM image, more than one series, color images or volumes, or more than the
            memory can hold.
    """
    if path.is_dir():
        files = dicom_series(path, f"series '{path}'", " and no NIfTI file")
    else:
        tags = _read_tags(path)
        if tag_number(tags, NUMBER_OF_FRAMES, 1) > 1:
            return list(_frames_of_file(path, tags))
        files = dicom_files(path.parent, tags.get(SERIES_UID, "")) or [path]
    if len(files) == 1:
        return list(_frames_of_file(files[0], _read_tags(files[0])))
    tags_of = [_read_tags(file) for file in files]
    kept = without_copies(files, tags_of, f"series '{path}'")
    files, tags_of = [files[index] for index in kept], [tags_of[index] for index in kept]
    check_memory((*dicom_reader(files[0], "series").GetSize()[:2], len(files)), READING, f"series '{path}'", "read")
    keys, is_time = _sorting_keys(tags_of)
    order = sorted(range(len(files)), key=lambda index: keys[index])
    return [_one_frame(files[index], keys[index] if is_time else None) for index in order]


def _read_tags(file: Path) -> dict[str, str]:
    """The tags of a DICOM file without its pixels; the header declares no more pixels than the file holds."""
    tags = dicom_tags(dicom_reader(file, "series"))
    check_length(file, tags, f"series '{file}'")
    return tags


def _sorting_keys(tags_of: list[dict[str, str]]) -> tuple[list[float], bool]:
    """One number per frame that puts the frames in order, and whether it is a time in s."""
    for key_of, is_time in _ORDERS:
        try:
            keys = [key_of(tags) for tags in tags_of]
        except (KeyError, ValueError):  # this tag is missing or empty in some frame
            continue
        if len(set(keys)) == len(keys):
            return keys, is_time
    raise InputError(
        "the DICOM files have neither times nor numbers that give their order, expected an acquisition time or an "
        "instance number in each; export the series again."
    )


def _clock(text: str) -> float:
    """Seconds since midnight of ``HHMMSS.ffffff``, whose end may be missing."""
    return 3600.0 * int(text[:2]) + 60.0 * int(text[2:4] or 0) + float(text[4:] or 0)


def _days(text: str) -> float:
    """Seconds until the day ``YYYYMMDD`` began."""
    return 86400.0 * date(int(text[:4]), int(text[4:6]), int(text[6:8])).toordinal()


_ORDERS: tuple[tuple[Callable[[Tags], float], bool], ...] = (
    (lambda tags: _days(tags["0008|0022"]) + _clock(tags["0008|0032"]), True),
    (lambda tags: _clock(tags["0008|0032"]), True),
    (lambda tags: float(tags["0018|1060"]) / 1000, True),
    (lambda tags: _clock(tags["0008|0033"]), True),
    (lambda tags: float(tags["0020|0100"]), False),
    (lambda tags: float(tags["0020|0013"]), False),
)


def _one_frame(file: Path, time: float | None) -> DicomFrame:
    """Read a file that holds one frame."""
    frames = list(_frames_of_file(file, _read_tags(file)))
    if len(frames) > 1:
        raise InputError(f"'{file}' holds {len(frames)} frames beside other files of its series; give it alone.")
    return frames[0]._replace(time=time)


def _frames_of_file(file: Path, tags: Tags) -> Iterator[DicomFrame]:
    """Read the frames of one file, in their order there."""
    import SimpleITK as sitk  # 95 MB of memory, so only where it is used

    check_memory(dicom_reader(file, "series").GetSize(), READING, f"series '{file}'", "read")
    try:
        image = sitk.ReadImage(str(file), imageIO="GDCMImageIO")
    except RuntimeError as error:
        raise InputError(f"series '{file}' cannot be read as DICOM; copy or export it again.") from error
    if image.GetNumberOfComponentsPerPixel() != 1:
        raise InputError(f"'{file}' is a color picture, expected gray values; export the original images.")
    values = as_stored(sitk.GetArrayFromImage(image).astype(np.float32), tags)
    interval = tag_number(tags, FRAME_TIME, 0) / 1000
    for number, frame in enumerate(values.reshape(-1, *values.shape[-2:])):
        shown = air_for_padding(frame, is_padding(frame, tags))
        yield DicomFrame(shown, _affine(image), interval * number if interval > 0 else None)


def _affine(image: sitk.Image) -> Array:
    """Voxel (row, column, slice) to RAS mm of an ITK image, whose axes are (column, row, slice)."""
    d = image.GetDimension()
    itk = np.eye(4)
    itk[:d, :d] = np.reshape(image.GetDirection(), (d, d)) * np.asarray(image.GetSpacing())
    itk[:d, 3] = image.GetOrigin()
    return np.asarray(LPS_TO_RAS @ itk[:, [1, 0, 2, 3]])
