r"""A DICOM series of parallel slices as one volume, and which scan it is.

Source: DICOM PS3.3 C.7.6.2, image plane module. Pixel (column ``i``, row ``j``) of a slice lies at
``S + i c R + j r C`` (LPS, mm): image position ``S``, direction ``R`` and ``C`` of its rows and columns, pixel spacing
``r`` between rows, ``c`` between columns. Slices are sorted along ``R x C``, and have to lie evenly and upright on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from monai.data import MetaTensor

from monai_regplugins.checks import InputError
from monai_regplugins.grids import LPS_TO_RAS
from monai_regplugins.keys import SERIES_KEY
from monai_regplugins.memory import check_memory
from monai_regplugins.readers.dicom_files import (
    INSTANCE_UID,
    SERIES_UID,
    check_length,
    dicom_files,
    dicom_reader,
    dicom_series,
    dicom_tags,
    tag_number,
    tag_numbers,
    without_copies,
)
from monai_regplugins.readers.patients import patients_differ

__all__ = [
    "DicomVolume",
    "read_dicom_series",
    "same_frame_of_reference",
    "series_of",
]

Array = npt.NDArray[Any]
Tags = Mapping[str, str]

NUMBER_OF_FRAMES = "0028|0008"
POSITION, ORIENTATION, PIXEL_SPACING, THICKNESS = "0020|0032", "0020|0037", "0028|0030", "0018|0050"
IDENTITY = {
    "PatientName": "0010|0010",
    "PatientID": "0010|0020",
    "PatientBirthDate": "0010|0030",
    "PatientSex": "0010|0040",
    "StudyDate": "0008|0020",
    "StudyTime": "0008|0030",
    "StudyID": "0020|0010",
    "AccessionNumber": "0008|0050",
    "ReferringPhysicianName": "0008|0090",
    "StudyInstanceUID": "0020|000d",
    "SeriesInstanceUID": SERIES_UID,
    "FrameOfReferenceUID": "0020|0052",
    "SOPClassUID": "0008|0016",
}

EVENNESS = 0.05  # of the distance between slices, by which one may miss its place; positions in text are rounded
TILT = 1e-3  # drift in the plane per mm along the normal, as for the shear of an affine
PIXEL_DRIFT = 0.1  # of a pixel, allowed on top of that; positions in text are rounded
SAME_ORIENTATION = 1e-3  # largest difference between direction cosines of parallel slices
READING = 8  # bytes per voxel: the slices in float32, and the volume that they are stacked to
CONVERT = "convert it to NIfTI (for example with dcm2niix)"


class DicomVolume(NamedTuple):
    r"""A volume and where it comes from.

    Attributes:
        values: float32 (columns, rows, slices), rescaled: stored value * slope + intercept of its slice.
        affine: voxels to RAS mm, (4, 4), right-handed in LPS.
        identity: for writers that refer to the scan, texts by DICOM keyword, empty where a tag is missing: those of
            ``IDENTITY``, and ``SOPInstanceUID`` of all slices in their order along the last axis, with backslashes in
            between, as DICOM writes several values. Texts alone, because they pass through any data loader.
    """

    values: npt.NDArray[np.float32]
    affine: npt.NDArray[np.float64]
    identity: dict[str, str]


class _Slice(NamedTuple):
    """The header of a slice: size (columns, rows), spacing (between columns, between rows), directions and place."""

    file: Path
    tags: Tags
    size: tuple[int, int]
    spacing: Array
    axes: Array  # (3, 3): columns R, C, R x C
    position: Array


def read_dicom_series(path: Path, what: str, whole: bool = True) -> DicomVolume:
    """Read a series as a volume.

    Args:
        path: the folder of one series, or one of its files.
        what: what the image is, e.g. ``"fixed image"``.
        whole: of a file, read the whole series that it belongs to; else this slice alone.

    Raises:
        InputError: When the folder holds no series or several, a file is damaged or no gray image, slices differ in
            size, direction or patient, lie at one place, are missing or uneven, the gantry was tilted, or the volume is
            larger than the memory allows.
    """
    name = f"{what} '{path}'"
    if path.is_dir():
        files = dicom_series(path, name)
    elif whole:
        files = dicom_files(path.parent, dicom_tags(dicom_reader(path, what)).get(SERIES_UID, "")) or [path]
    else:
        files = [path]
    slices = [_read_header(file, what) for file in files]
    slices = [slices[index] for index in without_copies(files, [one.tags for one in slices], name)]
    _check_alike(slices, name)
    normal = slices[0].axes[:, 2]
    slices.sort(key=lambda one: float(one.position @ normal))
    distance = _slice_distance(slices, name)
    check_memory((*slices[0].size, len(slices)), READING, name, "read")
    values = np.stack([_read_pixels(one, what) for one in slices], axis=-1)
    identity = _identity(slices[0])
    identity["SOPInstanceUID"] = "\\".join(one.tags.get(INSTANCE_UID, "") for one in slices)
    return DicomVolume(values, _affine(slices[0], distance), identity)


def series_of(image: MetaTensor) -> dict[str, str] | None:
    """The identity of the DICOM series that a loaded image was read from, None for other files.

    Returns:
        See :attr:`DicomVolume.identity`.
    """
    series: dict[str, str] | None = image.meta.get(SERIES_KEY)
    return series


def same_frame_of_reference(a: MetaTensor, b: MetaTensor) -> bool:
    """Whether two images were read from DICOM series with one frame of reference, so that their worlds are one."""
    frames = {(series_of(image) or {}).get("FrameOfReferenceUID", "") for image in (a, b)}
    return len(frames) == 1 and frames != {""}


def _read_header(file: Path, what: str) -> _Slice:
    """Read and check the header of one slice."""
    reader, name = dicom_reader(file, what), f"{what} '{file}'"
    tags = dicom_tags(reader)
    if reader.GetNumberOfComponents() != 1:
        raise InputError(f"{name} is a color picture, expected gray values; export the original images.")
    if tag_number(tags, NUMBER_OF_FRAMES, 1) > 1:
        raise InputError(f"{name} holds many frames in one file, expected a file for each slice; {CONVERT}.")
    check_length(file, tags, name)
    spacing = _numbers(tags, PIXEL_SPACING, 2, name, "pixel spacing")
    directions = _numbers(tags, ORIENTATION, 6, name, "image orientation").reshape(2, 3)
    if not (spacing > 0).all() or np.abs(directions @ directions.T - np.eye(2)).max() > SAME_ORIENTATION:
        raise InputError(
            f"{name} has pixels of {spacing.tolist()} mm along {directions.tolist()}, expected sizes above 0 along two "
            "perpendicular unit vectors; export it again."
        )
    normal = np.cross(*directions)
    axes = np.stack([*directions, normal / np.linalg.norm(normal)], axis=1)
    position = _numbers(tags, POSITION, 3, name, "image position")
    return _Slice(file, tags, (reader.GetSize()[0], reader.GetSize()[1]), spacing[::-1], axes, position)


def _numbers(tags: Tags, tag: str, count: int, name: str, meaning: str) -> Array:
    """The numbers of a tag."""
    numbers = tag_numbers(tags, tag)
    if len(numbers) != count:
        raise InputError(
            f"{name} has no {meaning} of {count} numbers, so its place is unknown; export the original series."
        )
    return np.array(numbers)


def _check_alike(slices: Sequence[_Slice], name: str) -> None:
    """Slices of a volume have one size, one pixel spacing, one direction and one patient."""
    first = slices[0]
    for one in slices[1:]:
        if one.size != first.size or not np.allclose(one.spacing, first.spacing, rtol=1e-3, atol=0):
            raise InputError(
                f"{name} has slices of different sizes ('{first.file.name}' {first.size}, '{one.file.name}' "
                f"{one.size}, or other pixels); keep the files of one volume."
            )
        if np.abs(one.axes - first.axes).max() > SAME_ORIENTATION:
            raise InputError(
                f"{name} has slices that are not parallel ('{first.file.name}' and '{one.file.name}'), as localizers "
                "have; keep the files of one volume."
            )
        if differing := patients_differ(_identity(first), _identity(one)):
            raise InputError(
                f"{name} has slices of two patients by their {differing} ('{first.file.name}' and '{one.file.name}'); "
                "keep the files of one volume."
            )


def _identity(one: _Slice) -> dict[str, str]:
    """What ties a slice to its series, by DICOM keyword."""
    return {keyword: one.tags.get(tag, "") for keyword, tag in IDENTITY.items()}


def _slice_distance(slices: Sequence[_Slice], name: str) -> float:
    """Distance between sorted slices, mm; they have to lie evenly along their normal.

    A single slice is as thick as its header tells.
    """
    if len(slices) == 1:
        thickness = tag_number(slices[0].tags, THICKNESS, 1.0)
        return thickness if thickness > 0 else 1.0
    axes = slices[0].axes
    columns, rows, place = (np.stack([one.position for one in slices]) @ axes).T
    gaps = np.diff(place)
    distance = float(np.median(gaps))
    if len(same := np.flatnonzero(gaps <= EVENNESS * max(distance, 1e-3))):
        first, second = (slices[same[0] + step].file.name for step in (0, 1))
        raise InputError(
            f"{name} has {len(same)} slices where another one lies already ('{first}' and '{second}'), as several "
            f"volumes in one series (times, echoes) have; split the series, or {CONVERT}."
        )
    mean = (place[-1] - place[0]) / len(gaps)
    if np.abs(place - (place[0] + mean * np.arange(len(place)))).max() > EVENNESS * distance:
        worst = int(np.abs(gaps - distance).argmax())
        raise InputError(
            f"{name} has slices {gaps[worst]:g} mm apart ('{slices[worst].file.name}' and "
            f"'{slices[worst + 1].file.name}') where {distance:g} mm is usual, so one is missing or they are uneven; "
            "export the whole series again, or resample it to even slices."
        )
    _check_upright(columns, rows, place, slices[0].spacing, name)
    return float(mean)


def _check_upright(columns: Array, rows: Array, place: Array, spacing: Array, name: str) -> None:
    """Slices have to lie straight above each other, unlike those of a tilted gantry."""
    drift = np.abs([columns - columns[0], rows - rows[0]]).max()
    length = place[-1] - place[0]
    if drift > TILT * length + PIXEL_DRIFT * spacing.min():
        raise InputError(
            f"{name} is sheared: its slices drift by {drift:.3g} mm over {length:.3g} mm, as a gantry tilted by "
            f"{np.degrees(np.arctan2(drift, length)):.1f} degrees makes them; {CONVERT}, which undoes the tilt."
        )


def _read_pixels(one: _Slice, what: str) -> npt.NDArray[np.float32]:
    """The rescaled values of a slice, (columns, rows)."""
    import SimpleITK as sitk  # 95 MB of memory, so only where it is used

    try:
        image = sitk.ReadImage(str(one.file), sitk.sitkFloat32, imageIO="GDCMImageIO")
    except RuntimeError as error:
        raise InputError(
            f"{what} '{one.file}' holds no pixels that can be decoded; copy or export it again, or {CONVERT}."
        ) from error
    values: npt.NDArray[np.float32] = sitk.GetArrayFromImage(image).reshape(one.size[::-1]).T
    return values


def _affine(first: _Slice, distance: float) -> npt.NDArray[np.float64]:
    """Voxels to RAS mm."""
    affine = np.eye(4)
    affine[:3, :3] = first.axes * np.array([*first.spacing, distance])
    affine[:3, 3] = first.position
    result: npt.NDArray[np.float64] = LPS_TO_RAS @ affine
    return result
