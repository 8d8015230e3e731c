"""Comparison of the patients of two DICOM series by the rules of DICOM."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping

from monai_regplugins.readers.dicom_text import UNREADABLE

__all__ = ["patients_differ"]


def patients_differ(fixed: Mapping[str, str] | None, moving: Mapping[str, str] | None) -> str:
    """Return by which attributes two series are of different patients.

    Of PatientID, letters count (PS3.4 C.2.2.2.1); of names, neither case nor width, nor empty components at the end. A
    name may be written in Latin letters, ideographs and by sound; those that both series have are compared. What a
    series does not state, or in no readable way, is no difference.

    Args:
        fixed: the identity of the fixed image's series, see
            :func:`~monai_regplugins.readers.dicom_series.series_of`; None for an image that is no DICOM series.
        moving: the same of the moving image.

    Returns:
        Such as ``"PatientID and PatientName"``, without their values; ``""`` if nothing differs.

    Example:
        >>> patients_differ({"PatientName": "DOE^JANE"}, {"PatientName": "Doe^Jane^^", "PatientID": "17"})
        ''
        >>> patients_differ({"PatientID": "17"}, {"PatientID": "18"})
        'PatientID'
    """
    differing = [keyword for keyword, parts_of in _PARTS.items() if _differ(parts_of, keyword, fixed, moving)]
    return " and ".join(filter(None, (", ".join(differing[:-1]), *differing[-1:])))


def _differ(
    parts_of: Callable[[str], list[str]],
    keyword: str,
    fixed: Mapping[str, str] | None,
    moving: Mapping[str, str] | None,
) -> bool:
    """Whether an attribute has a part that both series state differently."""
    texts = [(series or {}).get(keyword, "") for series in (fixed, moving)]
    if texts[0] == texts[1]:
        return False
    parts = zip(*map(parts_of, texts), strict=False)
    return any(a != b for a, b in parts if a and b and UNREADABLE not in a + b)


def _name_groups(name: str) -> list[str]:
    """The groups of a person's name: alphabetic, ideographic, phonetic."""
    groups = [unicodedata.normalize("NFKC", group).casefold() for group in name.split("=")]
    return ["^".join(part.strip() for part in group.split("^")).rstrip("^") for group in groups]


_PARTS: dict[str, Callable[[str], list[str]]] = {
    "PatientID": lambda text: [text.strip()],
    "PatientName": _name_groups,
    "PatientBirthDate": lambda text: [text.strip().replace(".", "")],  # with dots before DICOM 3.0
}
