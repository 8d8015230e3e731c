"""Pairs of DICOM series that are refused before they are registered, and what is written of others."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_series import SERIES, write_volume

from monai_regplugins.checks import InputError
from monai_regplugins.data.dicom_pair import CheckSeriesPaird
from monai_regplugins.transforms.load import LoadPaird

STORED = np.random.default_rng(0).integers(-50, 900, (7, 6, 5)).astype(np.int16)


def pair_of(folder: Path, fixed: dict[str, Any], moving: dict[str, Any]) -> dict[Any, Any]:
    """Two loaded series with other tags each."""
    for role, tags in {"fixed": fixed, "moving": moving}.items():
        write_volume(folder / role, STORED, np.eye(4), SeriesInstanceUID=f"{SERIES}.{len(role)}", **tags)
    return LoadPaird()({role: folder / role for role in ("fixed", "moving")})


def test_two_patients_are_refused_unless_they_are_allowed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pair = pair_of(tmp_path, {"PatientBirthDate": "19700131"}, {"PatientBirthDate": "19810405"})
    with pytest.raises(InputError, match=r"are of two patients by their PatientBirthDate, .* other_patient=True"):
        CheckSeriesPaird()(pair)
    with caplog.at_level(logging.WARNING):
        assert CheckSeriesPaird(other_patient=True)(pair) == pair
    assert "are of two patients by their PatientBirthDate, which other_patient allows" in caplog.text
    assert "19700131" not in caplog.text


def test_one_patient_and_images_without_one_pass_silently(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pair = pair_of(tmp_path, {"PatientName": "Doe^Jane"}, {"PatientName": "DOE^JANE^^^", "PatientID": None})
    plain = {role: np.asarray(pair[role]) for role in ("fixed", "moving")}
    for formats in ((), "all", ["itk_nifti", "dicom"], "dicom"):
        assert CheckSeriesPaird(formats=formats)(pair) == pair
        CheckSeriesPaird(formats=formats)(LoadPaird()(plain))
    assert not caplog.records


def test_without_pydicom_a_dicom_field_is_refused_before_the_registration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = pair_of(tmp_path, {}, {})
    monkeypatch.setitem(sys.modules, "pydicom", None)
    for formats in ("dicom", ["itk_nifti", "dicom"]):
        with pytest.raises(InputError, match="DICOM registrations need pydicom, which is missing"):
            CheckSeriesPaird(formats=formats)(pair)
    for formats in ((), "all", ["itk_nifti"]):
        CheckSeriesPaird(formats=formats)(pair)


def test_an_unreadable_name_is_refused_before_the_registration_if_it_was_to_be_written(tmp_path: Path) -> None:
    pair = pair_of(tmp_path, {"PatientName": "M\ufffdller", "SpecificCharacterSet": "ISO_IR 192"}, {"PatientName": ""})
    for formats in ((), "all", ["itk_nifti"]):
        CheckSeriesPaird(formats=formats)(pair)
    with pytest.raises(InputError, match="PatientName of the DICOM series of the fixed image cannot be read in its"):
        CheckSeriesPaird(formats=["native", "dicom"])(pair)


def test_a_missing_frame_of_reference_is_no_reason_to_refuse(tmp_path: Path) -> None:
    pair = pair_of(tmp_path, {"FrameOfReferenceUID": None}, {})
    assert CheckSeriesPaird(formats="dicom")(pair) == pair
