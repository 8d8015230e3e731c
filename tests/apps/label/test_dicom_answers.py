"""Answers as DICOM objects; the tests of the datastore have those of a real server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from dicom_pairs import SeriesPair, field_of, make_series_pair, make_shift_bundle
from dicom_series import SERIES
from label_store import FakeDatastore

from monai_regplugins.apps.label.answers import Answers
from monai_regplugins.apps.label.dicom_answers import check_label, check_series
from monai_regplugins.apps.label.labels import LabelNames
from monai_regplugins.apps.label.networks import LabelBundle, Networks
from monai_regplugins.apps.label.requests import RequestError
from monai_regplugins.apps.label.store import Store
from monai_regplugins.checks import InputError


def ask(repository: Path, pair: SeriesPair, folder: Path, **params: Any) -> tuple[str, dict[str, Any]]:
    """Ask for the field between the two series."""
    datastore = FakeDatastore({role: next(pair.folder.glob(f"*/{role}")) for role in ("fixed", "moving")})
    bundle = LabelBundle(make_shift_bundle(repository / "bundles" / "ran", folder / "bundles"), folder / "trained")
    answers = Answers(bundle, Store(lambda: datastore), Networks(), LabelNames(), 10**6)
    wanted = {"image_id": "fixed", "moving_image": "moving", "initial_alignment": "none", "device": "cpu"}
    return answers("transform", {**wanted, "format": "dicom", **params})


@pytest.mark.bundle
def test_a_registration(repository: Path, tmp_path: Path) -> None:
    pair = make_series_pair(tmp_path / "pair", "sagittal", "oblong")
    file, reported = ask(repository, pair, tmp_path)
    written = pydicom.dcmread(file)
    assert (reported["registration"]["format"], Path(file).suffix) == ("dicom", ".dcm")
    assert written.StudyInstanceUID == f"{SERIES}.1.1"
    assert written.CommentsOnThePerformedProcedureStep.startswith(f"Verdict on the registration: {reported['verdict']}")
    assert (written.SeriesNumber, written.BodyPartExamined) == (9001, "ABDOMEN")
    point = pair.fixed[:3, :3] @ (4.2, 7.0, 9.9) + pair.fixed[:3, 3]
    np.testing.assert_allclose(np.subtract(field_of(written).TransformPoint(point), point), pair.shift, atol=1e-4)


@pytest.mark.bundle
@pytest.mark.parametrize(
    ("tags", "params", "message"),
    [
        ({"moving_FrameOfReferenceUID": None}, {}, "one of the series has no frame of reference"),
        ({"moving_PatientID": "P 18"}, {}, "are of two patients by their PatientID"),
        ({}, {"other_patient": "perhaps"}, "other_patient is 'perhaps', expected true or false"),
    ],
)
def test_what_is_refused(
    repository: Path, tmp_path: Path, tags: dict[str, Any], params: dict[str, Any], message: str
) -> None:
    pair = make_series_pair(tmp_path / "pair", "axial", "square", **tags)
    with pytest.raises(InputError, match=message):
        ask(repository, pair, tmp_path, **params)


def test_an_image_that_is_no_series(tmp_path: Path) -> None:
    (tmp_path / "scan.nii.gz").write_bytes(b"no DICOM file, but long enough for its mark" * 5)
    for check in (
        lambda: check_label(str(tmp_path / "scan.nii.gz"), ""),
        lambda: check_series({"the image": str(tmp_path), "the moving image": str(tmp_path / "scan.nii.gz")}),
    ):
        with pytest.raises(RequestError, match="image is no DICOM series, so there is no patient and no study"):
            check()
    check_series({"the image": str(tmp_path)})
