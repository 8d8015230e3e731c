"""What DICOM objects say of themselves; the application's test has the objects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from dicom_series import write_volume

from monai_regplugins.apps.deploy.tags import OBJECTS, check_tags, comment_of, describe, describe_file
from monai_regplugins.checks import InputError


def test_defaults_and_changes() -> None:
    assert check_tags({}) == OBJECTS
    changed = check_tags({"segmentation": {"SeriesNumber": 7, "ImageComments": "größer"}})
    assert changed["registration"] == OBJECTS["registration"]
    assert changed["segmentation"] == {**OBJECTS["segmentation"], "SeriesNumber": 7, "ImageComments": "größer"}


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"labels": {}}, "'labels' under 'tags' is no mapping for one of registration, segmentation"),
        ({"registration": "text"}, "'registration' under 'tags' is no mapping"),
        ({"registration": {"SeriesDescripton": "x"}}, "no keyword 'SeriesDescripton'.*'SeriesDescription'"),
        ({"registration": {"PatientID": "7"}}, "may not set PatientID"),
        ({"segmentation": {"SOPInstanceUID": "1.2"}}, "may not set SOPInstanceUID"),
        ({"segmentation": {"Rows": 3}}, "may not set Rows"),
        ({"segmentation": {"SegmentSequence": []}}, "may not set SegmentSequence"),
        ({"segmentation": {"SeriesNumber": "many"}}, "sets SeriesNumber to 'many', which DICOM refuses"),
        ({"segmentation": {"SeriesDate": "June"}}, "sets SeriesDate to 'June', which DICOM refuses"),
        ({"segmentation": {"SeriesDescription": "x" * 65}}, "which DICOM refuses"),
    ],
)
def test_refused(tags: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_tags(tags)


def test_description_of_an_object() -> None:
    dataset = pydicom.Dataset()
    describe(dataset, {"SeriesDescription": "mine", "SeriesTime": "101112"}, comment_of("FAIL: " + 2000 * "x"))
    assert (dataset.SeriesDescription, dataset.SeriesTime) == ("mine", "101112")
    assert dataset.SeriesDate == dataset.ContentDate == dataset.InstanceCreationDate
    assert dataset.CommentsOnThePerformedProcedureStep.startswith("Verdict on the registration: FAIL: xxx")
    assert len(dataset.CommentsOnThePerformedProcedureStep) == 1024
    describe(bare := pydicom.Dataset(), {}, "")
    assert "CommentsOnThePerformedProcedureStep" not in bare


@pytest.mark.parametrize(
    ("fixed", "laterality"),
    [({}, ""), ({"BodyPartExamined": "CHEST"}, None), ({"BodyPartExamined": "KNEE", "Laterality": "L"}, "L")],
)
def test_the_body_part_is_that_of_the_fixed_image(
    tmp_path: Path, fixed: dict[str, str], laterality: str | None
) -> None:
    write_volume(tmp_path, np.zeros((4, 4, 1), np.int16), np.eye(4), Laterality="")
    (file,) = tmp_path.iterdir()
    header = pydicom.Dataset()
    for keyword, value in fixed.items():
        setattr(header, keyword, value)
    describe_file(file, {}, "seen", header)
    written = pydicom.dcmread(file)
    assert written.get("Laterality") == laterality
    assert written.get("BodyPartExamined") == fixed.get("BodyPartExamined")
    assert written.CommentsOnThePerformedProcedureStep == "seen"
