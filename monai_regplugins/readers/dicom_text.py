"""Decode DICOM texts in all character sets of the standard: PS3.3 C.12.1.1.2, PS3.5 6.1.2, annexes H to K.

Python's codecs know each set, but not the escape sequences that DICOM switches between them by. Of these, pydicom 3.0
leaves those of ISO 2022 IR 58 in the text, misses that each component of a name begins in the first set, and knows no
Latin-9; and it may be missing where a name is to be compared.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["UNREADABLE", "decode_text"]

UNREADABLE = "\ufffd"  # stands for bytes that are of no text, and in no text that can be read

ISO_8859 = {  # by the number in the register of ISO: the part of ISO 8859, and how the escape sequence ends
    "100": (1, b"A"),
    "101": (2, b"B"),
    "109": (3, b"C"),
    "110": (4, b"D"),
    "126": (7, b"F"),
    "127": (6, b"G"),
    "138": (8, b"H"),
    "144": (5, b"L"),
    "148": (9, b"M"),
    "166": (11, b"T"),
    "203": (15, b"b"),
}
WHOLE = {"192": "utf_8", "18030": "gb18030", "GBK": "gbk"}  # without code extensions
UPPER = {  # what bytes from 128 on are, by how the defined term ends
    **{register: f"iso8859_{part}" for register, (part, _) in ISO_8859.items()},
    **{"13": "shift_jis", "58": "gb2312", "149": "euc_kr"},
    **dict.fromkeys(("", "6", "87", "159"), "ascii"),  # none: ASCII has 7 bits, as the halves of a kanji have
}
UPPER_ESCAPES = {  # PS3.3, tables C.12-3 and C.12-4
    **{b"-" + final: f"iso8859_{part}" for part, final in ISO_8859.values()},
    **{b")I": "shift_jis", b"$)A": "gb2312", b"$)C": "euc_kr"},
}
LOWER_ESCAPES = {b"(B": b"", b"(J": b"", b"$B": b"\x1b$B", b"$(D": b"\x1b$(D"}  # as iso2022_jp_2 takes them
PARTS = re.compile(rb"\x1b([\x20-\x2f]*[\x30-\x7e]?)|([^\x1b\x80-\xff]+)|([\x80-\xff]+)")
TERM = re.compile(r"(GBK|\d*)$")
ENDS_OF_LINE, ENDS_OF_COMPONENT = b"\t\n\f\r\\", b"^="


def decode_text(raw: bytes, charset: str = "", name: bool = False) -> str:
    r"""Decode the value of a text.

    Args:
        raw: its bytes.
        charset: the data set's Specific Character Set, with backslashes in between if it has several values.
        name: whether it is of a person, VR PN, where each component begins in the first set.

    Returns:
        The text. Bytes that are none in these sets are taken for UTF-8; what is none either, for ``UNREADABLE``.

    Example:
        >>> decode_text(b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B", "\\ISO 2022 IR 87", name=True)
        'Yamada^Tarou=山田^太郎'
    """
    if raw.isascii() and b"\x1b" not in raw:
        return raw.decode("ascii")
    terms = [TERM.findall(term.strip())[0] for term in charset.split("\\")]
    try:
        text = raw.decode(WHOLE[terms[0]]) if terms[0] in WHOLE else _decode_parts(raw, _first_upper(terms), name)
    except (LookupError, UnicodeError):
        text = raw.decode("utf_8", "replace")
    return text.replace("\x1b", UNREADABLE)


def _first_upper(terms: Sequence[str]) -> str:
    """What bytes from 128 on are without an escape: of the first set, or where that has none, of the next that has."""
    codecs = [UPPER[term] for term in terms]
    return next((codec for codec in codecs if codec != "ascii"), "ascii")


def _decode_parts(raw: bytes, first: str, name: bool) -> str:
    """Decode a text with code extensions: bytes below and from 128 on have a set each, until escapes select others.

    Raises:
        UnicodeError: When bytes are of no character.
        LookupError: When an escape sequence is none of DICOM's.
    """
    ends = ENDS_OF_LINE + ENDS_OF_COMPONENT if name else ENDS_OF_LINE
    lower, upper, text = b"", first, ""
    for escape, low, high in PARTS.findall(raw):
        if low:
            text += (lower + low).decode("iso2022_jp_2")
            if not lower and any(byte in ends for byte in low):
                upper = first
        elif high:
            text += high.decode(upper)
        elif escape in UPPER_ESCAPES:  # pydicom returns from kanji to Latin letters by these, too
            upper, lower = UPPER_ESCAPES[escape], b""
        else:
            lower = LOWER_ESCAPES[escape]
    return text
