"""DICOM Spatial Registration objects written with pydicom, each attribute by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest


def spatial_registration(path: Path, items: dict[str, list[np.ndarray]], own: str) -> Path:
    """A DICOM Spatial Registration object: each frame of reference with the matrices that lead to ``own``."""
    pydicom = pytest.importorskip("pydicom", reason="needs pydicom")
    dataset, meta = pydicom.Dataset(), pydicom.dataset.FileMetaDataset()
    meta.MediaStorageSOPClassUID = pydicom.uid.SpatialRegistrationStorage
    meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.file_meta, dataset.SOPClassUID = meta, meta.MediaStorageSOPClassUID
    dataset.SOPInstanceUID, dataset.FrameOfReferenceUID = meta.MediaStorageSOPInstanceUID, own
    dataset.RegistrationSequence = []
    for uid, matrices in items.items():
        item, whole = pydicom.Dataset(), pydicom.Dataset()
        item.FrameOfReferenceUID, item.MatrixRegistrationSequence, whole.MatrixSequence = uid, [whole], []
        for matrix in matrices:
            one = pydicom.Dataset()
            one.FrameOfReferenceTransformationMatrixType = "AFFINE"
            one.FrameOfReferenceTransformationMatrix = [f"{number:.12g}"[:16] for number in matrix.ravel()]
            whole.MatrixSequence.append(one)
        dataset.RegistrationSequence.append(item)
    dataset.save_as(path, enforce_file_format=True)
    return path
