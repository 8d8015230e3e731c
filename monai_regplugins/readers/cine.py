"""Read and write cine series (2D+t): frames of one slice with their geometry, NIfTI or DICOM."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from monai_regplugins.checks import InputError, check_affine, check_file
from monai_regplugins.files.atomic import replace_file
from monai_regplugins.files.folders import files_in
from monai_regplugins.memory import check_memory
from monai_regplugins.readers.cine_dicom import DicomFrame, dicom_frames
from monai_regplugins.readers.nifti import NIFTI_SUFFIXES, nifti_place, report_place

__all__ = [
    "CineSeries",
    "join_frames",
    "read_cine",
    "reference_frame",
    "series_files",
    "write_series",
]

Array = npt.NDArray[Any]

READING = 16  # bytes per pixel: as nibabel scales it (float64), in float32, and frames first
SECONDS = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6}
LAYOUTS = "expected (H, W, T) or (H, W, 1, T)"


@dataclass(frozen=True)
class CineSeries:
    """One slice over time.

    Attributes:
        frames: float32 intensities (T, H, W), axes as in the file.
        spacing: pixel size along H and W in mm.
        times: s, (T,), counted from the first frame; None where the file does not state them.
        affine: voxel to RAS mm of the file's first three axes, (4, 4).
        source: where the frames come from, for messages and titles.
        slice_axis: which of the file's first three axes is the single slice; None if the file is (H, W, T).
    """

    frames: npt.NDArray[np.float32]
    spacing: tuple[float, float]
    times: npt.NDArray[np.float64] | None
    affine: npt.NDArray[np.float64]
    source: str = "series"
    slice_axis: int | None = 2

    def with_frames(self, frames: npt.ArrayLike) -> CineSeries:
        """The same slice and times with other intensities, such as the aligned ones, (T, H, W).

        Raises:
            InputError: When the shape is another one.
        """
        values = np.asarray(frames, dtype=np.float32)
        if values.shape != self.frames.shape:
            raise InputError(
                f"the frames have shape {values.shape}, expected {self.frames.shape} as '{self.source}'; give one "
                "frame for each of the series, on its grid."
            )
        return replace(self, frames=values)


def read_cine(path: str | Path) -> CineSeries:
    """Read a series of one slice over time.

    Args:
        path: a NIfTI file (H, W, T) or (H, W, 1, T), where the single slice may also be the first or second axis; a
            DICOM file with several frames, or one of the files of a series; a folder with one series of DICOM files or
            one NIfTI file. DICOM frames are sorted by the time they were taken.

    Returns:
        The series, its frames checked: two or more of one size, finite, none of them constant.

    Raises:
        InputError: When there is no such file, it is no 2D+t series, or a frame cannot be registered.
    """
    place = Path(path)
    if place.is_dir():
        files = _nifti_files(place)
        if len(files) > 1:
            names = ", ".join(f"'{file.name}'" for file in files[:3])
            raise InputError(f"folder '{path}' holds {len(files)} NIfTI files ({names}, ...); give the path of one.")
        place = files[0] if files else place
    else:
        check_file(place, "series")
    series = _read_nifti(place) if place.name.lower().endswith(NIFTI_SUFFIXES) else _read_dicom(place)
    _check_frames(series)
    return series


def join_frames(images: Sequence[tuple[Array, Array]], source: str) -> CineSeries:
    """Make a series of images of its frames.

    Args:
        images: values, (H, W) or with a single slice along one of three axes, and affine (4, 4) of each frame.
        source: what they come from.

    Raises:
        InputError: When they are not of one slice, or a frame cannot be registered.
    """
    name = f"series '{source}'"
    found = [
        _frames_of(values[..., None] if values.ndim == 3 else values[..., None, None], name) for values, _ in images
    ]
    frames = [DicomFrame(frame[0], affine, None) for (frame, _), (_, affine) in zip(found, images, strict=True)]
    for number, frame in enumerate(frames):
        _check_same_slice(frames[0], frame, name, number)
    affine, across = frames[0].affine, found[0][1]
    lengths = [float(length) for length in np.linalg.norm(affine[:3, :3], axis=0)]
    spacing = [length for axis, length in enumerate(lengths) if axis != across]
    values = np.stack([frame.image for frame in frames]).astype(np.float32)
    series = CineSeries(values, (spacing[0], spacing[1]), None, affine, source, across)
    _check_frames(series)
    return series


def series_files(dataset_dir: str | Path) -> list[Path]:
    """The 2D+t files of a data set: those under ``series`` of its ``*_dataset.json``, else the NIfTI files within.

    Args:
        dataset_dir: a folder.

    Raises:
        InputError: When there is no such folder or file, or the json file cannot be read.
    """
    folder = Path(dataset_dir)
    if not folder.is_dir():
        raise InputError(f"dataset_dir '{folder}' is no folder; give the folder that holds the series.")
    files = _nifti_files(folder)
    for description in files_in(folder, "*_dataset.json"):
        try:
            entries = json.loads(description.read_text(encoding="utf-8")).get("series", [])
            files += [folder / (entry if isinstance(entry, str) else entry["image"]) for entry in entries]
        except (ValueError, AttributeError, TypeError, KeyError) as error:
            raise InputError(
                f"'{description}' lists no series that can be read ({type(error).__name__}: {error}); "
                'write "series": [{"image": path}, ...].'
            ) from None
    if not files:
        raise InputError(f"'{folder}' holds no series; list NIfTI files under 'series' of its '*_dataset.json'.")
    return [check_file(file, "series") for file in files]


def reference_frame(series: CineSeries | npt.ArrayLike) -> int:
    """Number of the frame whose mean intensity is nearest to the mean over all frames.

    The mean intensity follows the breath, so this frame is close to the mean respiratory cycle (Sandkuehler et al.
    2019, section 4; the rule is that of the authors' code).

    Args:
        series: a series or its frames, (T, H, W).
    """
    frames = series.frames if isinstance(series, CineSeries) else np.asarray(series)
    means = frames.mean(axis=(1, 2), dtype=np.float64)
    return int(np.abs(means - means.mean()).argmin())


def write_series(series: CineSeries, path: str | Path, dtype: npt.DTypeLike = np.float32) -> None:
    """Write a series as NIfTI, whole or not at all, with the axes, affine and times that it was read with.

    Args:
        series: the series, such as ``original.with_frames(aligned)``.
        path: the file, ``.nii`` or ``.nii.gz``.
        dtype: number type of the file; whole numbers are rounded.

    Raises:
        InputError: When the suffix is another one or the file cannot be written.
    """
    if not str(path).lower().endswith(NIFTI_SUFFIXES):
        raise InputError(f"'{path}' is no NIfTI name, expected one that ends in .nii or .nii.gz; change it.")
    values = np.moveaxis(series.frames, 0, -1)
    if np.issubdtype(dtype, np.integer):
        values = np.rint(values)
    if series.slice_axis is not None:
        values = np.expand_dims(values, series.slice_axis)
    image = nib.Nifti1Image(values.astype(dtype), series.affine)
    if series.times is not None and series.slice_axis is not None:
        image.header["pixdim"][4] = np.diff(series.times).mean()
        image.header.set_xyzt_units("mm", "sec")
    else:
        image.header.set_xyzt_units("mm")
    replace_file(Path(path), lambda temporary: nib.save(image, temporary))


def _nifti_files(folder: Path) -> list[Path]:
    return [file for file in files_in(folder) if file.name.lower().endswith(NIFTI_SUFFIXES)]


def _read_nifti(file: Path) -> CineSeries:
    """Read a NIfTI file, its frames unchecked."""
    try:
        image = nib.load(file)
        if not isinstance(image, nib.Nifti1Image):  # a pair of files is none
            raise TypeError(f"a file of type {type(image).__name__}")
        check_memory(image.shape, READING, f"series '{file}'", "read")
        values = np.asarray(image.dataobj)
        if values.dtype.fields is not None or np.iscomplexobj(values):
            raise TypeError("color or complex values")
        values = values.astype(np.float32)
        place, header = nifti_place(image.header), image.header
        unit = header.get_xyzt_units()[1]
    except InputError:
        raise
    except Exception as error:  # nibabel raises anything on a foreign file
        raise InputError(
            f"series '{file}' cannot be read as NIfTI, expected one gray value per pixel; it is damaged or something "
            "else, so copy or export it again."
        ) from error
    frames, slice_axis = _frames_of(values, f"series '{file}'")
    affine = place.affine
    check_affine(affine, f"series '{file}'")
    report_place(place, f"series '{file}'")
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    rows, columns = (axis for axis in range(3) if axis != (2 if slice_axis is None else slice_axis))
    times: npt.NDArray[np.float64] | None = None
    if slice_axis is not None and unit in SECONDS and header["pixdim"][4] > 0:
        times = SECONDS[unit] * float(header["pixdim"][4]) * np.arange(len(frames), dtype=np.float64)
    return CineSeries(frames, (float(lengths[rows]), float(lengths[columns])), times, affine, str(file), slice_axis)


def _frames_of(values: Array, name: str) -> tuple[Array, int | None]:
    """Frames (T, H, W) of a file's array, and which axis was the slice."""
    if values.ndim == 3:
        return np.ascontiguousarray(np.moveaxis(values, 2, 0)), None
    if values.ndim != 4:
        kind = "a single image" if values.ndim == 2 else f"an image of {values.ndim} axes"
        raise InputError(f"{name} is {kind} of shape {values.shape}, {LAYOUTS}; give one slice over time.")
    single = [axis for axis in (2, 0, 1) if values.shape[axis] == 1]
    if not single:
        raise InputError(
            f"{name} is a volume over time of shape {values.shape}, {LAYOUTS}; take one slice out of it first."
        )
    return np.ascontiguousarray(np.moveaxis(values.squeeze(single[0]), -1, 0)), single[0]


def _read_dicom(path: Path) -> CineSeries:
    """Read a DICOM series, its frames in order of time but unchecked."""
    found = dicom_frames(path)
    first = found[0]
    for number, frame in enumerate(found):
        _check_same_slice(first, frame, f"series '{path}'", number)
    times = None
    if all(frame.time is not None for frame in found):
        times = np.array([frame.time for frame in found], dtype=np.float64)
        times -= times[0]
    spacing = np.linalg.norm(first.affine[:3, :2], axis=0)
    frames = np.stack([frame.image for frame in found]).astype(np.float32)
    return CineSeries(frames, (float(spacing[0]), float(spacing[1])), times, first.affine, str(path))


def _check_same_slice(first: DicomFrame, frame: DicomFrame, name: str, number: int) -> None:
    """All frames of a series must have one size and show one slice."""
    if frame.image.shape != first.image.shape:
        raise InputError(
            f"{name} has frames of different sizes, {first.image.shape} and {frame.image.shape} (frame {number}), "
            "expected one size; keep the files of one acquisition."
        )
    if not np.allclose(frame.affine, first.affine, rtol=0, atol=1e-2):
        raise InputError(
            f"{name} shows different slices (frame {number} lies elsewhere than frame 0), expected one slice over "
            "time; keep the files of one slice."
        )


def _check_frames(series: CineSeries) -> None:
    """Check that there are two or more frames, larger than one pixel, finite and not constant."""
    frames, name = series.frames, f"series '{series.source}'"
    if len(frames) < 2:
        raise InputError(f"{name} has {len(frames)} frame, expected two or more; give one slice over time.")
    if min(frames.shape[1:]) < 2:
        raise InputError(f"{name} has frames of {frames.shape[1]} x {frames.shape[2]} pixels, {LAYOUTS}; export again.")
    low, high = frames.min(axis=(1, 2)), frames.max(axis=(1, 2))  # both carry NaN, and one of them any infinity
    if bad := _numbers(~np.isfinite(low) | ~np.isfinite(high)):
        raise InputError(f"{name} holds NaN or infinite intensities in frame {bad}; replace them in the file.")
    if bad := _numbers(low == high):
        raise InputError(f"{name} is constant in frame {bad} (counted from 0), nothing to register; leave it out.")


def _numbers(marked: Sequence[bool] | Array) -> str:
    """The marked frames, as words: ``3, 7, 8 ...``."""
    numbers = np.flatnonzero(marked)
    return ", ".join(str(number) for number in numbers[:5]) + (" ..." if len(numbers) > 5 else "")
