"""Files that are no images: what the message calls them."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from monai_regplugins.checks import InputError
from monai_regplugins.readers.images import read_scan
from monai_regplugins.readers.kinds import kind_of


def archive(kind: str) -> bytes:
    """An archive of one file, or an array of NumPy."""
    stream = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(stream, "w") as packed:
            packed.writestr("scan.nii", b"1")
    elif kind == "npy":
        np.save(stream, np.zeros(3))
    else:
        with tarfile.open(fileobj=stream, mode="w:gz") as tar:
            tar.addfile(tarfile.TarInfo("scan.nii"))
    return stream.getvalue()


NIFTI = nib.Nifti1Image(np.zeros((2, 2, 2), np.uint8), np.eye(4)).to_bytes()
KINDS = {
    "packed.nii": (gzip.compress(NIFTI), "a compressed NIfTI file, so name it .nii.gz"),
    "plain.nii.gz": (NIFTI, "a NIfTI file, so name it .nii"),
    "plain.dcm": (NIFTI, "a NIfTI file, so name it .nii"),
    "broken.nii": (NIFTI[:70] + b"\x0f\x27" + NIFTI[72:], "a NIfTI file that is damaged, so copy or download it again"),
    "scans.zip": (archive("zip"), "a ZIP archive, so unpack it"),
    "scan.nii.gz": (archive("zip"), "a ZIP archive, so unpack it"),
    "scans.tar.gz": (archive("tar"), "a tar archive, so unpack it"),
    "scan.npy": (archive("npy"), "a NumPy array, so give it as an array in Python"),
    "scan.nii": (b"<!doctype html><html>", "a web page, so download the file itself"),
    "page.nii.gz": (gzip.compress(b"<html><body>404"), "a web page, so download"),
    "scan.mnc": (b"\x89HDF\r\n\x1a\n" + bytes(90), r"an HDF5 file \(MINC"),
    "report.pdf": (b"%PDF-1.7", "a PDF document, so give the image itself"),
    "scan.img": (bytes(500), "the voxels of an Analyze or NIfTI pair, so save it as one file"),
    "pointer.nii": (b"version https://git-lfs.github.com/spec/v1", "a pointer of Git LFS"),
    "scan.raw": (bytes(100), "voxels without a header"),
    "cut.mgz": (gzip.compress(bytes(30)), "damaged or something else, so copy or download it again"),
}


@pytest.mark.parametrize("name", KINDS)
def test_the_message_names_the_kind(tmp_path: Path, name: str) -> None:
    content, words = KINDS[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"it is {words}") as error:
        read_scan(tmp_path / name, "fixed image")
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(f"fixed image '{tmp_path / name}' cannot be read as an image, expected NIfTI")


def test_damaged_compression_is_no_other_kind(tmp_path: Path) -> None:
    (tmp_path / "a.gz").write_bytes(b"\x1f\x8b" + bytes(20))
    assert kind_of(tmp_path / "a.gz") == "it is damaged or something else, so copy or download it again"
