"""The files of a pair: what is to be known of them afterwards, and the room that results need."""

from __future__ import annotations

import hashlib
import math
import shutil
from pathlib import Path
from typing import Any

from monai_regplugins.checks import InputError
from monai_regplugins.files.folders import files_in
from monai_regplugins.io.dicom_identity import read_dicom_file
from monai_regplugins.io.provenance import digest_of
from monai_regplugins.readers.dicom_files import dicom_files, is_dicom
from monai_regplugins.readers.images import scan_shape

__all__ = ["check_room", "header_of", "source_of"]

UIDS = ("StudyInstanceUID", "SeriesInstanceUID")
PER_VOXEL = 24  # bytes: a field and two images on the fixed grid, and the field once more for what is done with it


def source_of(path: Path) -> dict[str, Any]:
    """What an image was read from.

    Args:
        path: a file, a file of a DICOM series, which stands for the series, or the folder of one.

    Returns:
        ``StudyInstanceUID`` and ``SeriesInstanceUID`` of DICOM, ``files``, their number, ``bytes``, and ``sha256``: of
        one file its own, of several that of the sorted digests, one a line.
    """
    header = header_of(path)
    files = _files(path, header)
    digests = sorted(map(digest_of, files))
    together = digests[0] if len(files) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()
    return {
        **{uid: str(header[uid].value) for uid in UIDS if uid in header},
        "files": len(files),
        "bytes": sum(file.stat().st_size for file in files),
        "sha256": together,
    }


def header_of(path: Path) -> Any:
    """The header of an image's first file as ``pydicom.Dataset``; an empty mapping if that is no DICOM file."""
    first = min(files_in(path), default=path) if path.is_dir() else path
    return read_dicom_file(first, "image") if first.is_file() and is_dicom(first) else {}


def _files(path: Path, header: Any) -> list[Path]:
    """All files that an image consists of."""
    if path.is_dir():
        return files_in(path)
    return dicom_files(path.parent, str(header.get("SeriesInstanceUID", ""))) or [path]


def check_room(output_folder: Path, fixed: Path) -> None:
    """Check, before two images are registered, that there is room for the results.

    Args:
        output_folder: where they go; it need not be there yet.
        fixed: the fixed image, as of :func:`source_of`.

    Raises:
        InputError: When there is none.
    """
    place = next(folder for folder in (output_folder, *output_folder.absolute().parents) if folder.is_dir())
    needed, free = PER_VOXEL * _voxels(fixed), shutil.disk_usage(place).free
    if needed > free:
        raise InputError(
            f"the results need about {needed / 1e6:.0f} MB, and '{place}' has {free / 1e6:.0f} MB left; free some "
            "space or give another output folder."
        )


def _voxels(path: Path) -> int:
    """Number of voxels of an image, by its headers."""
    if shape := scan_shape(path, "fixed image"):
        return math.prod(shape)
    header = header_of(path)
    frames = int(header.get("NumberOfFrames") or 1)
    return int(header.get("Rows", 0)) * int(header.get("Columns", 0)) * frames * len(_files(path, header))
