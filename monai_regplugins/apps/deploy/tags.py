"""What the written DICOM objects say of themselves: description, date, number, verdict, and tags of the settings."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from monai_regplugins.checks import InputError, suggest
from monai_regplugins.files.atomic import replace_file
from monai_regplugins.io.dicom_identity import PATIENT_AND_STUDY, import_pydicom, read_dicom_file

__all__ = ["OBJECTS", "check_tags", "comment_of", "describe", "describe_file"]

OBJECTS: dict[str, dict[str, Any]] = {  # what they say unless the settings state it otherwise
    "registration": {"SeriesDescription": "Deformable registration", "SeriesNumber": 9001},
    "segmentation": {"SeriesDescription": "Labels carried over by registration", "SeriesNumber": 9002},
}
KEPT = {*PATIENT_AND_STUDY, "SpecificCharacterSet", "Modality", "NumberOfFrames", "ContentLabel"}
NOT_TEXT = ("UI", "SQ", "OB", "OD", "OF", "OL", "OV", "OW", "UN", "AT")  # kinds of values
LONGEST_COMMENT = 1024  # characters of a short text
COMMENT = "CommentsOnThePerformedProcedureStep"  # of any series, so that both objects can have it


def check_tags(tags: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Check the tags of the settings, and complete them.

    Args:
        tags: value by keyword for ``registration`` and ``segmentation``; either may be missing.

    Returns:
        The same with :data:`OBJECTS`.

    Raises:
        InputError: When an object or a keyword is unknown, a keyword says who or what the object is, or the value is
            none of its kind.
    """
    for name, content in tags.items():
        if name not in OBJECTS or not isinstance(content, Mapping):
            raise InputError(
                f"'{name}' under 'tags' is no mapping for one of {', '.join(OBJECTS)}; write keywords of DICOM and "
                "values below one of these."
            )
        for keyword, value in content.items():
            _check_tag(str(keyword), value)
    return {name: {**default, **tags.get(name, {})} for name, default in OBJECTS.items()}


def _check_tag(keyword: str, value: Any) -> None:
    pydicom = import_pydicom()
    tag = pydicom.datadict.tag_for_keyword(keyword)
    if tag is None:
        raise InputError(
            f"DICOM has no keyword '{keyword}', which 'tags' sets.{suggest(keyword, pydicom.datadict.keyword_dict)}"
        )
    if keyword in KEPT or tag >> 16 in (0x0002, 0x0028) or pydicom.datadict.dictionary_VR(tag) in NOT_TEXT:
        raise InputError(f"'tags' may not set {keyword}, which says who or what the object is; leave it out.")
    try:
        element = pydicom.DataElement(
            tag, pydicom.datadict.dictionary_VR(tag), value, validation_mode=pydicom.config.RAISE
        )
        stream = pydicom.filebase.DicomBytesIO()
        stream.is_little_endian, stream.is_implicit_VR = True, False
        pydicom.filewriter.write_data_element(stream, element, ["utf_8"])
    except Exception as error:  # pydicom raises anything on a value that is none
        reason = " ".join(str(error).split())
        raise InputError(f"'tags' sets {keyword} to {value!r}, which DICOM refuses ({reason}); correct it.") from error


def describe(dataset: Any, tags: Mapping[str, Any], comment: str) -> None:
    """Give an object its tags, the time of this call, and a comment.

    Args:
        dataset: ``pydicom.Dataset`` in UTF-8, changed.
        tags: value by keyword; they come last.
        comment: such as the verdict.
    """
    now = datetime.now()
    for kind in ("Series", "Content", "InstanceCreation"):
        setattr(dataset, f"{kind}Date", now.strftime("%Y%m%d"))
        setattr(dataset, f"{kind}Time", now.strftime("%H%M%S"))
    if comment:
        setattr(dataset, COMMENT, comment)
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)


def describe_file(path: Path, tags: Mapping[str, Any], comment: str, fixed: Any) -> None:
    """The same for a registration that is written already, which also gets the body part of the fixed image.

    Args:
        path: its file.
        tags: as of :func:`describe`.
        comment: likewise.
        fixed: header of the fixed image, ``pydicom.Dataset``, or an empty mapping.
    """
    dataset = read_dicom_file(path, "object")
    if part := fixed.get("BodyPartExamined"):
        dataset.BodyPartExamined = part
        del dataset.Laterality  # empty means unknown, which is true of a body part that has two sides only
        if "Laterality" in fixed:
            dataset.Laterality = fixed.Laterality
    describe(dataset, tags, comment)
    replace_file(path, dataset.save_as)


def comment_of(verdict: str) -> str:
    """The verdict as a comment of an object.

    Example:
        >>> comment_of("PASS")
        'Verdict on the registration: PASS'
    """
    return f"Verdict on the registration: {verdict}"[:LONGEST_COMMENT]
