"""DICOM segmentations: what is refused, and labels that come from other files; the application's test has the rest."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest

from monai_regplugins.apps.deploy.segmentation import is_dicom, read_segmentation, write_segmentation
from monai_regplugins.checks import InputError

from .conftest import FIXED_SHAPE, LPS, Run, labels, make_series_pair, world

ROUND_TRIP = """
import sys
from pathlib import Path
import numpy
from monai_regplugins.apps.deploy.segmentation import read_segmentation, write_segmentation
from monai_regplugins.checks import InputError

folder = Path(sys.argv[1])
fixed, moving = folder / "study1" / "fixed", folder / "study2" / "moving"
label, affine = numpy.load(folder / "label.npy"), numpy.load(folder / "affine.npy")
write_segmentation(label, affine, fixed, folder / "seg.dcm")
numbered = numpy.searchsorted([0, 7, 300], label)
write_segmentation(numbered, affine, min(fixed.iterdir()), folder / "again.dcm", folder / "seg.dcm")
numpy.save(folder / "read.npy", read_segmentation(folder / "again.dcm", min(fixed.iterdir())).numpy())
for attempt in (
    lambda: read_segmentation(folder / "seg.dcm", moving),
    lambda: read_segmentation(min(moving.iterdir()), moving),
    lambda: write_segmentation(0 * label, affine, fixed, folder / "none.dcm"),
):
    try:
        attempt()
    except InputError as error:
        print(error)
"""


def test_dicom_is_known_by_its_first_bytes(tmp_path: Path) -> None:
    for content, expected in {b"\0" * 128 + b"DICM": True, b"\0" * 200: False, b"": False}.items():
        (tmp_path / "file").write_bytes(content)
        assert is_dicom(tmp_path / "file") is expected


def test_without_highdicom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(InputError, match=r"need highdicom, which is missing; install it with: pip install highdicom"):
        read_segmentation(tmp_path / "seg.dcm", tmp_path)
    with pytest.raises(InputError, match=r"need highdicom, which is missing"):
        write_segmentation(np.ones((2, 2, 2)), np.eye(4), tmp_path, tmp_path / "seg.dcm")
    assert not list(tmp_path.iterdir())


@pytest.mark.deploy
def test_labels_are_numbered_anew_and_called_by_their_values(run_deploy: Run, tmp_path: Path) -> None:
    pair = make_series_pair(tmp_path, "sagittal", "oblong")
    label = labels(world(pair.fixed, FIXED_SHAPE))  # 1 and 2
    np.save(tmp_path / "label.npy", np.array([0, 7, 300], np.int16)[label])
    np.save(tmp_path / "affine.npy", LPS @ pair.fixed)
    done = run_deploy("-c", ROUND_TRIP, tmp_path)
    assert done.returncode == 0, done.stderr
    for name in ("seg.dcm", "again.dcm"):
        segments = pydicom.dcmread(tmp_path / name).SegmentSequence
        assert [(one.SegmentNumber, one.SegmentLabel) for one in segments] == [(1, "Label 7"), (2, "Label 300")]
        assert {one.SegmentAlgorithmType for one in segments} == {"AUTOMATIC"}
    np.testing.assert_array_equal(np.load(tmp_path / "read.npy")[0], label)
    told = done.stdout.splitlines()
    assert "its frame of reference is" in told[0]
    assert "is a DICOM file of modality CT, expected a segmentation (SEG); export one." in told[1]
    assert "no label lies in the fixed image" in told[2]
    assert not (tmp_path / "none.dcm").exists()
