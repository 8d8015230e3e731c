"""Identities of DICOM series, and pydicom where it is missing."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from dicom_names import CHARACTER_SETS
from dicom_series import write_volume

from monai_regplugins.checks import InputError
from monai_regplugins.io.dicom_identity import (
    DicomIdentity,
    check_texts,
    decode_texts,
    import_pydicom,
    read_dicom_file,
)

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
    monkeypatch.setitem(sys.modules, "pydicom", SimpleNamespace(__version__="2.3.1"))
    with pytest.raises(InputError, match=r"version 2\.3\.1, expected 2.4 or later; pip install"):
        import_pydicom()


def test_unreadable_texts_are_named() -> None:
    check_texts({"PatientName": "Müller", "StudyID": ""}, "the series")
    with pytest.raises(InputError, match=r"^PatientName of the series cannot be read in its character set") as error:
        check_texts({"PatientName": "M\ufffdller", "StudyID": "1"}, "the series")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1"])
@pytest.mark.parametrize("charset", CHARACTER_SETS)
def test_a_data_set_writes_its_texts_in_utf_8(tmp_path: Path, charset: str, syntax: str) -> None:
    pydicom = pytest.importorskip("pydicom", reason="needs pydicom")
    name = CHARACTER_SETS[charset]
    word = name.split("=")[-1].split("^")[0]
    code, other = pydicom.Dataset(), pydicom.Dataset()
    code.CodeMeaning = word
    other.SpecificCharacterSet, other.CodeMeaning = "ISO_IR 144", "Иван"  # an item may have its own
    (file,) = write_volume(
        tmp_path,
        np.zeros((4, 4, 1), np.int16),
        np.eye(4),
        SpecificCharacterSet=charset.split("\\"),
        PatientName=name,
        StudyDescription=word,
        ProcedureCodeSequence=[code, other],
    )
    data = pydicom.dcmread(file)
    data.add_new(0x00091001, "LO", "of a vendor")
    data.file_meta.TransferSyntaxUID = syntax
    data.save_as(file, implicit_vr=syntax.endswith(".1.2"))
    data = pydicom.dcmread(file)
    decode_texts(data)
    data.save_as(file)
    written = pydicom.dcmread(file)
    assert written.SpecificCharacterSet == "ISO_IR 192"
    assert (str(written.PatientName), written.StudyDescription) == (name, word)
    assert [item.CodeMeaning for item in written.ProcedureCodeSequence] == [word, "Иван"]
    assert written.SeriesDescription == "Chest 5.0"
    assert written.PixelData == data.PixelData
