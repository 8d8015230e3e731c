"""DICOM segmentations: what is refused, and labels that come from other files; the application's test has the rest."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_names import CHARACTER_SETS
from dicom_pairs import FIXED_SHAPE, LPS, labels, make_series_pair, world

from monai_regplugins.apps.deploy.segmentation import read_segmentation, write_segmentation
from monai_regplugins.checks import InputError

from .conftest import Run

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

TEXTS = """
import sys
from pathlib import Path
import numpy, pydicom
sys.path.insert(0, sys.argv[2])
from dicom_names import CHARACTER_SETS
from dicom_series import write_volume
from monai_regplugins.apps.deploy.segmentation import check_segmentation, write_segmentation

stored = numpy.random.default_rng(0).integers(0, 99, (6, 5, 4)).astype(numpy.int16)
label = numpy.zeros((6, 5, 4), numpy.uint8)
label[2:4] = 1
for number, (charset, name) in enumerate(CHARACTER_SETS.items()):
    folder, word = Path(sys.argv[1]) / str(number), name.split("=")[-1].split("^")[0][:16]
    texts = {"PatientName": name, "StudyDescription": word, "PatientComments": word}
    write_volume(folder / "scan", stored, numpy.eye(4), SpecificCharacterSet=charset.split("\\\\"), **texts)
    write_segmentation(label, numpy.eye(4), folder / "scan", folder / "seg.dcm")
    labeled = pydicom.dcmread(folder / "seg.dcm")
    labeled.SpecificCharacterSet = charset.split("\\\\")
    labeled.SegmentSequence[0].SegmentLabel = word
    labeled.save_as(folder / "labeled.dcm")
    write_volume(folder / "plain", stored, numpy.eye(4))
    check_segmentation(folder / "plain", folder / "labeled.dcm")
    write_segmentation(label, numpy.eye(4), folder / "plain", folder / "again.dcm", folder / "labeled.dcm")
"""


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
    reported = done.stdout.splitlines()
    assert "its frame of reference is" in reported[0]
    assert "is a DICOM file of modality CT, expected a segmentation (SEG); export one." in reported[1]
    assert "no label lies in the fixed image" in reported[2]
    assert not (tmp_path / "none.dcm").exists()


@pytest.mark.deploy
def test_texts_of_the_series_and_of_the_segments_in_all_character_sets(run_deploy: Run, tmp_path: Path) -> None:
    done = run_deploy("-c", TEXTS, tmp_path, Path(__file__).parents[2] / "helpers")
    assert done.returncode == 0, done.stderr
    for number, name in enumerate(CHARACTER_SETS.values()):
        word = name.split("=")[-1].split("^")[0][:16]
        written, again = (pydicom.dcmread(tmp_path / str(number) / file) for file in ("seg.dcm", "again.dcm"))
        assert written.SpecificCharacterSet == again.SpecificCharacterSet == "ISO_IR 192"
        assert (str(written.PatientName), written.StudyDescription, written.PatientComments) == (name, word, word)
        assert again.SegmentSequence[0].SegmentLabel == word
