"""Enhanced multi-frame DICOM written with pydicom, compared with the same volume as a series of slices."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from dicom_series import DATA_SET, SERIES, Array, write_slice, write_volume
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import EnhancedCTImageStorage, EnhancedMRImageStorage, RLELossless

from monai_regplugins.checks import InputError
from monai_regplugins.readers.dicom_series import dicom_phases, read_dicom_series
from monai_regplugins.readers.phases import Phase
from monai_regplugins.transforms.load import LoadPaird

STORED = np.random.default_rng(0).integers(-50, 900, (7, 6, 5)).astype(np.int16)
SLOPES, INTERCEPTS = [0.5, 1.0, 2.0, 0.25, 4.0], [-1000.0, -1024.0, 0.0, 10.0, -5.0]
OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = np.linalg.qr([[1.2, -1.28, 1.44], [0.0, 1.2, 2.4], [-0.9, -1.7, 1.92]])[0] * [1.2, 1.6, 3.0]
OBLIQUE[:3, 3] = 15.1, 3.03, -4.07


def group(**macros: dict[str, Any]) -> Dataset:
    """The functional groups of a frame, or of all."""
    item = Dataset()
    for name, tags in macros.items():
        macro = Dataset()
        for keyword, value in tags.items():
            setattr(macro, keyword, value)
        setattr(item, name, Items([macro]))
    return item


def write_enhanced(
    path: Path, volumes: Sequence[Array], affine: Array, content: Sequence[dict[str, Any]] = ({},), **tags: Any
) -> Path:
    """Volumes (X, Y, Z) of stored values, their frames in disorder; ``content`` states of each volume's frames."""
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    frames = [(v, k) for v in range(len(volumes)) for k in range(volumes[0].shape[2])]
    frames = [frames[index] for index in np.random.default_rng(1).permutation(len(frames))]
    per_frame = [
        group(
            PlanePositionSequence={"ImagePositionPatient": [f"{x:.10g}" for x in lps[:3, 3] + k * lps[:3, 2]]},
            PixelValueTransformationSequence={"RescaleSlope": SLOPES[k], "RescaleIntercept": INTERCEPTS[k]},
            FrameContentSequence={"InStackPositionNumber": k + 1, **content[v]},
        )
        for v, k in frames
    ]
    shared = group(
        PixelMeasuresSequence={"PixelSpacing": [f"{spacing[1]:.10g}", f"{spacing[0]:.10g}"], "SliceThickness": 9},
        PlaneOrientationSequence={
            "ImageOrientationPatient": [f"{x:.10g}" for x in (lps[:3, :2] / spacing[:2]).T.ravel()]
        },
    )
    pixels = np.stack([volumes[v][:, :, k].T for v, k in frames]).astype("<i2")
    known = {
        "SOPClassUID": EnhancedCTImageStorage,
        "SOPInstanceUID": f"{SERIES}.5",
        "SeriesInstanceUID": SERIES,
        "NumberOfFrames": len(frames),
        "SharedFunctionalGroupsSequence": Items([shared]),
        "PerFrameFunctionalGroupsSequence": Items(per_frame),
    }
    rows, columns = pixels.shape[1:]
    return write_slice(
        path, pixels, **{**known, "Rows": rows, "Columns": columns, "PixelData": pixels.tobytes(), **tags}
    )


@pytest.mark.parametrize("storage", [EnhancedCTImageStorage, EnhancedMRImageStorage])
@pytest.mark.parametrize("of", ["folder", "file"])
def test_the_volume_is_that_of_a_series_of_slices(tmp_path: Path, storage: str, of: str) -> None:
    file = write_enhanced(tmp_path / "enhanced" / "IM1", [STORED], OBLIQUE, SOPClassUID=storage)
    write_volume(tmp_path / "series", STORED, OBLIQUE, SLOPES, 0.0)
    found = read_dicom_series(file if of == "file" else file.parent, "image")
    expected = read_dicom_series(tmp_path / "series", "image")
    np.testing.assert_allclose(found.affine, expected.affine, atol=1e-6)
    np.testing.assert_allclose(found.values, STORED * SLOPES + INTERCEPTS)
    np.testing.assert_allclose(found.values - INTERCEPTS, expected.values)
    assert found.identity["SOPInstanceUID"] == f"{SERIES}.5"
    assert found.identity["PatientID"] == DATA_SET["PatientID"]
    assert LoadPaird()({"fixed": file, "moving": file.parent})["fixed"].shape == (1, 7, 6, 5)


@pytest.mark.parametrize(
    ("by", "keyword", "values", "names"),
    [
        ("temporal position index", "TemporalPositionIndex", [1, 2], ["1", "2"]),
        ("frame comments", "FrameComments", ["50%", "0%"], ["0%", "50%"]),
        ("stack", "StackID", ["1", "2"], ["1", "2"]),
    ],
)
def test_frames_of_several_volumes(tmp_path: Path, by: str, keyword: str, values: list[Any], names: list[str]) -> None:
    volumes = [STORED, STORED + 900]
    write_enhanced(tmp_path / "IM1", volumes, OBLIQUE, [{keyword: value} for value in values])
    assert dicom_phases(tmp_path, "image") == names
    with pytest.raises(InputError, match=f"2 volumes by {by}"):
        read_dicom_series(tmp_path, "image", phase=Phase("", "fixed_phase"))
    for name, stored in zip(map(str, values), volumes, strict=True):
        found = read_dicom_series(tmp_path, "image", phase=Phase(name, "fixed_phase"))
        np.testing.assert_allclose(found.values, stored * SLOPES + INTERCEPTS)


def test_volumes_in_files_of_their_own(tmp_path: Path) -> None:
    for k in range(2):
        tags = {"SOPInstanceUID": f"{SERIES}.{k}", "AcquisitionNumber": k + 1}
        write_enhanced(tmp_path / f"IM{k}", [STORED + k], OBLIQUE, **tags)
    found = read_dicom_series(tmp_path, "image", phase=Phase("2", "fixed_phase"))
    np.testing.assert_allclose(found.values, (STORED + 1) * SLOPES + INTERCEPTS)
    assert found.identity["SOPInstanceUID"] == f"{SERIES}.1"


def test_compressed_frames(tmp_path: Path) -> None:
    data = pydicom.dcmread(write_enhanced(tmp_path / "IM1", [STORED], OBLIQUE))
    data.compress(RLELossless)
    data.save_as(tmp_path / "IM1")
    np.testing.assert_allclose(read_dicom_series(tmp_path, "image").values, STORED * SLOPES + INTERCEPTS)


def test_mistakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_enhanced(tmp_path / "IM1", [STORED], OBLIQUE)
    cut = pydicom.dcmread(file)
    cut.PerFrameFunctionalGroupsSequence = cut.PerFrameFunctionalGroupsSequence[:3]
    cut.save_as(tmp_path / "cut")
    with pytest.raises(InputError, match="holds 5 frames in one file and states the places of 3"):
        read_dicom_series(tmp_path / "cut", "image", whole=False)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(InputError, match=r"with many frames such as .* need pydicom, .* 'pydicom>=3'"):
        read_dicom_series(file, "image", whole=False)
