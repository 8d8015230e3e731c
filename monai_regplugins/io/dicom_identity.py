"""DICOM identity of an image grid; optional import of pydicom."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

from monai_regplugins.checks import InputError, check_file, import_optional
from monai_regplugins.readers.dicom_text import UNREADABLE, decode_text

__all__ = [
    "PATIENT_AND_STUDY",
    "DicomIdentity",
    "check_texts",
    "decode_texts",
    "import_pydicom",
    "read_dicom_file",
    "save_dicom",
]

PATIENT_AND_STUDY = (  # keywords of what a new object shares with the others of its study
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)

UTF_8 = "ISO_IR 192"
TEXTS = ("LO", "LT", "PN", "SH", "ST", "UC", "UT")  # kinds of values that a character set matters to


@dataclass(frozen=True)
class DicomIdentity:
    """DICOM series that a grid belongs to; empty attributes are unknown.

    Attributes:
        frame_of_reference_uid: the coordinate system of the series.
        study_instance_uid: its study.
        series_instance_uid: the series itself.
        instances: SOP class UID and SOP instance UID of each of its files.
        patient_and_study: values by the keywords of ``PATIENT_AND_STUDY``.
    """

    frame_of_reference_uid: str = ""
    study_instance_uid: str = ""
    series_instance_uid: str = ""
    instances: tuple[tuple[str, str], ...] = ()
    patient_and_study: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_keywords(cls, texts: Mapping[str, str]) -> DicomIdentity:
        r"""Collect an identity from texts by DICOM keyword, such as ``StudyInstanceUID`` and ``PatientName``.

        Args:
            texts: of one series; ``SOPInstanceUID`` names all its files, with backslashes in between, as DICOM writes
                several values. What is missing or empty is unknown.
        """
        files = [uid for uid in texts.get("SOPInstanceUID", "").split("\\") if uid]
        sop_class = texts.get("SOPClassUID", "")
        return cls(
            frame_of_reference_uid=texts.get("FrameOfReferenceUID", ""),
            study_instance_uid=texts.get("StudyInstanceUID", ""),
            series_instance_uid=texts.get("SeriesInstanceUID", ""),
            instances=tuple((sop_class, uid) for uid in files) if sop_class else (),
            patient_and_study={keyword: texts[keyword] for keyword in PATIENT_AND_STUDY if texts.get(keyword)},
        )


def check_texts(texts: Mapping[str, str], whose: str) -> None:
    """Check that texts could be read, so that they may be written.

    Args:
        texts: by DICOM keyword, from :func:`~monai_regplugins.readers.dicom_text.decode_text`.
        whose: for the message, e.g. ``"the DICOM series of the fixed image"``.

    Raises:
        InputError: When one could not.
    """
    if unread := [keyword for keyword, text in texts.items() if UNREADABLE in text]:
        raise InputError(
            f"{', '.join(unread)} of {whose} cannot be read in its character set (0008,0005), so that no DICOM object "
            "can hold it; correct SpecificCharacterSet in its files, or write no DICOM object."
        )


def decode_texts(dataset: Any) -> None:
    """Decode all texts of a ``pydicom.Dataset`` that was read from a file, so that it writes them in UTF-8.

    Args:
        dataset: it is changed. Where a text cannot be read, it holds
            :data:`~monai_regplugins.readers.dicom_text.UNREADABLE`.
    """
    _decode(import_pydicom().datadict, dataset, "")
    dataset.SpecificCharacterSet = UTF_8


def _decode(dictionary: Any, dataset: Any, charset: str) -> None:
    """Decode the texts of a data set; its items have its character set, unless they have their own."""
    if "SpecificCharacterSet" in dataset:
        sets = dataset.SpecificCharacterSet or ""
        charset = sets if isinstance(sets, str) else "\\".join(sets)
        del dataset.SpecificCharacterSet
    for tag in list(dataset.keys()):
        element = dataset.get_item(tag)
        kind = element.VR or (dictionary.dictionary_VR(tag) if dictionary.dictionary_has_tag(tag) else "UN")
        if kind == "SQ":
            for item in dataset[tag].value:
                _decode(dictionary, item, charset)
        elif kind in TEXTS and isinstance(element.value, bytes):
            dataset.add_new(tag, kind, decode_text(element.value, charset, kind == "PN").strip(" \0"))


def read_dicom_file(path: str | Path, what: str) -> Any:
    """Read a DICOM file as a ``pydicom.FileDataset``.

    Raises:
        InputError: When pydicom is missing, or the file is missing, damaged or no DICOM file.
    """
    pydicom = import_pydicom()
    file = check_file(path, what)
    try:
        return pydicom.dcmread(file)
    except Exception as error:  # pydicom raises anything on a damaged file
        raise InputError(f"{what} '{path}' cannot be read as DICOM; copy or export it again.") from error


def import_pydicom() -> Any:
    """Import pydicom, an optional dependency.

    Raises:
        InputError: When it is missing, or older than 2.4, the one of MONAI Label.
    """
    pydicom = import_optional("pydicom", "DICOM registrations", REQUIREMENT)
    if _version(pydicom) < (2, 4):
        raise InputError(
            f"pydicom is of version {pydicom.__version__}, expected 2.4 or later; pip install '{REQUIREMENT}'."
        )
    return pydicom


def save_dicom(dataset: Any, target: Path | BytesIO) -> None:
    """Write a ``pydicom.Dataset`` as a whole file, in explicit little endian as its file meta information has to say.

    Args:
        dataset: with ``file_meta``.
        target: where it goes.

    Raises:
        TypeError, ValueError: When it holds what DICOM refuses.
    """
    if _version(import_pydicom()) >= (3, 0):
        dataset.save_as(target, enforce_file_format=True)
    else:
        dataset.is_little_endian, dataset.is_implicit_VR = True, False
        dataset.save_as(target, write_like_original=False)


def _version(pydicom: Any) -> tuple[int, ...]:
    """Major and minor number."""
    return tuple(map(int, pydicom.__version__.split(".")[:2]))


REQUIREMENT = "pydicom>=3"
