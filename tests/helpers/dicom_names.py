"""Names in the character sets of DICOM: PS3.3 C.12.1.1.2, tables C.12-2 to C.12-5, all that pydicom encodes."""

from __future__ import annotations

__all__ = ["CHARACTER_SETS", "EXAMPLES"]

WORDS = {
    100: "Müller^Jérôme",
    101: "Dvořák^Łukasz",
    109: "Ċensu^Ġużeppi",
    110: "Bērziņš^Ģirts",
    126: "Παπαδόπουλος^Διονύσιος",
    127: "قباني^لنزار",
    138: "שרון^דבורה",
    144: "Жуковский^Илья",
    148: "Çavuşoğlu^İnan",
    166: "นามสกุล^ชื่อ",
    13: "ﾔﾏﾀﾞ^ﾀﾛｳ",
}
CHARACTER_SETS = {
    **{f"ISO_IR {register}": name for register, name in WORDS.items()},
    "ISO_IR 192": "Müller^Ana=山田^太郎=やまだ^たろう",
    "GB18030": "Wang^XiaoDong=王^小东",
    "GBK": "Wang^XiaoDong=王^小东",
    **{f"ISO 2022 IR 6\\ISO 2022 IR {register}": f"Doe^Jane={name}" for register, name in WORDS.items()},
    **{f"ISO 2022 IR 100\\ISO 2022 IR {n}": f"Müller^Ana={name}" for n, name in WORDS.items() if n != 100},
    "\\ISO 2022 IR 87": "Haruno^Shun=春野^俊=はるの^しゅん",
    "\\ISO 2022 IR 87\\ISO 2022 IR 159": "Inoue^Tae=井上^妙丂",
    "ISO 2022 IR 13\\ISO 2022 IR 87": "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう",
    "ISO 2022 IR 13\\ISO 2022 IR 87\\ISO 2022 IR 159": "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^丂",
    "\\ISO 2022 IR 149": "Hong^Gildong=洪^吉洞=홍^길동",
    "\\ISO 2022 IR 58": "Zhang^XiaoDong=张^小东",
    "ISO 2022 IR 100\\ISO 2022 IR 87\\ISO 2022 IR 149\\ISO 2022 IR 144": "Müller^Ana=山田^홍=Иван",
}
# PS3.5, annexes H (Japanese), I (Korean), J (Chinese, UTF-8 and GB18030), K (Chinese, GB 2312); PS3.5 6.2.1.2
EXAMPLES = {
    "H.3-1": (
        "\\ISO 2022 IR 87",
        b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
        "Yamada^Tarou=山田^太郎=やまだ^たろう",
    ),
    "H.3-2": (
        "ISO 2022 IR 13\\ISO 2022 IR 87",
        b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J=\x1b$B$d$^$@\x1b(J^\x1b$B$?$m$&\x1b(J",
        "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう",
    ),
    "I.2": (
        "\\ISO 2022 IR 149",
        b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
        "Hong^Gildong=洪^吉洞=홍^길동",
    ),
    "J.3": ("ISO_IR 192", b"Wang^XiaoDong=\xe7\x8e\x8b^\xe5\xb0\x8f\xe6\x9d\xb1=", "Wang^XiaoDong=王^小東="),
    "J.4": ("GB18030", b"Wang^XiaoDong=\xcd\xf5^\xd0\xa1\xb6\xab=", "Wang^XiaoDong=王^小东="),
    "K.2": (
        "\\ISO 2022 IR 58",
        b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab=",
        "Zhang^XiaoDong=张^小东=",
    ),
    "Latin": ("ISO_IR 100", b"Buc^J\xe9r\xf4me", "Buc^Jérôme"),
    "Greek": ("ISO_IR 126", b"\xc4\xe9\xef\xed\xf5\xf3\xe9\xef\xf2", "Διονυσιος"),
    "Russian": ("ISO_IR 144", b"\xbb\xee\xda\xe1\xd5\xdc\xd1\xe3\xe0\xd3", "Люксембург"),
}
