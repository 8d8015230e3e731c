r"""Displacement fields as DICOM Deformable Spatial Registration objects (PS3.3 A.39.2 and C.20.3).

A point x of the registered frame of reference (the fixed image's; LPS, mm) goes to the source's (the moving image's):

.. math:: M_{post} (M_{pre} x + D(x)).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from monai_regplugins.checks import InputError
from monai_regplugins.environment import installed_version
from monai_regplugins.grids import LPS_TO_RAS
from monai_regplugins.io.dicom_identity import (
    PATIENT_AND_STUDY,
    UTF_8,
    DicomIdentity,
    check_texts,
    import_pydicom,
    read_dicom_file,
    save_dicom,
)
from monai_regplugins.io.field_grid import Displacement, GridAffine, swap_frame

__all__ = [
    "FrameOfReferenceError",
    "check_dicom_registration",
    "load_dicom_registration",
    "write_dicom_registration",
]

GRID = "DeformableRegistrationGridSequence"
PRE, POST = "PreDeformationMatrixRegistrationSequence", "PostDeformationMatrixRegistrationSequence"
LARGEST_MISPLACEMENT = 0.01  # voxels, of the last corner by what DICOM cannot hold of a grid
DISTRIBUTION = "monai-regplugins"


class FrameOfReferenceError(InputError):
    """A DICOM series has no coordinate system, so that no DICOM registration can name it."""


def write_dicom_registration(
    displacement_ras: Displacement,
    affine: GridAffine,
    path: Path,
    fixed: DicomIdentity | None = None,
    moving: DicomIdentity | None = None,
) -> None:
    """Write a checked 3D field straight into ``path``.

    The object belongs to the fixed image's patient, study and frame of reference. An image that is no DICOM series gets
    new UIDs. What a series does not state stays empty where DICOM allows that; a study gets a new UID, but not the
    frame of reference: one that no image has would relate nothing.

    Args:
        displacement_ras: (3, X, Y, Z), mm, components in RAS.
        affine: voxel-to-RAS matrix of its grid, (4, 4); a left-handed grid, which DICOM has not, is stored from the
            other end of its last axis.
        path: the file.
        fixed: the DICOM series of the fixed image, None if it is none.
        moving: the same of the moving image.

    Raises:
        InputError: When the grid has shear, or see :func:`check_dicom_registration`.
    """
    pydicom = import_pydicom()
    grid = _grid(pydicom, *_right_handed(swap_frame(displacement_ras), LPS_TO_RAS @ affine))
    _write(path, grid, fixed, moving)


def check_dicom_registration(fixed: DicomIdentity | None = None, moving: DicomIdentity | None = None) -> None:
    """Check, before two images are registered, that the field can be written for them afterwards.

    Args:
        fixed: the DICOM series of the fixed image, None if it is none.
        moving: the same of the moving image.

    Raises:
        FrameOfReferenceError: When a series has no frame of reference.
        InputError: When pydicom is missing, a text of the fixed series cannot be read in its character set, or an
            identity holds what DICOM refuses.
    """
    _write(BytesIO(), import_pydicom().Dataset(), fixed, moving)


def load_dicom_registration(path: str | Path) -> tuple[Displacement, GridAffine]:
    """Read the field of a Deformable Spatial Registration object, its matrices included.

    Args:
        path: the file.

    Returns:
        the field ``M_post (M_pre x + D(x)) - x``, (3, X, Y, Z), mm, components in RAS, and the voxel-to-RAS matrix of
        its grid, (4, 4).

    Raises:
        InputError: When pydicom or the file is missing, the file is damaged or another kind of object, or it has not
            exactly one grid with displacements everywhere.
    """
    with warnings.catch_warnings():  # pydicom warns of what is refused below
        warnings.simplefilter("ignore")
        dataset = read_dicom_file(path, "displacement field")
        items = [item for item in dataset.get("DeformableRegistrationSequence", ()) if _first(item, GRID)]
        if len(items) != 1:
            raise InputError(
                f"'{path}' holds {len(items)} deformation grids, expected a DICOM Deformable Spatial Registration "
                "with one; export the one that is meant."
            )
        try:
            u, grid = _read_grid(_first(items[0], GRID))
            before, behind = _read_matrix(_first(items[0], PRE)), _read_matrix(_first(items[0], POST))
        except Exception as error:  # whatever a missing or damaged element leads to
            raise InputError(f"the grid in '{path}' is damaged; copy or export the file again.") from error
    if not np.isfinite(u).all():
        raise InputError(f"'{path}' leaves displacements undefined, expected one at each point; export it without.")
    # M_post (M_pre x + D) - x at x = G i
    difference = (behind @ before - np.eye(4)) @ grid
    total = np.tensordot(behind[:3, :3], u, 1)
    if difference.any():
        total = total + np.tensordot(difference[:3, :3], np.indices(u.shape[1:]), 1)
        total = total + difference[:3, 3].reshape(3, 1, 1, 1)
    return swap_frame(total.astype(np.float32)), LPS_TO_RAS @ grid


def _write(target: Path | BytesIO, grid: Any, fixed: DicomIdentity | None, moving: DicomIdentity | None) -> None:
    """Write the object with this item for its grid."""
    pydicom = import_pydicom()
    for name, image in {"fixed": fixed, "moving": moving}.items():
        if image is not None and not image.frame_of_reference_uid:
            raise FrameOfReferenceError(
                f"the DICOM series of the {name} image has no frame of reference (0020,0052), expected one that a "
                "registration can name; choose another format of the field, or export the series with it."
            )
    fixed, moving = fixed or DicomIdentity(), moving or DicomIdentity()
    check_texts(fixed.patient_and_study, "the DICOM series of the fixed image")
    try:
        dataset = _header(pydicom, fixed)
        dataset.DeformableRegistrationSequence = [_registration(pydicom, grid, moving)]
        _refer(pydicom, dataset, fixed, moving)
        save_dicom(dataset, target)
    except (TypeError, ValueError) as error:
        reason = str(error).split("\n")[0]
        raise InputError(f"pydicom refuses the DICOM registration ({reason}); correct the DICOM identities.") from error


def _first(item: Any, keyword: str) -> Any:
    """The only item of a sequence; None if there is none."""
    return next(iter(item.get(keyword) or ()), None)


def _right_handed(u: Displacement, grid: GridAffine) -> tuple[Displacement, GridAffine]:
    """The same vectors at the same points, on a grid whose third axis is the cross product of the other two."""
    if np.linalg.det(grid[:3, :3]) > 0:
        return u, grid
    turn = np.diag([1.0, 1.0, -1.0, 1.0])
    turn[2, 3] = u.shape[3] - 1
    return u[..., ::-1], grid @ turn


def _grid(pydicom: Any, u: Displacement, grid: GridAffine) -> Any:
    """The item with the vectors: LPS, x fastest, then y, then z."""
    spacing = np.linalg.norm(grid[:3, :3], axis=0)
    item = pydicom.Dataset()
    item.ImageOrientationPatient = _decimals(pydicom, (grid[:3, :2] / spacing[:2]).T.ravel())
    item.ImagePositionPatient = _decimals(pydicom, grid[:3, 3])
    item.GridDimensions = list(u.shape[1:])
    item.GridResolution = spacing.tolist()
    item.VectorGridData = np.ascontiguousarray(u.T, "<f4").tobytes()
    held = np.linalg.inv(grid) @ _affine_of(item) @ [*u.shape[1:], 1] - [*u.shape[1:], 1]
    if np.abs(held).max() > LARGEST_MISPLACEMENT:
        raise InputError(
            f"affine of the field is sheared (its last voxel would move by {np.abs(held).max():.2g} voxels in DICOM), "
            "expected right angles; choose another format."
        )
    return item


def _read_grid(item: Any) -> tuple[npt.NDArray[np.float32], GridAffine]:
    """Vectors (3, X, Y, Z) in LPS and the voxel-to-LPS matrix."""
    shape = [int(n) for n in item.GridDimensions]
    values = np.frombuffer(item.VectorGridData, "<f4").reshape(*shape[::-1], 3)
    return values.T, _affine_of(item)


def _affine_of(item: Any) -> GridAffine:
    """Voxel-to-LPS matrix of a grid item."""
    first, second = np.reshape(np.array(item.ImageOrientationPatient, dtype=np.float64), (2, 3))
    affine = np.eye(4)
    affine[:3, :3] = np.transpose([first, second, np.cross(first, second)]) * np.array(item.GridResolution, float)
    affine[:3, 3] = np.array(item.ImagePositionPatient, dtype=np.float64)
    return affine


def _read_matrix(item: Any) -> GridAffine:
    """The matrix of a pre- or post-deformation item, row by row there; identity if there is none."""
    if item is None:
        return np.eye(4)
    return np.reshape(np.array(item.FrameOfReferenceTransformationMatrix, dtype=np.float64), (4, 4))


def _registration(pydicom: Any, grid: Any, moving: DicomIdentity) -> Any:
    """The item that maps points of the fixed image to the moving one."""
    item = pydicom.Dataset()
    item.SourceFrameOfReferenceUID = moving.frame_of_reference_uid or _new_uid(pydicom)
    item.RegistrationTypeCodeSequence = []
    item.DeformableRegistrationGridSequence = [grid]
    if moving.instances:
        item.ReferencedImageSequence = _references(pydicom, moving.instances)
    return item


def _header(pydicom: Any, fixed: DicomIdentity) -> Any:
    """Everything but the registration itself."""
    dataset, meta, now = pydicom.Dataset(), pydicom.dataset.FileMetaDataset(), datetime.now()
    meta.MediaStorageSOPClassUID = pydicom.uid.DeformableSpatialRegistrationStorage
    meta.MediaStorageSOPInstanceUID = _new_uid(pydicom)
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    values = {
        "SpecificCharacterSet": UTF_8,
        "SOPClassUID": meta.MediaStorageSOPClassUID,
        "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
        **{keyword: fixed.patient_and_study.get(keyword, "") for keyword in PATIENT_AND_STUDY},
        "StudyInstanceUID": fixed.study_instance_uid or _new_uid(pydicom),
        "SeriesInstanceUID": _new_uid(pydicom),
        "SeriesNumber": 1,
        "InstanceNumber": 1,
        "Modality": "REG",
        "Laterality": "",
        "Manufacturer": DISTRIBUTION,
        "ManufacturerModelName": DISTRIBUTION,
        "DeviceSerialNumber": "none",
        "SoftwareVersions": installed_version(DISTRIBUTION) or "unknown",
        "FrameOfReferenceUID": fixed.frame_of_reference_uid or _new_uid(pydicom),
        "PositionReferenceIndicator": "",
        "ContentDate": now.strftime("%Y%m%d"),
        "ContentTime": now.strftime("%H%M%S"),
        "ContentLabel": "DEFORMATION",
        "ContentDescription": "Deformable registration",
        "ContentCreatorName": "",
    }
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    dataset.file_meta = meta
    return dataset


def _refer(pydicom: Any, dataset: Any, fixed: DicomIdentity, moving: DicomIdentity) -> None:
    """Name the images of both series, those of the object's own study apart from others (PS3.3 C.12.2)."""
    studies: dict[str, dict[str, dict[tuple[str, str], None]]] = {}
    for image in (fixed, moving):
        if image.instances and image.series_instance_uid and image.study_instance_uid:
            series = studies.setdefault(image.study_instance_uid, {}).setdefault(image.series_instance_uid, {})
            series.update(dict.fromkeys(image.instances))  # phases of a breathing cycle may share one series
    others = []
    for uid, series_of_study in studies.items():
        study = dataset if uid == dataset.StudyInstanceUID else pydicom.Dataset()
        study.ReferencedSeriesSequence = []
        for series_uid, instances in series_of_study.items():
            item = pydicom.Dataset()
            item.SeriesInstanceUID = series_uid
            item.ReferencedInstanceSequence = _references(pydicom, instances)
            study.ReferencedSeriesSequence.append(item)
        if study is not dataset:
            study.StudyInstanceUID = uid
            others.append(study)
    if others:
        dataset.StudiesContainingOtherReferencedInstancesSequence = others


def _references(pydicom: Any, instances: Iterable[tuple[str, str]]) -> list[Any]:
    """An item for each instance."""
    items = []
    for sop_class, sop_instance in instances:
        item = pydicom.Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, sop_instance
        items.append(item)
    return items


def _decimals(pydicom: Any, values: npt.NDArray[np.float64]) -> list[Any]:
    """Decimal strings, of as many digits as their 16 characters hold."""
    return [pydicom.valuerep.DSfloat(float(value), auto_format=True) for value in values]


def _new_uid(pydicom: Any) -> Any:
    """A UID that nothing else has."""
    return pydicom.uid.generate_uid(prefix=None)
