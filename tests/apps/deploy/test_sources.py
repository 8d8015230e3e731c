"""The files of a pair."""

from __future__ import annotations

import hashlib
from collections import namedtuple
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from dicom_series import write_volume

from monai_regplugins.apps.deploy import sources
from monai_regplugins.apps.deploy.sources import check_room, header_of, source_of
from monai_regplugins.checks import InputError

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def nifti(tmp_path: Path) -> Path:
    """An image of 1000 voxels."""
    path = tmp_path / "scan.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((10, 10, 10), np.int16), np.eye(4)), path)
    return path


@pytest.fixture
def series(tmp_path: Path) -> Path:
    """A series of five slices, 20 voxels each, and beside it a file of another kind."""
    write_volume(folder := tmp_path / "series", np.zeros((5, 4, 5), np.int16), np.eye(4), StudyInstanceUID="1.2.3")
    return folder


def test_of_a_file(nifti: Path) -> None:
    digest = hashlib.sha256(nifti.read_bytes()).hexdigest()
    assert source_of(nifti) == {"files": 1, "bytes": nifti.stat().st_size, "sha256": digest}
    assert not header_of(nifti)


def test_of_a_series(series: Path) -> None:
    files = sorted(series.iterdir())
    digests = sorted(hashlib.sha256(file.read_bytes()).hexdigest() for file in files)
    whole = source_of(series)
    assert whole["StudyInstanceUID"] == "1.2.3"
    assert whole["SeriesInstanceUID"] == header_of(files[0]).SeriesInstanceUID
    assert (whole["files"], whole["sha256"]) == (5, hashlib.sha256("\n".join(digests).encode()).hexdigest())
    (series / "notes.txt").write_text("beside it")
    assert source_of(files[3]) == whole  # a file stands for its series


def test_room(nifti: Path, series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []

    def usage(place: Path) -> Usage:
        asked.append(place)
        return Usage(0, 0, 3000)

    monkeypatch.setattr(sources.shutil, "disk_usage", usage)
    for scan in (series, min(series.iterdir())):
        check_room(tmp_path / "to" / "be" / "made", scan)  # 100 voxels
    with pytest.raises(InputError, match=rf"the results need about 0 MB, and '{tmp_path}' has 0 MB left; free some"):
        check_room(tmp_path / "to" / "be" / "made", nifti)
    assert asked == [tmp_path] * 3
    assert not (tmp_path / "to").exists()
