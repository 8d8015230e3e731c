"""MONOCHROME1 slices: their values are those of MONOCHROME2, whatever the pixels are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_series import write_volume
from pydicom.pixels import apply_rescale

from monai_regplugins.readers.cine_dicom import dicom_frames
from monai_regplugins.readers.dicom_series import read_dicom_series

AFFINE = np.diag([-2.0, -2.0, 3.0, 1.0])
PIXELS = {  # bits stored, whether signed, values
    "16 bits": (16, 0, [0, 1, 40000, 65535]),
    "12 bits": (12, 0, [0, 1, 4000, 4095]),
    "signed": (16, 1, [-2000, -1, 0, 3000]),
}


@pytest.mark.parametrize("slope", [1.0, 0.5])
@pytest.mark.parametrize("kind", PIXELS)
def test_values_do_not_depend_on_how_they_are_shown(tmp_path: Path, kind: str, slope: float) -> None:
    bits, signed, values = PIXELS[kind]
    stored = np.array(values * 3).reshape(2, 3, 2).astype(np.uint16).view(np.int16)
    about = {"BitsStored": bits, "HighBit": bits - 1, "PixelRepresentation": signed}
    write_volume(tmp_path, stored, AFFINE, slope, -100.0, PhotometricInterpretation="MONOCHROME1", **about)
    slices = sorted((pydicom.dcmread(file) for file in tmp_path.iterdir()), key=lambda one: one.ImagePositionPatient[2])
    expected = np.stack([apply_rescale(one.pixel_array, one).T for one in slices], axis=-1)
    np.testing.assert_array_equal(read_dicom_series(tmp_path, "image").values, expected.astype(np.float32))
    frames = [frame.image.T for frame in dicom_frames(tmp_path)]  # the last slice is the first instance
    np.testing.assert_array_equal(np.stack(frames[::-1], axis=-1), expected.astype(np.float32))


def test_padding_of_inverted_slices_is_padding(tmp_path: Path) -> None:
    stored = np.array([-2000, 5, 7, 9] * 2).reshape(2, 2, 2).astype(np.int16)
    write_volume(tmp_path, stored, AFFINE, PhotometricInterpretation="MONOCHROME1", PixelPaddingValue=-2000)
    volume = read_dicom_series(tmp_path, "image")
    assert volume.padding == -2000
    np.testing.assert_array_equal(volume.values, stored)
