"""Which DICOM files belong together, and what their tags hold."""

from __future__ import annotations

import resource
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_series import SERIES, write_slice, write_volume

from monai_regplugins.checks import InputError
from monai_regplugins.readers.dicom_files import (
    check_length,
    dicom_files,
    dicom_reader,
    dicom_series,
    dicom_tags,
    is_dicom,
    tag_number,
    tag_numbers,
)

STORED = np.random.default_rng(0).integers(-50, 900, (7, 6, 3)).astype(np.int16)


def tags_of(file: Path) -> dict[str, str]:
    return dicom_tags(dicom_reader(file, "image"))


def test_tags_are_those_of_pydicom(tmp_path: Path) -> None:
    (file, *_) = write_volume(tmp_path, STORED, np.diag([1.5, 2.0, 4.0, 1.0]), SpecificCharacterSet="ISO_IR 100")
    found, data = tags_of(file), pydicom.dcmread(file)
    for tag, keyword in (
        ("0010|0020", "PatientID"),
        ("0020|000e", "SeriesInstanceUID"),
        ("0008|103e", "SeriesDescription"),
    ):
        assert found[tag] == str(data[keyword].value)
    assert tag_numbers(found, "0020|0032") == [float(x) for x in data.ImagePositionPatient]
    assert tag_number(found, "0028|0010", -1) == data.Rows


def test_numbers_of_a_tag() -> None:
    tags = {"a": "1.5\\-2e3", "b": "7", "c": "1\\x", "d": "nan", "e": ""}
    assert tag_numbers(tags, "a") == [1.5, -2000.0]
    assert [tag_numbers(tags, tag) for tag in "cdef"] == [[], [], [], []]
    assert [tag_number(tags, tag, 3.0) for tag in "abcf"] == [3.0, 7.0, 3.0, 3.0]


def test_files_of_a_series(tmp_path: Path) -> None:
    files = write_volume(tmp_path, STORED, np.eye(4))
    write_slice(tmp_path / "other.dcm", STORED[0], SOPInstanceUID="1.2.9", SeriesInstanceUID=f"{SERIES}.8")
    assert set(dicom_files(tmp_path, SERIES)) == set(files)
    assert dicom_files(tmp_path, f"{SERIES}.8") == [tmp_path / "other.dcm"]
    assert dicom_files(tmp_path, "") == dicom_files(tmp_path, "1.2.3") == []


def test_a_damaged_file_matters_to_its_own_series_alone(tmp_path: Path) -> None:
    files = write_volume(tmp_path, STORED, np.eye(4))
    damaged = write_slice(tmp_path / "x.dcm", STORED[0], SOPInstanceUID="1.2.9", SeriesInstanceUID=f"{SERIES}8")
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert set(dicom_series(tmp_path, "folder")) == set(files)
    files[1].write_bytes(files[1].read_bytes()[:-1])
    with pytest.raises(InputError, match=f"{files[1].name}' is damaged and may be of the DICOM series"):
        dicom_series(tmp_path, "folder")


def test_many_series_are_listed_in_part(tmp_path: Path) -> None:
    for number in range(7):
        about = {"SOPInstanceUID": f"1.2.{number}", "SeriesInstanceUID": f"1.3.{number}"}
        write_slice(tmp_path / f"{number}.dcm", STORED[0], SeriesDescription=f"scan\r\n{number}", **about)
    with pytest.raises(
        InputError, match=r"^series 'x' .* holds 7 DICOM series \('scan \d': 1 file as .*, \.\.\.\)"
    ) as error:
        dicom_series(tmp_path, "series 'x'")
    assert str(error.value).count("1 file as") == 5
    assert "\n" not in str(error.value)


def test_a_folder_without_a_series(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(InputError, match=r"^folder 'x' is a folder that holds no DICOM series and no film; give"):
        dicom_series(tmp_path, "folder 'x'", " and no film")


def test_a_file_that_is_no_dicom(tmp_path: Path) -> None:
    (tmp_path / "notes.dcm").write_text("nothing")
    with pytest.raises(InputError, match=r"fixed image '.*notes.dcm' cannot be read as an image"):
        dicom_reader(tmp_path / "notes.dcm", "fixed image")


def test_a_header_that_promises_too_much(tmp_path: Path) -> None:
    (file, *_) = write_volume(tmp_path, STORED, np.eye(4))
    check_length(file, tags_of(file), "image")
    data = pydicom.dcmread(file)
    data.Columns = 2000
    data.save_as(file)
    with pytest.raises(InputError, match="image has a header of 6 x 2000 pixels, more than the file holds"):
        check_length(file, tags_of(file), "image")


def test_what_is_stored_otherwise_or_tells_another_series_is_no_slice(tmp_path: Path) -> None:
    files = write_volume(tmp_path, STORED, np.eye(4))
    for number, change in enumerate(("no pixels", "other series")):
        data = pydicom.dcmread(files[0])
        if change == "no pixels":  # as a report that refers to the series
            data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.88.22"
            del data.PixelData, data.Rows, data.Columns
        else:
            data.SeriesInstanceUID = "1.2.3"
        data.save_as(tmp_path / f"other{number}.dcm")
    whole = (tmp_path / "other1.dcm").read_bytes()
    (tmp_path / "other1.dcm").write_bytes(whole[:-2])
    assert set(dicom_series(tmp_path, "folder")) == set(files)
    (tmp_path / "other1.dcm").write_bytes(whole[:200])  # cut before it names its series
    with pytest.raises(InputError, match=r"other1.dcm' is damaged and may be of the DICOM series"):
        dicom_series(tmp_path, "folder")


@pytest.mark.parametrize("place", ["value", "pixels"])
def test_a_length_beyond_the_file_takes_no_memory(tmp_path: Path, place: str) -> None:
    (file, *_) = write_volume(tmp_path, STORED, np.eye(4))
    content = file.read_bytes()
    if place == "value":  # (0008,103E) LO, made an OB of 4 GB
        start = content.index(b"\x08\x00\x3e\x10LO")
        damaged = content[: start + 4] + b"OB\0\0\0\0\0\xf0" + content[start + 12 :]
    else:
        start = content.index(b"\xe0\x7f\x10\x00OW")
        damaged = content[: start + 8] + b"\0\0\0\xf0" + content[start + 12 :]
    file.write_bytes(damaged)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match="cannot be read as an image"):
        dicom_reader(file, "image")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"])
def test_encodings(tmp_path: Path, syntax: str) -> None:
    """Implicit and explicit little endian, explicit big endian; with a sequence of undefined length."""
    (file, *_) = write_volume(tmp_path, STORED, np.eye(4))
    data = pydicom.dcmread(file)
    code = pydicom.Sequence([pydicom.Dataset()])
    code[0].CodeValue = "T-1"
    code.is_undefined_length = True
    data.ProcedureCodeSequence = code
    data.file_meta.TransferSyntaxUID = syntax
    implicit, little = syntax.endswith(".1.2"), not syntax.endswith(".2.2")
    pydicom.dcmwrite(file, data, implicit_vr=implicit, little_endian=little, force_encoding=True)
    assert tags_of(file)["0010|0020"] == "P 17"
    assert dicom_files(tmp_path, SERIES).count(file) == 1


def test_files_from_before_part_10(tmp_path: Path) -> None:
    (file, *_) = write_volume(tmp_path, STORED, np.eye(4))
    data = pydicom.dcmread(file)
    del data.file_meta, data.preamble
    pydicom.dcmwrite(tmp_path / "old", data, implicit_vr=True, little_endian=True)
    assert (tmp_path / "old").read_bytes().startswith(b"\x08\x00")
    assert tags_of(tmp_path / "old")["0010|0020"] == "P 17"
    assert dicom_files(tmp_path, SERIES).count(tmp_path / "old") == 1


def test_dicom_is_known_by_its_first_bytes(tmp_path: Path) -> None:
    for content, expected in {b"\0" * 128 + b"DICM": True, b"\0" * 200: False, b"": False}.items():
        (tmp_path / "file").write_bytes(content)
        assert is_dicom(tmp_path / "file") is expected
