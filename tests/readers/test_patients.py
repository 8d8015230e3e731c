"""When two series are of two patients."""

from __future__ import annotations

from typing import Any

import pytest

from monai_regplugins.readers.patients import patients_differ

JANE = {"PatientID": "P 17", "PatientName": "Doe^Jane", "PatientBirthDate": "19700131"}
OTHERS = {
    "id": ({**JANE, "PatientID": "P 18"}, "PatientID"),
    "id in lower case": ({**JANE, "PatientID": "p 17"}, "PatientID"),
    "name": ({**JANE, "PatientName": "Doe^John"}, "PatientName"),
    "family and given name exchanged": ({**JANE, "PatientName": "Jane^Doe"}, "PatientName"),
    "ideographs": ({**JANE, "PatientName": "Doe^Jane=山田^花子"}, "PatientName"),
    "birth date": ({**JANE, "PatientBirthDate": "19700113"}, "PatientBirthDate"),
    "two": ({**JANE, "PatientID": "1", "PatientBirthDate": "19700113"}, "PatientID and PatientBirthDate"),
    "all": (
        {"PatientID": "1", "PatientName": "Roe", "PatientBirthDate": "19500101"},
        "PatientID, PatientName and PatientBirthDate",
    ),
}
SAME: dict[str, Any] = {
    "equal": JANE,
    "no DICOM series": None,
    "nothing stated": {},
    "empty": {"PatientID": "", "PatientName": "", "PatientBirthDate": ""},
    "padded": {"PatientID": " P 17 ", "PatientName": "Doe ^ Jane ^^", "PatientBirthDate": "19700131 "},
    "upper case": {"PatientName": "DOE^JANE"},
    "wide letters": {"PatientName": "Ｄｏｅ^Ｊａｎｅ"},  # noqa: RUF001
    "a group more": {"PatientName": "Doe^Jane=山田^太郎=やまだ^たろう"},
    "other groups only": {"PatientName": "=山田^太郎"},
    "an old date": {"PatientBirthDate": "1970.01.31"},
    "unreadable": {"PatientName": "D\ufffde^Jane"},
}


@pytest.mark.parametrize("case", OTHERS)
def test_other_patients(case: str) -> None:
    other, expected = OTHERS[case]
    jane = {**JANE, "PatientName": "Doe^Jane=山田^太郎"} if case == "ideographs" else JANE
    assert patients_differ(jane, other) == patients_differ(other, jane) == expected


@pytest.mark.parametrize("case", SAME)
def test_the_same_patient(case: str) -> None:
    assert patients_differ(JANE, SAME[case]) == patients_differ(SAME[case], JANE) == ""


def test_composed_and_decomposed_letters_and_narrow_katakana_are_the_same() -> None:
    assert patients_differ({"PatientName": "Müller"}, {"PatientName": "Mu\u0308ller"}) == ""
    assert patients_differ({"PatientName": "ﾔﾏﾀﾞ^ﾀﾛｳ"}, {"PatientName": "ヤマダ^タロウ"}) == ""
    assert patients_differ({"PatientName": "Müller"}, {"PatientName": "Muller"}) == "PatientName"
