"""Identities of DICOM series, and pydicom where it is missing."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from monai_regplugins.checks import InputError
from monai_regplugins.io.dicom_identity import DicomIdentity, import_pydicom, read_dicom_file

TEXTS = {
    "FrameOfReferenceUID": "1.2.3",
    "StudyInstanceUID": "1.2.4",
    "SeriesInstanceUID": "1.2.5",
    "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2",
    "SOPInstanceUID": "1.2.5.1\\1.2.5.2",
    "PatientName": "Doe^Jane",
    "PatientSex": "",
    "RescaleType": "HU",
}


def test_identity_of_texts() -> None:
    instances = (("1.2.840.10008.5.1.4.1.1.2", "1.2.5.1"), ("1.2.840.10008.5.1.4.1.1.2", "1.2.5.2"))
    expected = DicomIdentity("1.2.3", "1.2.4", "1.2.5", instances, {"PatientName": "Doe^Jane"})
    assert DicomIdentity.from_keywords(TEXTS) == expected


def test_what_is_missing_is_unknown() -> None:
    assert DicomIdentity.from_keywords({}) == DicomIdentity()
    assert DicomIdentity.from_keywords({**TEXTS, "SOPInstanceUID": ""}).instances == ()
    assert DicomIdentity.from_keywords({**TEXTS, "SOPClassUID": ""}).instances == ()


def test_other_files_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("pydicom", reason="needs pydicom")
    (tmp_path / "text").write_text("no DICOM file")
    with pytest.raises(InputError, match=r"displacement field '.*text' cannot be read as DICOM"):
        read_dicom_file(tmp_path / "text", "displacement field")
    with pytest.raises(InputError, match="does not exist"):
        read_dicom_file(tmp_path / "missing", "displacement field")


def test_missing_or_old_pydicom_is_an_input_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(InputError, match="need pydicom, which is missing; install it with: pip install"):
        import_pydicom()
    monkeypatch.setitem(sys.modules, "pydicom", SimpleNamespace(__version__="2.4.5"))
    with pytest.raises(InputError, match=r"version 2\.4\.5, expected 3 or later; install it with: pip install"):
        import_pydicom()
