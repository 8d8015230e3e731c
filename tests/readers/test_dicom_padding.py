"""Pixel Padding Value, in headers of slices and in whole series written by pydicom."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from dicom_series import write_slice, write_volume

from monai_regplugins.describe import facts_of
from monai_regplugins.io.linear import save_linear
from monai_regplugins.io.operations import apply
from monai_regplugins.readers.cine_dicom import dicom_frames
from monai_regplugins.readers.dicom_padding import is_padding
from monai_regplugins.readers.dicom_series import read_dicom_series
from monai_regplugins.transforms.load import LoadPaird
from monai_regplugins.transforms.prepare import ResampleToFixedd

CIRCLE = np.hypot(*np.indices((12, 12)) - 5.5) < 5
STORED = np.random.default_rng(1).integers(0, 900, (12, 12, 4)).astype(np.int16)
AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])


def padded(value: int) -> np.ndarray:
    """Measurements inside of a circle, padding around it."""
    return np.where(CIRCLE[..., None], STORED, np.int16(value))


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({}, [0, 0, 0]),
        ({"0028|0120": "-2000"}, [1, 0, 0]),
        ({"0028|0120": "63536", "0028|0103": "1"}, [1, 0, 0]),
        ({"0028|0120": "63536", "0028|0103": "0"}, [0, 0, 0]),
        ({"0028|0120": "-2000", "0028|0121": "-1900"}, [1, 1, 0]),
        ({"0028|0120": "-1900", "0028|0121": "-2000"}, [1, 1, 0]),
        ({"0028|0121": "-2000"}, [0, 0, 0]),
        ({"0028|0120": "nothing"}, [0, 0, 0]),
    ],
)
def test_padding_by_header(tags: dict[str, str], expected: list[int]) -> None:
    stored = np.array([-2000.0, -1950.0, 0.0])
    rescaling = {"0028|1053": "0.5", "0028|1052": "-1000"}
    assert is_padding(0.5 * stored - 1000, {**rescaling, **tags}).tolist() == [bool(one) for one in expected]


def test_a_negative_padding_of_unsigned_pixels_is_what_its_bits_say() -> None:
    tags = {"0028|0120": "-2000", "0028|0121": "65535", "0028|0103": "0"}
    assert is_padding(np.array([63535.0, 63536.0, 65535.0, 0.0]), tags).tolist() == [False, True, True, False]


@pytest.mark.parametrize("value", [-2000, 0, 3000])
def test_padding_of_a_series_has_one_value_that_no_measurement_has(value: int, tmp_path: Path) -> None:
    write_volume(tmp_path / "a", padded(value), AFFINE, [1.0, 0.5, 2.0, 1.0], -100, PixelPaddingValue=value)
    volume = read_dicom_series(tmp_path / "a", "image")
    padding = volume.values == volume.padding
    there = value != STORED  # of a value that measurements have too, they are padding, as the standard states
    assert np.array_equal(padding, ~CIRCLE[..., None] | ~there)
    scaled = STORED * np.array([1.0, 0.5, 2.0, 1.0]) - 100
    np.testing.assert_array_equal(volume.values[~padding], scaled.astype(np.float32)[~padding])


@pytest.mark.parametrize("pads", [False, True])
def test_without_padding_nothing_is_stated(pads: bool, tmp_path: Path) -> None:
    write_volume(tmp_path / "a", STORED, AFFINE, **({"PixelPaddingValue": -2000} if pads else {}))
    assert read_dicom_series(tmp_path / "a", "image").padding is None


def test_padding_of_resampled_slices_is_air(tmp_path: Path) -> None:
    """A tilted gantry: between tissue and padding no values of neither are made up."""
    step = np.array([0.0, 0.6, 3.0])
    write_volume(tmp_path / "a", padded(-2000), AFFINE, 1.0, 0.0, step, PixelPaddingValue=-2000)
    volume = read_dicom_series(tmp_path / "a", "image")
    assert volume.padding is None
    assert volume.values.min() == STORED[CIRCLE].min()


def test_padding_above_all_tissue_reaches_neither_image_nor_mask(tmp_path: Path) -> None:
    for name, value in (("fixed", 3000), ("moving", 2500)):
        write_volume(tmp_path / name, padded(value), AFFINE, PixelPaddingValue=value)
    pair = LoadPaird()({"fixed": tmp_path / "fixed", "moving": tmp_path / "moving", "pair_id": "a"})
    pair = ResampleToFixedd(keep_original=True)(pair)
    for key in ("fixed", "moving", "moving_original"):
        assert pair[key].max() == STORED[CIRCLE].max()
    expected = torch.from_numpy(CIRCLE[..., None] & np.ones(4, bool))
    for key in ("fixed_mask", "moving_mask"):
        assert torch.equal(pair[key][0].as_tensor() > 0, expected)


def test_padding_is_air_to_whatever_reads_a_series(tmp_path: Path) -> None:
    """As if air had been there: what samples it once more, and what looks for a range of intensities."""
    write_volume(tmp_path / "padded", padded(3000), AFFINE, PixelPaddingValue=3000)
    air = int(STORED[CIRCLE].min())
    write_volume(tmp_path / "air", padded(air), AFFINE)
    half = np.eye(4)
    half[:2, 3] = 0.7, 0.4  # mm, so that voxels are mixed
    save_linear(half, tmp_path / "half.tfm")
    for name in ("padded", "air"):
        series, out = tmp_path / name, tmp_path / f"{name}.nii.gz"
        apply(tmp_path / "half.tfm", series, out, tmp_path / "air", padding_value=0.0)
    written = [nib.load(tmp_path / f"{name}.nii.gz").get_fdata() for name in ("padded", "air")]
    np.testing.assert_array_equal(*written)
    assert facts_of({"image": tmp_path / "padded"}, 3) == facts_of({"image": tmp_path / "air"}, 3)


def test_padding_of_a_cine_is_air(tmp_path: Path) -> None:
    for number, value in enumerate((-2000, 5000)):
        frame = np.where(CIRCLE, STORED[..., number], np.int16(value)).T
        write_slice(
            tmp_path / f"{number}.dcm",
            frame,
            SOPInstanceUID=f"1.2.{number + 1}",
            SeriesInstanceUID="1.2",
            InstanceNumber=number,
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
            ImagePositionPatient=[0, 0, 0],
            PixelSpacing=[1, 1],
            PixelPaddingValue=value,
        )
    for number, frame in enumerate(dicom_frames(tmp_path)):
        measured = STORED[..., number]
        np.testing.assert_array_equal(frame.image, np.where(CIRCLE, measured, measured[CIRCLE].min()).T)
