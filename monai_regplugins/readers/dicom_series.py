r"""Read a DICOM series of parallel slices as a volume with its series identity.

Source: DICOM PS3.3 C.7.6.2, image plane module. Pixel (column ``i``, row ``j``) of a slice lies at
``S + i c R + j r C`` (LPS, mm): image position ``S``, direction ``R`` and ``C`` of its rows and columns, pixel spacing
``r`` between rows, ``c`` between columns. Slices are sorted along ``R x C``; where they lie unevenly on it, or drift
away from it, they are sampled on a grid of right angles (:mod:`~monai_regplugins.readers.dicom_upright`). A slice is a
file, or a frame of one (:mod:`~monai_regplugins.readers.dicom_frames`). Of a series with several volumes, such as the
phases of a 4D-CT, one has to be named (:mod:`~monai_regplugins.readers.phases`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
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
    COLUMNS,
    INSTANCE_UID,
    ROWS,
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
from monai_regplugins.readers.dicom_frames import frame_tags, frame_values
from monai_regplugins.readers.dicom_gray import as_stored
from monai_regplugins.readers.dicom_padding import air_for_padding, is_padding
from monai_regplugins.readers.dicom_upright import resample_upright, upright_grid
from monai_regplugins.readers.kinds import FORMATS
from monai_regplugins.readers.patients import patients_differ
from monai_regplugins.readers.phases import Phase, Volumes, chosen_volume, split_volumes

__all__ = [
    "DicomVolume",
    "dicom_phases",
    "read_dicom_series",
    "same_frame_of_reference",
    "series_of",
]

Array = npt.NDArray[Any]
Tags = Mapping[str, str]
logger = logging.getLogger(__name__)

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
RESAMPLING = 16  # bytes per voxel of the grid of right angles: with the slices, shifted, and the new ones
WIDEST_GAP = 4  # times the usual distance between slices; where more is missing, nothing is made up
CONVERT = "convert it to NIfTI (for example with dcm2niix)"


class DicomVolume(NamedTuple):
    r"""A volume and where it comes from.

    Attributes:
        values: float32 (columns, rows, slices), rescaled: stored value * slope + intercept of its slice.
        affine: voxels to RAS mm, (4, 4), right-handed in LPS.
        identity: for writers that refer to the scan, texts by DICOM keyword, empty where a tag is missing: those of
            ``IDENTITY``, and ``SOPInstanceUID`` of all slices in their order along the last axis, with backslashes in
            between, as DICOM writes several values. Texts alone, because they pass through any data loader.
        padding: the value of voxels that are padding, see :mod:`~monai_regplugins.readers.dicom_padding`; None if there
            are none, or if the slices were resampled, where air stands for it.
    """

    values: npt.NDArray[np.float32]
    affine: npt.NDArray[np.float64]
    identity: dict[str, str]
    padding: float | None = None


class _Slice(NamedTuple):
    """The header of a slice: size (columns, rows), spacing (between columns, between rows), directions and place.

    ``frame`` is its number in a file of several, else None.
    """

    file: Path
    tags: Tags
    size: tuple[int, int]
    spacing: Array
    axes: Array  # (3, 3): columns R, C, R x C
    position: Array
    frame: int | None = None


def read_dicom_series(path: Path, what: str, whole: bool = True, phase: Phase | None = None) -> DicomVolume:
    """Read a series as a volume.

    Args:
        path: the folder of one series, or one of its files.
        what: what the image is, e.g. ``"fixed image"``.
        whole: of a file, read the whole series that it belongs to; else this file alone.
        phase: which volume of a series with several; None where the caller has no option to state it.

    Raises:
        InputError: When the folder holds no series or several, a file is damaged or no gray image, slices differ in
            size, direction or patient, several volumes are there and none is named, two slices lie at one place, more
            than three in a row are missing, or the volume is larger than the memory allows.
    """
    name = f"{what} '{path}'"
    slices = _slices_of(path, what, whole)
    volumes = _volumes(slices, name)
    names = list(volumes.members)
    members = volumes.members[names[chosen_volume(names, phase, name, volumes.by)]]
    slices = sorted((slices[index] for index in members), key=lambda one: float(one.position @ slices[0].axes[:, 2]))
    _check_distances(slices, name)
    check_memory((*slices[0].size, len(slices)), READING, name, "read")
    stack, padding = _with_one_padding(list(_read_pixels(slices, what)), slices)
    values, affine = _on_right_angles(stack, padding, slices, name)
    identity = _identity(slices[0])
    identity["SOPInstanceUID"] = "\\".join(dict.fromkeys(one.tags.get(INSTANCE_UID, "") for one in slices))
    return DicomVolume(values, affine, identity, padding if values is stack else None)


def dicom_phases(path: Path, what: str) -> list[str]:
    """The names of the volumes in a series, in their order; one name, ``""``, for a single volume.

    Args:
        path: the folder of one series, or one of its files.
        what: what the image is, e.g. ``"image"``.

    Raises:
        InputError: As :func:`read_dicom_series`.
    """
    return list(_volumes(_slices_of(path, what), f"{what} '{path}'").members)


def _slices_of(path: Path, what: str, whole: bool = True) -> list[_Slice]:
    """The headers of all slices of a series, or of one file, as they are found."""
    name = f"{what} '{path}'"
    if path.is_dir():
        files = dicom_series(path, name)
    elif whole:
        files = dicom_files(path.parent, dicom_tags(dicom_reader(path, what, FORMATS)).get(SERIES_UID, "")) or [path]
    else:
        files = [path]
    tags_of = [_read_tags(file, what) for file in files]
    slices = [one for index in without_copies(files, tags_of, name) for one in _in(files[index], tags_of[index], what)]
    _check_alike(slices, name)
    return slices


def _volumes(slices: Sequence[_Slice], name: str) -> Volumes:
    """The volumes that the slices are of."""
    places = np.array([one.position @ slices[0].axes[:, 2] for one in slices])
    found = split_volumes(places, [one.tags for one in slices])
    if found is None:
        first, second = (slices[index].file.name for index in _nearest(places))
        raise InputError(
            f"{name} has slices where another one lies already ('{first}' and '{second}'), and nothing states them "
            "apart (times, phases, echoes, numbers); keep the files of one volume."
        )
    return found


def _nearest(places: Array) -> tuple[int, int]:
    """The two slices that lie nearest to each other."""
    order = np.argsort(places, kind="stable")
    first = int(np.diff(places[order]).argmin())
    return int(order[first]), int(order[first + 1])


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


def _read_tags(file: Path, what: str) -> Tags:
    """The tags of a file whose header declares no more pixels than it holds."""
    reader = dicom_reader(file, what, FORMATS)
    if reader.GetNumberOfComponents() != 1:
        raise InputError(f"{what} '{file}' is a color picture, expected gray values; export the original images.")
    tags = dicom_tags(reader)
    check_length(file, tags, f"{what} '{file}'")
    return tags


def _in(file: Path, tags: Tags, what: str) -> Iterator[_Slice]:
    """The headers of the slices in a file: its own, or those of its frames."""
    name = f"{what} '{file}'"
    if tag_number(tags, NUMBER_OF_FRAMES, 1) <= 1:
        yield _checked(file, tags, name)
        return
    for number, own in enumerate(frame_tags(file, name)):
        yield _checked(file, {**tags, **own}, name)._replace(frame=number)


def _checked(file: Path, tags: Tags, name: str) -> _Slice:
    """The header of one slice, by its tags."""
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
    size = int(tag_number(tags, COLUMNS, 0)), int(tag_number(tags, ROWS, 0))
    return _Slice(file, tags, size, spacing[::-1], axes, position)


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
    """Series identity of a slice, by DICOM keyword."""
    return {keyword: one.tags.get(tag, "") for keyword, tag in IDENTITY.items()}


def _check_distances(slices: Sequence[_Slice], name: str) -> None:
    """Sorted slices have to lie apart, and no more than a few of them may be missing in a row."""
    places = np.array([one.position @ slices[0].axes[:, 2] for one in slices])
    gaps = np.diff(places)
    if len(gaps) == 0:
        return
    usual, nearest, widest = float(np.median(gaps)), int(gaps.argmin()), int(gaps.argmax())
    if gaps[nearest] <= EVENNESS * usual:
        raise InputError(
            f"{name} has slices where another one lies already ('{slices[nearest].file.name}' and "
            f"'{slices[nearest + 1].file.name}', {gaps[nearest]:.2g} mm apart); keep one of them."
        )
    if gaps[widest] > WIDEST_GAP * usual:
        raise InputError(
            f"{name} has slices {gaps[widest]:g} mm apart ('{slices[widest].file.name}' and "
            f"'{slices[widest + 1].file.name}') where {usual:g} mm is usual, so several are missing; export the whole "
            "series again."
        )


def _with_one_padding(
    pixels: Sequence[npt.NDArray[np.float32]], slices: Sequence[_Slice]
) -> tuple[npt.NDArray[np.float32], float | None]:
    """The volume of sorted slices, whose padding has one value, and that, None without any."""
    stack = np.stack(pixels, axis=-1)
    found = np.stack([is_padding(values, one.tags) for values, one in zip(pixels, slices, strict=True)], axis=-1)
    if not found.any() or found.all():
        return stack, None
    padding = float(min(stack[found].min(), stack[~found].min() - 1))  # that no measurement has
    stack[found] = padding
    return stack, padding


def _on_right_angles(
    values: npt.NDArray[np.float32], padding: float | None, slices: Sequence[_Slice], name: str
) -> tuple[npt.NDArray[np.float32], Array]:
    """The values of sorted slices and their matrix; uneven or sheared ones are resampled, which the log states."""
    first = slices[0]
    if len(slices) == 1:  # as thick as its header states
        thickness = tag_number(first.tags, THICKNESS, 1.0)
        return values, _affine(first, first.position, np.array([*first.spacing, thickness if thickness > 0 else 1.0]))
    origins = np.stack([one.position for one in slices]) @ first.axes
    even, upright = _lie_evenly(origins[:, 2]), _lie_upright(origins, first.spacing)
    grid = upright_grid(origins, first.size, first.spacing, even, upright)
    if not (even and upright):
        logger.warning("%s %s.", name, _notice(slices, origins, grid.spacing[2], even, upright))
        check_memory(grid.shape, RESAMPLING, name, "read")
        if padding is not None:
            values = air_for_padding(values, values == padding)
        values = resample_upright(values, origins, grid, upright)
    origin = first.position + first.axes @ (grid.origin - origins[0])
    return values, _affine(first, origin, grid.spacing)


def _lie_evenly(places: Array) -> bool:
    """Whether slices lie evenly along their normal."""
    gaps = np.diff(places)
    expected = np.linspace(places[0], places[-1], len(places))
    return float(np.abs(places - expected).max()) <= EVENNESS * float(np.median(gaps))


def _lie_upright(origins: Array, spacing: Array) -> bool:
    """Whether slices lie straight above each other, unlike those of a tilted gantry."""
    drift = np.abs(origins[:, :2] - origins[0, :2]).max()
    length = origins[-1, 2] - origins[0, 2]
    return bool(drift <= TILT * length + PIXEL_DRIFT * spacing.min())


def _notice(slices: Sequence[_Slice], origins: Array, distance: float, even: bool, upright: bool) -> str:
    """What the log states of slices that are resampled."""
    reported = []
    if not upright:
        drift = np.abs(origins[:, :2] - origins[0, :2]).max()
        angle = np.degrees(np.arctan2(drift, origins[-1, 2] - origins[0, 2]))
        reported.append(f"was made with a gantry tilted by {angle:.1f} degrees")
    if not even:
        gaps = np.diff(origins[:, 2])
        worst = int(gaps.argmax())
        pair = f"'{slices[worst].file.name}' and '{slices[worst + 1].file.name}'"
        reported.append(f"has slices {gaps.min():.3g} to {gaps[worst]:.3g} mm apart ({pair}; one may be missing)")
    return " and ".join(reported) + f", so it is resampled to right angles and {distance:.3g} mm between slices"


def _read_pixels(slices: Sequence[_Slice], what: str) -> Iterator[npt.NDArray[np.float32]]:
    """The rescaled values of slices, (columns, rows)."""
    frames: dict[Path, dict[int, Tags]] = {}
    for one in slices:
        if one.frame is not None:
            frames.setdefault(one.file, {})[one.frame] = one.tags
    values = {file: frame_values(file, tags_of, f"{what} '{file}'") for file, tags_of in frames.items()}
    for one in slices:
        yield _read_slice(one, what) if one.frame is None else values[one.file][one.frame]


def _read_slice(one: _Slice, what: str) -> npt.NDArray[np.float32]:
    """The rescaled values of a slice that is a file, (columns, rows)."""
    import SimpleITK as sitk  # 95 MB of memory, so only where it is used

    try:
        image = sitk.ReadImage(str(one.file), sitk.sitkFloat32, imageIO="GDCMImageIO")
    except RuntimeError as error:
        raise InputError(
            f"{what} '{one.file}' holds no pixels that can be decoded; copy or export it again, or {CONVERT}."
        ) from error
    values: npt.NDArray[np.float32] = sitk.GetArrayFromImage(image).reshape(one.size[::-1]).T
    return as_stored(values, one.tags)


def _affine(first: _Slice, origin: Array, spacing: Array) -> npt.NDArray[np.float64]:
    """Voxels to RAS mm."""
    affine = np.eye(4)
    affine[:3, :3] = first.axes * spacing
    affine[:3, 3] = origin
    result: npt.NDArray[np.float64] = LPS_TO_RAS @ affine
    return result
