"""DICOM slices of a CT or PET series for the scripts in this folder."""

import os
from typing import Any

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

CLASSES = {"CT": UID("1.2.840.10008.5.1.4.1.1.2"), "PT": UID("1.2.840.10008.5.1.4.1.1.128")}
TEXT = "PatientID PatientName PatientBirthDate PatientSex PatientAge PatientSize PatientWeight AccessionNumber KVP"
TEXT += " StudyID StudyDescription SeriesDescription InstitutionName ReferringPhysicianName Manufacturer"
TEXT += " ManufacturerModelName"


def write_series(
    folder: str, positions: list[float], values: list[int], modality: str = "CT", slopes: list[float] | None = None
) -> list[str]:
    """Write axial slices of 16 x 16 pixels of 1 mm, each of one stored value.

    Args:
        folder: Made here.
        positions: z of each slice in mm.
        values: Stored pixel value of each slice.
        modality: ``"CT"`` (rescale intercept -1024) or ``"PT"`` (0).
        slopes: Rescale slope of each slice, 1 if not given.

    Returns:
        Paths of the files.
    """
    os.makedirs(folder)
    uids = {name: generate_uid() for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")}
    paths = [f"{folder}/{number:03d}.dcm" for number in range(len(positions))]
    slopes = slopes or [1] * len(paths)
    for number, path in enumerate(paths):
        data = _slice(modality, uids)
        data.InstanceNumber, data.ImagePositionPatient = number + 1, [0, 0, positions[number]]
        data.RescaleSlope, data.RescaleIntercept = slopes[number], -1024 if modality == "CT" else 0
        data.PixelData = np.full((16, 16), values[number], np.int16).tobytes()
        data.save_as(path, enforce_file_format=True)
    return paths


def _slice(modality: str, uids: dict[str, Any]) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CLASSES[modality], generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    for name, value in {**dict.fromkeys(TEXT.split(), ""), **uids}.items():
        setattr(data, name, value)
    data.SOPClassUID, data.SOPInstanceUID, data.Modality = CLASSES[modality], meta.MediaStorageSOPInstanceUID, modality
    data.StudyDate = data.SeriesDate = "20200101"
    data.StudyTime = data.SeriesTime = "120000"
    data.SeriesNumber, data.BodyPartExamined, data.ImageType = 1, "CHEST", ["ORIGINAL", "PRIMARY", "AXIAL"]
    data.Rows = data.Columns = 16
    data.PixelSpacing, data.SliceThickness, data.ImageOrientationPatient = [1, 1], 2, [1, 0, 0, 0, 1, 0]
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation = 15, 1
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    return data
