"""Files of DICOM series: grouping into series, tags, and completeness checks."""

from __future__ import annotations

import hashlib
import logging
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from monai_regplugins.checks import InputError
from monai_regplugins.files.folders import files_in
from monai_regplugins.readers.dicom_text import decode_text
from monai_regplugins.readers.kinds import kind_of

if TYPE_CHECKING:
    import SimpleITK as sitk

__all__ = [
    "COLUMNS",
    "INSTANCE_UID",
    "ROWS",
    "SERIES_UID",
    "check_length",
    "dicom_files",
    "dicom_reader",
    "dicom_series",
    "dicom_tags",
    "is_dicom",
    "tag_number",
    "tag_numbers",
    "without_copies",
]

SERIES_UID, INSTANCE_UID, DESCRIPTION = "0020|000e", "0008|0018", "0008|103e"
PLACE = ("0020|0032", "0020|0037", "0028|0030")  # position, orientation and pixel spacing of a slice
SLOPE, INTERCEPT = "0028|1053", "0028|1052"  # of the rescaled value over the stored one
ROWS, COLUMNS, BITS_ALLOCATED = "0028|0010", "0028|0011", "0028|0100"
STORAGE_CLASS, TRANSFER_SYNTAX, SERIES_TAG = b"\x02\x00\x02\x00", b"\x02\x00\x10\x00", b"\x20\x00\x0e\x00"
DICOM_SUFFIXES = (".dcm", ".ima")
UNCOMPRESSED = ("", "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")
OTHER_ENCODINGS = ("1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99")  # big endian, deflated
WITHOUT_PREAMBLE = b"\x02\x00", b"\x08\x00"  # first groups of files from before DICOM part 10
PIXEL_DATA, UNDEFINED = b"\xe0\x7f\x10\x00", b"\xff\xff\xff\xff"
LONG_VALUES = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
COMPRESSION, COMPRESSED_SLICE = 1000, 2**27  # largest ratio that is believed, and the bytes that any file may take
CHARACTER_SET = "0008|0005"
PERSON_NAMES = ("0010|0010", "0008|0090")  # of patient and referring physician
logger = logging.getLogger(__name__)

HEAD = 4096  # bytes; the file meta information and the identifiers take less
LISTED = 5  # series that a message lists


def is_dicom(path: Path) -> bool:
    """Whether this is a DICOM file, by its first bytes."""
    with path.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def dicom_series(folder: Path, name: str, instead: str = "") -> list[Path]:
    """Files of the only series of images in a folder.

    Args:
        folder: other files in it do not matter.
        name: of the folder, for messages, e.g. ``"fixed image 'scan'"``.
        instead: what was looked for before, for the message when there is no series, e.g. ``" and no NIfTI file"``.

    Raises:
        InputError: When there is no series or more than one, or a file of the series is damaged.
    """
    found, others = _images(folder)
    if not found:
        raise InputError(
            f"{name} is a folder that holds no DICOM series{instead}; give the path of an image file, or of the folder "
            "of one series."
        )
    if len(found) > 1:
        listed = ", ".join(_describe(series, files) for series, files in list(found.items())[:LISTED])
        more = ", ..." if len(found) > LISTED else ""
        raise InputError(
            f"{name} is a folder that holds {len(found)} DICOM series ({listed}{more}), expected one; give the path of "
            "a file of the one that is meant."
        )
    series, files = found.popitem()
    _check_damaged(series, files, others)
    return files


def dicom_files(folder: Path, series: str) -> list[Path]:
    """Files in a folder of the series with this unique identifier, none for ``""``.

    Raises:
        InputError: When a file of the series is damaged.
    """
    if not series:
        return []
    found, others = _images(folder)
    files = found.get(series, [])
    _check_damaged(series, files, others)
    return files


def dicom_reader(file: Path, what: str, expected: str = "NIfTI or DICOM") -> sitk.ImageFileReader:
    """A reader that has read the header of an image.

    Args:
        file: the file.
        what: what it is, for the message.
        expected: the formats that the caller takes, likewise.

    Raises:
        InputError: When the file is no DICOM image.
    """
    import SimpleITK as sitk  # 95 MB of memory, so only where it is used

    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(file))
    try:
        if not _is_sound(file):
            raise RuntimeError("an element ends behind the end of the file")
        reader.ReadImageInformation()
    except (RuntimeError, OSError) as error:
        raise InputError(
            f"{what} '{file}' cannot be read as an image, expected {expected}; {kind_of(file)}."
        ) from error
    return reader


def dicom_tags(reader: sitk.ImageFileReader) -> dict[str, str]:
    """The tags of an image as texts, by ``"gggg|eeee"``; what cannot be decoded is ``UNREADABLE``."""
    raw = {key: reader.GetMetaData(key).encode(errors="surrogateescape") for key in reader.GetMetaDataKeys()}
    charset = raw.get(CHARACTER_SET, b"").decode("ascii", "replace")
    return {key: decode_text(value, charset, key in PERSON_NAMES).strip() for key, value in raw.items()}


def tag_numbers(tags: Mapping[str, str], tag: str) -> list[float]:
    """The finite numbers that a tag holds, with backslashes in between; none if it is missing or anything else."""
    try:
        numbers = [float(number) for number in tags.get(tag, "").split("\\")]
    except ValueError:
        return []
    return numbers if all(math.isfinite(number) for number in numbers) else []


def tag_number(tags: Mapping[str, str], tag: str, default: float) -> float:
    """The one number that a tag holds, or ``default``."""
    numbers = tag_numbers(tags, tag)
    return numbers[0] if len(numbers) == 1 else default


def check_length(file: Path, tags: Mapping[str, str], name: str) -> None:
    """Check that a file is as long as its pixels, or compressed; GDCM makes up those that it lacks.

    Raises:
        InputError: When it is shorter.
    """
    held = file.stat().st_size
    if _identifier(_head(file), TRANSFER_SYNTAX) not in UNCOMPRESSED:
        held = max(COMPRESSED_SLICE, COMPRESSION * held)
    rows, columns, bits = (int(tag_number(tags, tag, 0)) for tag in (ROWS, COLUMNS, BITS_ALLOCATED))
    if rows * columns * bits // 8 > held:
        raise InputError(
            f"{name} has a header of {rows} x {columns} pixels, more than the file holds; it is cut short or damaged, "
            "so copy or export it again."
        )


def without_copies(files: Sequence[Path], tags_of: Sequence[Mapping[str, str]], name: str) -> list[int]:
    """Leave out the files that hold an instance again, as downloads and backups leave them (``IM003 (1).dcm``).

    Args:
        files: of a series.
        tags_of: their tags.
        name: of the series, for messages.

    Returns:
        The indices of those that count, in their order; of copies the one of the shortest name.

    Raises:
        InputError: When two files have one SOP instance UID and other contents.
    """
    by_instance: dict[str, list[int]] = {}
    for index, (file, tags) in enumerate(zip(files, tags_of, strict=True)):
        unnamed = hashlib.sha256(file.read_bytes()).hexdigest() if not tags.get(INSTANCE_UID) else ""
        by_instance.setdefault(tags.get(INSTANCE_UID) or unnamed, []).append(index)
    kept = []
    for group in by_instance.values():
        first, *others = sorted(group, key=lambda index: (len(files[index].name), files[index].name))
        for other in others:
            if not _hold_the_same((files[first], files[other]), (tags_of[first], tags_of[other])):
                raise InputError(
                    f"{name} holds two files of one instance that differ, '{files[first].name}' and "
                    f"'{files[other].name}' (SOP instance UID {tags_of[first].get(INSTANCE_UID)}); keep the right one."
                )
        kept.append(first)
    if left := len(files) - len(kept):
        logger.info("%s holds %d files of instances that are there already; each counts once.", name, left)
    return sorted(kept)


def _hold_the_same(files: tuple[Path, Path], tags: tuple[Mapping[str, str], Mapping[str, str]]) -> bool:
    """Whether two files hold the same slice: byte for byte, or its place and its pixels."""
    import SimpleITK as sitk  # 95 MB of memory, so only where it is used

    if files[0].read_bytes() == files[1].read_bytes():
        return True
    if any(tags[0].get(tag) != tags[1].get(tag) for tag in PLACE):
        return False
    try:
        first, second = (sitk.ReadImage(str(file), imageIO="GDCMImageIO") for file in files)
    except RuntimeError:  # reported when the pixels are read
        return False
    pixels = sitk.GetArrayViewFromImage(first), sitk.GetArrayViewFromImage(second)
    return np.array_equal(*pixels)


def _images(folder: Path) -> tuple[dict[str, list[Path]], list[Path]]:
    """The images in a folder by the identifier of their series, and the DICOM files that hold none or are damaged."""
    found: dict[str, list[Path]] = {}
    others = []
    for file in files_in(folder):
        head = _head(file)
        named = file.suffix.lower() in DICOM_SUFFIXES
        if not named and not head.startswith(WITHOUT_PREAMBLE) and head[128:132] != b"DICM":
            continue
        try:
            reader = dicom_reader(file, "file")
        except InputError:
            others.append(file)
        else:
            series = reader.GetMetaData(SERIES_UID).strip() if reader.HasMetaDataKey(SERIES_UID) else ""
            found.setdefault(series, []).append(file)
    return found, others


def _describe(series: str, files: Sequence[Path]) -> str:
    """``'Chest 5.0 B30': 120 files as IM001.dcm``."""
    words = " ".join(dicom_tags(dicom_reader(files[0], "file")).get(DESCRIPTION, "").split())
    return f"'{words or series}': {len(files)} file{'s' if len(files) > 1 else ''} as {files[0].name}"


def _check_damaged(series: str, files: Sequence[Path], others: Sequence[Path]) -> None:
    """Check that no unreadable file may belong to the series."""
    mentioned = re.compile(rb"(?<![\d.])" + re.escape(series.encode()) + rb"(?![\d.])")
    storage = _identifier(_head(files[0]), STORAGE_CLASS) if files else ""
    for file in others if files else ():
        head = _head(file)
        of_series = bool(mentioned.search(head))
        if _is_sound(file):  # structures, reports and the like mention the series too, but are stored otherwise
            damaged = of_series and _identifier(head, STORAGE_CLASS) == storage
        else:
            damaged = of_series or SERIES_TAG not in head
        if damaged:
            raise InputError(
                f"'{file}' is damaged and may be of the DICOM series beside it; copy or export the series again."
            )


def _is_sound(file: Path) -> bool:
    """Whether the elements of a file end within it, up to its pixels or the first one of undefined length.

    GDCM takes memory for as much as a damaged length claims. Source: DICOM PS3.5, section 7.1.
    """
    size, head = file.stat().st_size, _head(file)
    syntax = _identifier(head, TRANSFER_SYNTAX)
    position = 132 if head[128:132] == b"DICM" else 0
    implicit = syntax == UNCOMPRESSED[1] or not (syntax or head[4:6].isalpha())
    with file.open("rb") as stream:
        while position < size and syntax not in OTHER_ENCODINGS:
            stream.seek(position)
            element = stream.read(12)
            kind, length, header = element[4:6], element[4:8], 8
            if element[:2] == b"\x02\x00" or not implicit:
                length, header = (element[8:12], 12) if kind in LONG_VALUES else (element[6:8], 8)
                if not (kind.isalpha() and kind.isupper()):
                    return False
            position += header + int.from_bytes(length, "little")
            if length == UNDEFINED or element[:4] == PIXEL_DATA:
                return length == UNDEFINED or position <= size
    return position <= size


def _head(file: Path) -> bytes:
    with file.open("rb") as stream:
        return stream.read(HEAD)


def _identifier(head: bytes, tag: bytes) -> str:
    """A unique identifier of the file meta information, whose encoding is the same in all DICOM files, or ``""``."""
    start = head.find(tag + b"UI")
    length = int.from_bytes(head[start + 6 : start + 8], "little")
    return head[start + 8 : start + 8 + length].decode("ascii", "replace").strip("\0 ") if start >= 0 else ""
