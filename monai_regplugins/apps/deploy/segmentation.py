"""Read and write label maps as DICOM segmentations, by highdicom."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.data import MetaTensor

from monai_regplugins.apps.deploy.tags import OBJECTS, describe
from monai_regplugins.checks import InputError, import_optional
from monai_regplugins.environment import installed_version
from monai_regplugins.files.atomic import replace_file
from monai_regplugins.grids import LPS_TO_RAS
from monai_regplugins.io.dicom_identity import (
    PATIENT_AND_STUDY,
    check_texts,
    decode_texts,
    import_pydicom,
    read_dicom_file,
)
from monai_regplugins.io.result_folder import RECORD, write_result
from monai_regplugins.readers.dicom_files import dicom_files, dicom_series, is_dicom
from monai_regplugins.readers.dicom_series import read_dicom_series
from monai_regplugins.readers.dicom_text import UNREADABLE

__all__ = ["check_segmentation", "read_segmentation", "write_segmentation"]

DISTRIBUTION = "monai-regplugins"
CONTENT = "Labels carried over by registration"
TOLERANCE = 1e-3  # voxels, and of direction cosines: positions in text are rounded


def read_segmentation(path: Path, series: Path) -> MetaTensor:
    """Read a DICOM segmentation as the label map of a series.

    Nothing is resampled: the frames have to lie on slices of the series; slices without a frame are background.

    Args:
        path: the segmentation.
        series: a file of the series, or its folder.

    Returns:
        Segment numbers, ``(1, *spatial)``, on the grid of the series.

    Raises:
        InputError: When highdicom is missing, the file is damaged or something else, its segments overlap, or it does
            not lie on the series.
    """
    hd = import_optional("highdicom", "DICOM segmentations")
    volume = read_dicom_series(series, "moving image")
    name = f"moving label '{path}'"
    if (kind := read_dicom_file(path, "moving label").get("Modality")) != "SEG":
        raise InputError(f"{name} is a DICOM file of modality {kind}, expected a segmentation (SEG); export one.")
    geometry = hd.VolumeGeometry(
        _rows_first(volume.affine), volume.values.shape[::-1], "PATIENT", from_reference_convention="RAS"
    )
    try:
        segments = hd.seg.segread(path)
        frame, own = segments.get("FrameOfReferenceUID", ""), volume.identity["FrameOfReferenceUID"]
        if frame != own:
            raise ValueError(f"its frame of reference is {frame}, that of the series {own}")
        label = segments.get_volume(combine_segments=True).match_geometry(geometry, tol=TOLERANCE).array
        if label.shape != geometry.spatial_shape:
            raise ValueError("it is larger than the series")
    except Exception as error:  # highdicom raises anything on a damaged or foreign file
        reason = " ".join(str(error).split())
        raise InputError(
            f"{name} is no segmentation of the moving series ({reason}); export one whose frames are slices of it, "
            "with segments that do not overlap."
        ) from error
    return MetaTensor(torch.from_numpy(label.T.astype(np.int32))[None], affine=torch.from_numpy(volume.affine))


def write_segmentation(
    label: npt.NDArray[Any],
    affine: npt.NDArray[np.float64],
    series: Path,
    path: Path,
    origin: Path | None = None,
    tags: Mapping[str, Any] | None = None,
    comment: str = "",
    names: Mapping[int, str] | None = None,
) -> None:
    """Write a label map as a binary DICOM segmentation of a series, whole or not at all.

    Where there is a ``provenance.json`` beside the file, it lists the file.

    Segments are numbered from 1 in the order of the labels. They are described as in ``origin``, if that is a DICOM
    segmentation, and otherwise called by their names, or after their label.

    Args:
        label: whole numbers, ``(*spatial)``, 0 the background.
        affine: its voxels to RAS mm, (4, 4).
        series: a file of the series on whose grid it lies, or its folder.
        path: the file.
        origin: where the labels came from.
        tags: what it says of itself, value by keyword; by default :data:`~monai_regplugins.apps.deploy.tags.OBJECTS`.
        comment: such as the verdict on the registration.
        names: of labels, unless ``origin`` has them.

    Raises:
        InputError: When highdicom is missing, there is no label, or the system refuses to write.
    """
    segmentation = _segmentation(label, affine, series, origin, names or {})
    describe(segmentation, OBJECTS["segmentation"] if tags is None else tags, comment)
    if (path.parent / RECORD).is_file():
        write_result(path, segmentation.save_as)
    else:
        replace_file(path, segmentation.save_as)


def check_segmentation(series: Path, origin: Path | None = None) -> None:
    """Check, before two images are registered, that the labels can be written as DICOM segmentation afterwards.

    One of as many voxels as there are segments is made for a trial.

    Args:
        series: a file of the series that it will lie on, or its folder.
        origin: the DICOM segmentation where the labels come from, if they come from one.

    Raises:
        InputError: When highdicom is missing, or refuses the headers.
    """
    found = [1]
    if origin is not None:
        found = [one.SegmentNumber for one in read_dicom_file(origin, "moving label").get("SegmentSequence", ())]
    if found:  # other files are refused when they are read as labels
        _segmentation(np.array(found).reshape(-1, 1, 1), np.eye(4), series, origin, {})


def _segmentation(
    label: npt.NDArray[Any],
    affine: npt.NDArray[np.float64],
    series: Path,
    origin: Path | None,
    names: Mapping[int, str],
) -> Any:
    """The segmentation, by highdicom."""
    hd = import_optional("highdicom", "DICOM segmentations")
    source = _source_images(series, float(np.linalg.norm(affine[:3, 2])))
    try:
        segments = _segments(hd, label, origin, names)
        numbered = np.zeros(label.shape, np.uint16)
        for number, (value, segment) in enumerate(segments.items(), 1):
            numbered[label == value] = number
            segment.SegmentNumber = number
        return _dataset(hd, numbered.T, _planes(hd, affine, label.shape[2]), source, list(segments.values()))
    except InputError:
        raise
    except (AttributeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"highdicom refuses a DICOM segmentation of '{series}' ({reason}); correct its headers, or give no label."
        ) from error


def _planes(hd: Any, affine: npt.NDArray[np.float64], count: int) -> dict[str, Any]:
    """Where the slices of a grid lie; highdicom has had volumes since 0.23 only, which needs pydicom 3."""
    lps = LPS_TO_RAS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    along = lps[:3, :2] / spacing[:2]
    columns, rows, slices = (float(f"{edge:.10g}") for edge in spacing)  # decimal strings have 16 characters
    return {
        "pixel_measures": hd.PixelMeasuresSequence((rows, columns), slices, slices),
        "plane_orientation": hd.PlaneOrientationSequence("PATIENT", along.T.ravel()),
        "plane_positions": [
            hd.PlanePositionSequence("PATIENT", lps[:3, 3] + index * lps[:3, 2]) for index in range(count)
        ],
    }


def _dataset(
    hd: Any, label: npt.NDArray[Any], planes: Mapping[str, Any], source: Sequence[Any], segments: Sequence[Any]
) -> Any:
    """The object, by what the labels are and by whom they were put there."""
    version = installed_version(DISTRIBUTION) or "unknown"
    algorithm = hd.AlgorithmIdentificationSequence(
        DISTRIBUTION, hd.sr.CodedConcept("123110", "DCM", "Artificial Intelligence"), version
    )
    for segment in segments:
        segment.SegmentAlgorithmType, segment.SegmentAlgorithmName = "AUTOMATIC", DISTRIBUTION
        segment.SegmentationAlgorithmIdentificationSequence = algorithm
    return hd.seg.Segmentation(
        source_images=source,
        pixel_array=label,
        **planes,
        segmentation_type="BINARY",
        segment_descriptions=segments,
        series_instance_uid=hd.UID(),
        series_number=1,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer=DISTRIBUTION,
        manufacturer_model_name=DISTRIBUTION,
        software_versions=version,
        device_serial_number="none",
        content_description=CONTENT,
        series_description=CONTENT,
    )


def _segments(hd: Any, label: npt.NDArray[Any], origin: Path | None, names: Mapping[int, str]) -> dict[int, Any]:
    """The description of each label."""
    if origin is not None and origin.is_file() and is_dicom(origin):
        dataset = read_dicom_file(origin, "moving label")
        decode_texts(dataset)
        segments = hd.seg.Segmentation.from_dataset(dataset, copy=False)
        return {number: copy.deepcopy(segments.get_segment_description(number)) for number in segments.segment_numbers}
    values = [int(value) for value in np.unique(label) if value != 0]
    if not values:
        raise InputError(
            "no label lies in the fixed image, so there is nothing to write as DICOM segmentation; check that moving "
            "label and images belong together."
        )
    code = hd.sr.CodedConcept("91723000", "SCT", "Anatomical Structure")
    return {
        value: hd.seg.SegmentDescription(1, names.get(value, f"Label {value}"), code, code, "MANUAL")
        for value in values
    }


def _source_images(series: Path, thickness: float) -> list[Any]:
    """Read the headers of a series, with the attributes that highdicom requires; the segments have their own grid."""
    pydicom = import_pydicom()
    if series.is_dir():
        files = dicom_series(series, f"fixed image '{series}'")
    else:
        files = dicom_files(series.parent, read_dicom_file(series, "fixed image").get("SeriesInstanceUID", ""))
    headers = [pydicom.dcmread(file, stop_before_pixels=True) for file in files or [series]]
    for header in headers:
        decode_texts(header)
    _check_source(headers[0], f"the fixed series '{series}'")
    needed = dict.fromkeys(PATIENT_AND_STUDY, "") | {"SliceThickness": thickness}
    for header, (keyword, value) in itertools.product(headers, needed.items()):
        if header.get(keyword) is None:  # anonymized files often lack what may be empty
            setattr(header, keyword, value)
    for header in headers:  # rounded anew in each file
        header.ImageOrientationPatient = headers[0].ImageOrientationPatient
    return headers


def _check_source(header: Any, name: str) -> None:
    """What highdicom takes over of a series has to be there, and readable; what may be left out, is."""
    if not header.get("FrameOfReferenceUID"):
        raise InputError(
            f"{name} has no frame of reference (0020,0052), so no DICOM segmentation can state its place; export the "
            "series with it, or give no label."
        )
    check_texts({keyword: str(header.get(keyword, "")) for keyword in PATIENT_AND_STUDY}, name)
    for element in list(header):
        if UNREADABLE in str(element.value):
            del header[element.tag]


def _rows_first(affine: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The matrix of (slice, row, column), highdicom's order, from that of (column, row, slice)."""
    return affine[:, [2, 1, 0, 3]]
