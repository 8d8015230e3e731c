"""What a file is that is no image of a known format: by its first bytes, or by its name."""

from __future__ import annotations

import zlib
from pathlib import Path

__all__ = ["FORMATS", "kind_of"]

FORMATS = "NIfTI, NRRD, MetaImage, MGH, TIFF, OME-Zarr, PNG or DICOM"
CONVERT = f"convert it to one of {FORMATS}"
BEGINNINGS = {
    b"PK\x03\x04": ("a ZIP archive", "unpack it"),
    b"Rar!": ("a RAR archive", "unpack it"),
    b"7z\xbc\xaf\x27\x1c": ("a 7-Zip archive", "unpack it"),
    b"\x28\xb5\x2f\xfd": ("a Zstandard file", "unpack it"),
    b"BZh": ("a bzip2 file", "unpack it"),
    b"\xfd7zXZ": ("an xz file", "unpack it"),
    b"\x93NUMPY": ("a NumPy array", "give it as an array in Python, or save it as NIfTI"),
    b"\x89HDF": ("an HDF5 file (MINC, MATLAB, Imaris and others)", CONVERT),
    b"CDF": ("a NetCDF file (MINC)", CONVERT),
    b"MATLAB": ("a MATLAB file", CONVERT),
    b"# vtk": ("a VTK file", CONVERT),
    b"ZISRAW": ("a CZI file of ZEISS", CONVERT),
    b"MATRIX": ("an ECAT file", CONVERT),
    b"%PDF": ("a PDF document", "give the image itself"),
    b"GIF8": ("a GIF picture", CONVERT),
    b"<!DOCTYPE": ("a web page", "download the file itself"),
    b"<html": ("a web page", "download the file itself"),
    b"version https://git-lfs": ("a pointer of Git LFS", "fetch the file itself (git lfs pull)"),
    b"/annex/": ("a pointer of git-annex", "fetch the file itself (git annex get)"),
}
NAMES = {
    ".hdr": ("the header of an Analyze or NIfTI pair", "save it as one file, .nii.gz"),
    ".img": ("the voxels of an Analyze or NIfTI pair", "save it as one file, .nii.gz"),
    ".par": ("a header of Philips", CONVERT),
    ".rec": ("voxels of Philips", CONVERT),
    ".head": ("a header of AFNI", CONVERT),
    ".brik": ("voxels of AFNI", CONVERT),
    ".gipl": ("a GIPL file", CONVERT),
    ".raw": ("voxels without a header", "write a header (.mhd or .nhdr) beside it and give that"),
}
TAR, TAR_AT = b"ustar", 257
NIFTI, NIFTI_AT = (b"n+1\0", b"n+2\0"), (4, 344)
GZIP, LONGEST = b"\x1f\x8b", 4096


def kind_of(file: Path) -> str:
    """What a file is and what to do, as the end of a message.

    Args:
        file: one that cannot be read as an image.

    Example:
        >>> import tempfile
        >>> page = Path(tempfile.mkdtemp(), "scan.nii.gz")
        >>> _ = page.write_text("<!DOCTYPE html>")
        >>> kind_of(page)
        'it is a web page, so download the file itself'
    """
    kind, advice = _about(file)
    return f"it is {kind}, so {advice}"


def _about(file: Path) -> tuple[str, str]:
    """A file's kind, and what to do with it."""
    head = _beginning(file)
    if head[TAR_AT : TAR_AT + len(TAR)] == TAR:
        return "a tar archive", "unpack it"
    for beginning, known in BEGINNINGS.items():
        if head.lower().startswith(beginning.lower()):
            return known
    if any(head[at : at + 4] in NIFTI for at in NIFTI_AT):
        return _nifti_by_content(file)
    suffix = Path(file.name.lower().removesuffix(".gz")).suffix
    return NAMES.get(suffix, ("damaged or something else", "copy or download it again"))


def _nifti_by_content(file: Path) -> tuple[str, str]:
    """A NIfTI file by its content, whose name may say another thing."""
    with file.open("rb") as stream:
        compressed = stream.read(len(GZIP)) == GZIP
    state, suffix = ("compressed ", ".nii.gz") if compressed else ("", ".nii")
    if file.name.lower().endswith(suffix):
        return f"a {state}NIfTI file that is damaged", "copy or download it again"
    return f"a {state}NIfTI file", f"name it {suffix}"


def _beginning(file: Path) -> bytes:
    """The first bytes of a file, or of what it holds compressed."""
    with file.open("rb") as stream:
        head = stream.read(LONGEST)
    if not head.startswith(GZIP):
        return head
    try:
        return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(head, LONGEST) or head
    except zlib.error:
        return head
