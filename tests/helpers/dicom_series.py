"""DICOM series written with pydicom, each tag by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

Array = npt.NDArray[Any]

SERIES = "1.2.826.0.1.3680043.8.498.77"
DATA_SET = {
    "SOPClassUID": CTImageStorage,
    "Modality": "CT",
    "SeriesDescription": "Chest 5.0",
    "PatientName": "Doe^Jane",
    "PatientID": "P 17",
    "StudyInstanceUID": f"{SERIES}.1",
    "FrameOfReferenceUID": f"{SERIES}.2",
    "SamplesPerPixel": 1,
    "PhotometricInterpretation": "MONOCHROME2",
    "BitsAllocated": 16,
    "BitsStored": 16,
    "HighBit": 15,
    "PixelRepresentation": 1,
}


def write_slice(path: Path, pixels: Array, **tags: Any) -> Path:
    """Write stored values (rows, columns) as one file; a tag of None is left out."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = tags.get("SOPClassUID", CTImageStorage)
    meta.MediaStorageSOPInstanceUID = tags["SOPInstanceUID"]
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    rows, columns = pixels.shape[:2]
    size = {"Rows": rows, "Columns": columns, "PixelData": np.ascontiguousarray(pixels).tobytes()}
    for keyword, value in (DATA_SET | size | tags).items():
        if value is not None:
            setattr(data, keyword, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path


def write_volume(
    folder: Path,
    stored: Array,
    affine: Array,
    slope: float | Sequence[float] = 1.0,
    intercept: float = 0.0,
    step: Array | None = None,
    **tags: Any,
) -> list[Path]:
    """Write stored int16 values (X, Y, Z) on the grid of a voxel-to-RAS ``affine``, a file for each slice along Z.

    File names and instance numbers run against the order of the slices. ``step`` (3,) is another way in RAS from slice
    to slice than that of the affine.
    """
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    step = lps[:3, 2] if step is None else np.array([-1.0, -1.0, 1.0]) * step
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    directions = lps[:3, :2] / spacing[:2]
    count = stored.shape[2]
    series = tags.pop("SeriesInstanceUID", SERIES)
    geometry = {
        "ImageOrientationPatient": [f"{value:.10g}" for value in directions.T.ravel()],
        "PixelSpacing": [f"{spacing[1]:.10g}", f"{spacing[0]:.10g}"],  # between rows, between columns
        "SeriesInstanceUID": series,
        "RescaleIntercept": intercept,
    }
    slopes = np.broadcast_to(slope, count)
    return [
        write_slice(
            folder / f"IM{count - k:03d}.dcm",
            stored[:, :, k].T.astype("<i2"),
            **{
                **geometry,
                "SOPInstanceUID": f"{series}.9.{k + 1}",
                "InstanceNumber": count - k,
                "ImagePositionPatient": [f"{value:.10g}" for value in lps[:3, 3] + k * step],
                "RescaleSlope": float(slopes[k]),
                **tags,
            },
        )
        for k in range(count)
    ]
