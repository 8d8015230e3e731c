"""Answers as DICOM objects: the labels as segmentation of the fixed series, the field as registration of both."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai_regplugins.apps.deploy.segmentation import check_segmentation, write_segmentation
from monai_regplugins.apps.deploy.tags import OBJECTS, comment_of, describe_file
from monai_regplugins.apps.label.requests import RequestError
from monai_regplugins.io.dicom_identity import read_dicom_file
from monai_regplugins.io.formats import FORMATS
from monai_regplugins.outputs.registration_writer import RegistrationWriter
from monai_regplugins.readers.dicom_files import dicom_series, is_dicom
from monai_regplugins.result import RegistrationResult

__all__ = ["check_label", "check_series", "write_label", "write_registration"]

SEGMENTATION, REGISTRATION = "segmentation.dcm", FORMATS["dicom"].file_name


def _has_series(path: str) -> bool:
    """Whether an image is a DICOM series: a folder, or a file of one."""
    place = Path(path)
    return place.is_dir() or (place.is_file() and is_dicom(place))


def check_series(images: Mapping[str, str]) -> None:
    """Check, before two images are registered, that the answer can be a DICOM object.

    Args:
        images: path by what it is.

    Raises:
        RequestError: When one is no DICOM series.
    """
    for what, path in images.items():
        if not _has_series(path):
            raise RequestError(
                f"{what} is no DICOM series, so there is no patient and no study for a DICOM answer; ask for another "
                "format, or use images of a DICOMweb server."
            )


def check_label(fixed: str, origin: str) -> None:
    """Check, before two images are registered, that the label can be a segmentation of the fixed one.

    Args:
        fixed: its path.
        origin: the DICOM segmentation that the label comes from; empty if there is none.

    Raises:
        InputError: When it is no DICOM series, or its headers do not allow that.
    """
    check_series({"the image": fixed})
    check_segmentation(Path(fixed), Path(origin) if origin else None)


def write_label(
    registered: RegistrationResult, names: Mapping[int, str], origin: str, folder: Path
) -> tuple[Path, dict[str, int]]:
    """Write the label that was carried over as DICOM segmentation of the fixed series.

    Args:
        registered: with a label.
        names: of its values.
        origin: the DICOM segmentation that the label came from, whose codes are kept; empty if there is none.
        folder: where the file goes.

    Returns:
        The file, and name to number of its segments.

    Raises:
        InputError: When the series cannot have a segmentation, or no label lies in it.
    """
    label, path = registered.warped_label, folder / SEGMENTATION
    assert label is not None
    write_segmentation(
        label[0].numpy(),
        label.affine.numpy(),
        Path(registered.given["fixed"]),
        path,
        Path(origin) if origin else None,
        comment=comment_of(str(registered.verdict)),
        names=names,
    )
    segments = read_dicom_file(path, "segmentation").SegmentSequence
    return path, {str(one.SegmentLabel): int(one.SegmentNumber) for one in segments}


def write_registration(registered: RegistrationResult, folder: Path) -> Path:
    """Write the field as Deformable Spatial Registration; return its file.

    Raises:
        RequestError: When one of the series has no frame of reference.
    """
    RegistrationWriter(folder, ["dicom"]).write_fields(folder, registered)
    if not (path := folder / REGISTRATION).is_file():
        raise RequestError(
            "one of the series has no frame of reference (0020,0052), so no DICOM registration can relate them; ask "
            "for another format."
        )
    describe_file(path, OBJECTS["registration"], comment_of(str(registered.verdict)), _header(registered))
    return path


def _header(registered: RegistrationResult) -> Any:
    """The header of a file of the fixed series."""
    place = Path(registered.given["fixed"])
    file = dicom_series(place, "fixed image")[0] if place.is_dir() else place
    return read_dicom_file(file, "fixed image")
