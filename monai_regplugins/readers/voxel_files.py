"""MetaImage and NRRD headers with separate voxel files: find these files and check that they may be read.

A header comes with the data, and a reader opens what it names: any file that the user may read would be taken for
voxels. So the files have to lie in the header's own folder, under plain names.

Source: MetaIO, https://itk.org/Wiki/MetaIO/Documentation (``ElementDataFile``: ``LOCAL``, a name, ``LIST`` or a
pattern), and NRRD, https://teem.sourceforge.net/nrrd/format.html (``data file``). Headers that the two libraries would
accept in other ways than these describe are refused.
"""

from __future__ import annotations

import gzip
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from monai_regplugins.checks import InputError, import_optional

__all__ = ["VoxelFiles", "check_gzip_end", "check_inflated", "check_no_other_file", "check_own_values", "voxel_files"]

LONGEST_HEADER = 2**20  # bytes
MOST_FILES = 2**16
LONGEST_NAME = 255  # bytes
PIECE = 2**16  # compressed bytes that are inflated at once, to 64 MiB at most
AS_ZLIB_OR_GZIP = 47  # window bits for zlib, as MetaIO has them
META_FIELD = re.compile(rb"[^\S\r\n]*([^\s=:][^=:\r\0]*?)[^\S\r\n]*[=:][^\S\r\n]*([^\r\0]*?)\s*")
META_LOCAL = (b"LOCAL", b"Local", b"local")
NRRD_LINE = re.compile(rb"\r\n|\r|\n")
NRRD_DATA_FILE = re.compile(rb"data ?file: *(.*)", re.IGNORECASE)
NRRD_RAW = re.compile(rb"encoding: *raw *", re.IGNORECASE)
PATTERN = re.compile(r"([^%]*%(?:0?\d{1,2})?d[^%]*)\s+(-?\d+)\s+(-?\d+)\s+(-?\d+)(?:\s+\d+)?")
PLAIN_NAME = re.compile(r"(?!\.{1,2}$|-$)[^\s/\\:%\x00-\x1f\x7f](?:[^/\\:%\x00-\x1f\x7f]*[^\s/\\:%\x00-\x1f\x7f])?")


class VoxelFiles(NamedTuple):
    """Where the voxels of an image are.

    Attributes:
        files: the files, in their order; the header's own alone if they lie in it.
        raw: whether they are stored as they are, not compressed or as text.
        start: byte of the first file where they begin, as far as it matters.
        deflated: ``CompressedDataSize`` of a compressed MetaImage, 0 if it has none; else None.
    """

    files: list[Path]
    raw: bool
    start: int = 0
    deflated: int | None = None


class _Named(NamedTuple):
    """What a header says: the value of its field, None if the voxels follow; the lines after it; the storage.

    ``start`` and ``deflated`` are those of :class:`VoxelFiles`.
    """

    value: bytes | None
    rest: bytes
    raw: bool
    start: int = 0
    deflated: int | None = None


def voxel_files(header: Path, name: str) -> VoxelFiles:
    """Return the files that hold the voxels of an image.

    Args:
        header: an existing file; only ``.mhd``, ``.mha``, ``.nhdr`` and ``.nrrd`` can name others.
        name: of the image, for messages, e.g. ``"fixed image 'scan.mhd'"``.

    Raises:
        InputError: When the header cannot be read, or names a file by more than a plain name, or one that is missing,
            no regular file, or a link out of the folder.

    Example:
        >>> voxel_files(Path("scan.nii.gz"), "image").files == [Path("scan.nii.gz")]
        True
    """
    parse = _PARSERS.get(header.suffix.lower())
    if parse is None:
        return VoxelFiles([header], header.suffix.lower() == ".nii")
    named = parse(_beginning(header), name)
    if named.value is None:
        return VoxelFiles([header], named.raw, named.start, named.deflated)
    folder = header.parent
    files = [_beside(folder, text, name) for text in _names(named, name)]
    return VoxelFiles(files, named.raw, deflated=named.deflated)


def check_inflated(voxels: VoxelFiles, promised: int, name: str) -> None:
    """Check that the compressed voxels of a MetaImage are as many bytes as its header states; ITK fills up with zeros.

    Args:
        voxels: what :func:`voxel_files` has found.
        promised: bytes by size and number type.
        name: of the image, for messages.

    Raises:
        InputError: When they are not, or the header does not state the size of what is compressed.
    """
    if voxels.deflated is None:
        return
    try:
        held = sum(_inflated(voxels.files[0], voxels.start, voxels.deflated))
    except zlib.error as error:
        raise _unreadable(name, "MetaImage", f"{promised} bytes of compressed voxels") from error
    if held != promised:
        raise InputError(
            f"{name} has a header of {promised} bytes of voxels, but the {voxels.deflated} compressed bytes that it "
            f"declares (CompressedDataSize) hold {held}; it is damaged, so copy or export it again."
        )


def _inflated(file: Path, start: int, size: int) -> Iterator[int]:
    """The number of bytes in each piece of a file that is inflated, of so many compressed ones."""
    inflate = zlib.decompressobj(AS_ZLIB_OR_GZIP)
    with file.open("rb") as stream:
        stream.seek(start)
        while size > 0 and (piece := stream.read(min(size, PIECE))):
            size -= len(piece)
            yield len(inflate.decompress(piece))


def check_gzip_end(file: Path, promised: int, name: str) -> None:
    """Check that a gzip file is not cut short, if possible by its end alone.

    Its last four bytes state how many bytes it holds, modulo 2^32 (RFC 1952, section 2.3.1). Where they state another
    number than expected, the file is inflated, for it may consist of several parts or hold more.

    Args:
        file: compressed.
        promised: bytes by the header of the image in it.
        name: of the image, for messages.

    Raises:
        InputError: When it holds fewer bytes.
    """
    with file.open("rb") as stream:
        stream.seek(-4, os.SEEK_END)
        stated = int.from_bytes(stream.read(4), "little")
    if stated != promised % 2**32 and (held := _held(file, promised)) < promised:
        raise InputError(
            f"{name} cannot be read as an image, its header declares {promised} bytes but the file inflates to {held}; "
            "it is cut short or damaged, so copy or download it again."
        )


def _held(file: Path, enough: int) -> int:
    """The number of bytes that a gzip file inflates to before it ends or is damaged, counted until there are enough."""
    held = 0
    try:
        with gzip.open(file) as stream:
            while held < enough and (piece := stream.read(PIECE)):
                held += len(piece)
    except (EOFError, OSError, zlib.error):
        return held
    return held


def check_no_other_file(header: Path, name: str) -> None:
    """Check that an image is contained in a single file, as required for uploads.

    Raises:
        InputError: When the header names other files, whether there are any or not, or cannot be read.
    """
    parse = _PARSERS.get(header.suffix.lower())
    if parse is not None and (value := parse(_beginning(header), name).value) is not None:
        raise InputError(
            f"{name} is a header whose voxels lie in another file, {_shown(value)}; send it as one file (.nii.gz, "
            ".nrrd or .mha)."
        )


def check_own_values(file: Any, places: Iterable[str], path: Path) -> None:
    """Check that values of an open HDF5 file are its own: links and foreign storage would open any other file.

    Args:
        file: of h5py.
        places: names of the values.
        path: of the file.

    Raises:
        InputError: When a link or a data set leads to another file.
    """
    h5py = import_optional("h5py", "HDF5 files", "h5py>=3.8")
    listed = list(places)
    steps = {"/".join(place.split("/")[:k]) for place in listed for k in range(1, place.count("/") + 2)}
    own = all(isinstance(file.get(step, getlink=True), h5py.HardLink) for step in sorted(steps))
    if not own or any(file[place].external or file[place].is_virtual for place in listed):
        raise InputError(f"'{path}' leads to other files, expected a field of its own; export it as one file.")


def _beginning(header: Path) -> bytes:
    with header.open("rb") as stream:
        return stream.read(LONGEST_HEADER)


def _parse_meta(content: bytes, name: str) -> _Named:
    """Read a MetaImage header, one ``key = value`` in each line, up to ``ElementDataFile``, which ends it."""
    raw, size = True, 0
    position = 0
    while (end := content.find(b"\n", position)) >= 0 or position < len(content):
        line = content[position : end if end >= 0 else None]
        position = end + 1 if end >= 0 else len(content)
        field = META_FIELD.fullmatch(line.removesuffix(b"\r"))
        if field is None and line.strip():
            break
        key, value = field.groups() if field else (b"", b"")
        raw = raw and not (key == b"CompressedData" and value[:1] in b"TtYy1")
        size = int(value) if key == b"CompressedDataSize" and value.isdigit() else size
        if key == b"ElementDataFile":
            deflated = None if raw else size
            return _Named(None if value in META_LOCAL else value, content[position:], raw, position, deflated)
    raise _unreadable(name, "MetaImage", "a line 'ElementDataFile = ...' after lines 'key = value'")


def _parse_nrrd(content: bytes, name: str) -> _Named:
    """Read a NRRD header, which ends with an empty line, or with ``data file: LIST``."""
    raw, value, position = False, None, 0
    if not content.startswith(b"NRRD"):
        raise _unreadable(name, "NRRD", "NRRD at its beginning")
    for end in NRRD_LINE.finditer(content + b"\n"):
        line, position = content[position : end.start()], end.end()
        raw = raw or NRRD_RAW.fullmatch(line) is not None
        if found := NRRD_DATA_FILE.fullmatch(line):
            value = found[1]
        if not line or (value or b"").startswith(b"LIST"):
            return _Named(value, content[position:], raw)
    if len(content) == LONGEST_HEADER:
        raise _unreadable(name, "NRRD", f"an end of the header within {LONGEST_HEADER} bytes")
    return _Named(value, b"", raw)


_PARSERS: dict[str, Callable[[bytes, str], _Named]] = {
    ".mhd": _parse_meta,
    ".mha": _parse_meta,
    ".nhdr": _parse_nrrd,
    ".nrrd": _parse_nrrd,
}


def _names(named: _Named, name: str) -> Iterable[str]:
    """The names that a header's field stands for: one, those listed below it, or those of a pattern with numbers."""
    value = (named.value or b"").decode("utf-8", "surrogateescape")
    if value.startswith("LIST"):
        lines = NRRD_LINE.split(named.rest)[:MOST_FILES]
        return [line.decode("utf-8", "surrogateescape").rstrip() for line in lines if line.strip()]
    if "%" not in value:
        return [value]
    found = PATTERN.fullmatch(value)
    first, last, step = (int(number) for number in found.groups()[1:]) if found else (0, 0, 0)
    if found is None or step == 0 or not 0 <= (last - first) // step < MOST_FILES:
        raise InputError(
            f"{name} names {_shown(value.encode('utf-8', 'surrogateescape'))} as the files of its voxels, expected a "
            "pattern such as 'slice%03d.raw 1 120 1' (first, last, step); list the names instead."
        )
    return [found[1] % number for number in range(first, last + (1 if step > 0 else -1), step)]


def _beside(folder: Path, text: str, name: str) -> Path:
    """The file of a plain name in the header's folder."""
    shown = _shown(text.encode("utf-8", "surrogateescape"))
    if not PLAIN_NAME.fullmatch(text):
        raise InputError(
            f"{name} names {shown} as the file of its voxels, expected a plain name in the header's own folder; put "
            "the file beside the header and write its name alone."
        )
    file = folder / text
    if len(text.encode("utf-8", "surrogateescape")) > LONGEST_NAME:
        raise InputError(f"{name} names {shown} ... as the file of its voxels, a name too long for one; correct it.")
    if file.resolve().parent != folder.resolve():
        raise InputError(
            f"{name} names {shown} as the file of its voxels, a link out of the header's folder; put the file itself "
            "beside the header."
        )
    if not file.is_file():
        state = "no regular file" if file.exists() else "not there"
        raise InputError(
            f"{name} names {shown} as the file of its voxels, which is {state}; copy both files into one folder."
        )
    return file


def _shown(value: bytes) -> str:
    """A name from a header, for a message of one line."""
    return repr(value[:100].decode("utf-8", "replace"))


def _unreadable(name: str, kind: str, expected: str) -> InputError:
    return InputError(
        f"{name} cannot be read as an image, expected {kind} with {expected}; it is damaged or something else, so copy "
        "or export it again."
    )
