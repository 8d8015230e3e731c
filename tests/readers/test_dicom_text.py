"""The standard's own examples byte for byte, and pydicom's encoding of texts in each character set."""

from __future__ import annotations

import pytest
from dicom_names import CHARACTER_SETS, EXAMPLES
from pydicom.charset import convert_encodings, encode_string
from pydicom.valuerep import PersonName
from pydicom.values import convert_PN

from monai_regplugins.readers.dicom_text import UNREADABLE, decode_text


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_of_the_standard(example: str) -> None:
    charset, raw, text = EXAMPLES[example]
    assert decode_text(raw, charset, name=True) == text


@pytest.mark.parametrize("charset", CHARACTER_SETS)
def test_what_pydicom_encodes(charset: str) -> None:
    name = CHARACTER_SETS[charset]
    encodings = convert_encodings(charset.split("\\"))
    raw = PersonName(name, encodings).encode(encodings)
    assert not raw.isascii() or b"\x1b" in raw
    assert decode_text(raw, charset, name=True) == name
    value = name.split("=")[-1].split("^")[0]
    assert decode_text(encode_string(value, encodings), charset) == value


@pytest.mark.parametrize("charset", sorted(set(CHARACTER_SETS) - {"\\ISO 2022 IR 58"}))  # whose escapes pydicom keeps
def test_what_pydicom_decodes(charset: str) -> None:
    encodings = convert_encodings(charset.split("\\"))
    raw = PersonName(CHARACTER_SETS[charset], encodings).encode(encodings)
    assert decode_text(raw, charset, name=True) == CHARACTER_SETS[charset] == str(convert_PN(raw, encodings))


def test_all_characters_of_the_sets_of_single_bytes() -> None:
    for register in (100, 101, 109, 110, 126, 127, 138, 144, 148, 166, 13):
        (codec,) = convert_encodings(f"ISO_IR {register}")
        for byte in range(0xA1, 0xE0 if register == 13 else 0x100):
            raw = bytes([byte])
            assert decode_text(raw, f"ISO_IR {register}") == decode_text(raw, f"ISO 2022 IR {register}\\ISO 2022 IR 87")
            assert decode_text(raw, f"ISO_IR {register}") == raw.decode(codec, "replace")


def test_kanji_may_hold_the_bytes_of_delimiters() -> None:
    raw = b"=\x1b$B=U\x1b(B^\x1b$B=S0^\x1b(B"  # 3D and 5E are = and ^ in ASCII
    assert decode_text(raw, "\\ISO 2022 IR 87", name=True) == "=春^俊緯"
    assert decode_text(b"\x81\x5c^\x81\x5e", "GB18030", name=True) == "乗^乛"


def test_each_component_of_a_name_begins_in_the_first_set() -> None:
    russian = b"\x1b-L" + "Иван".encode("iso8859_5")
    latin = "Jürgen".encode("latin_1")
    sets = "ISO 2022 IR 100\\ISO 2022 IR 144"
    assert decode_text(russian + b"^" + latin + b"=" + latin, sets, name=True) == "Иван^Jürgen=Jürgen"
    assert decode_text(russian + b"\r\n" + latin, sets) == "Иван\r\nJürgen"
    assert decode_text(russian + b"^\xb8", sets) == "Иван^И"  # no delimiter outside of names


def test_latin_9_single_and_as_extension() -> None:
    assert decode_text(b"C\xbdur", "ISO_IR 203") == "Cœur"
    assert decode_text(b"C\x1b-b\xbdur", "ISO 2022 IR 6\\ISO 2022 IR 203") == "Cœur"


@pytest.mark.parametrize("charset", ["ISO-IR 100", "ISO 2022 IR 100", "ISO_IR 100 "])
def test_common_misspellings(charset: str) -> None:
    assert decode_text(b"M\xfcller", charset) == "Müller"


def test_utf_8_without_a_character_set_is_read_and_other_bytes_are_told() -> None:
    assert decode_text("Müller".encode()) == "Müller"
    for raw, charset in (
        (b"M\xfcller", ""),
        (b"M\xfcller", "ISO_IR 6"),
        (b"M\xfcller", "ISO_IR 999"),
        (b"M\xfcller", "ISO_IR 192"),
        (b"\xff\xff", "\\ISO 2022 IR 149"),
        (b"M\x1b", "ISO_IR 100"),
        (b"M\x1bZller", "ISO 2022 IR 100\\ISO 2022 IR 87"),
        (b"M\x1b$B;3\x1b(B", "ISO_IR 192"),
    ):
        assert UNREADABLE in decode_text(raw, charset), (raw, charset)
        assert "\x1b" not in decode_text(raw, charset)
