"""The grid that a header states is the one of the whole image."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from dicom_series import write_volume
from field_cases import MOVING_AFFINE, MOVING_SHAPE, itk_image
from monai.data import MetaTensor
from nifti_headers import KINDS, save_kind

from monai_regplugins.checks import InputError
from monai_regplugins.readers.image_grid import grid_of, read_image_grid
from monai_regplugins.readers.images import read_scan

VOLUME = np.random.default_rng(0).normal(size=MOVING_SHAPE).astype(np.float32)


def whole(path: Path) -> tuple[np.ndarray, tuple[int, ...], np.ndarray]:
    """The same by reading the image."""
    scan = read_scan(path, "image")
    grid = grid_of(MetaTensor(scan.values[None], affine=scan.affine, meta=scan.meta))
    return grid.affine, grid.shape, grid.by_itk


@pytest.mark.parametrize("name", KINDS)
def test_nifti(tmp_path: Path, name: str) -> None:
    path = save_kind(tmp_path / "a.nii.gz", VOLUME, MOVING_AFFINE, KINDS[name])
    grid = read_image_grid(path, "image")
    affine, shape, by_itk = whole(path)
    assert grid.shape == shape == MOVING_SHAPE
    np.testing.assert_array_equal(grid.affine, affine)
    np.testing.assert_array_equal(grid.by_itk, by_itk)


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha", "a.nhdr", "a.mhd"])
def test_itk(tmp_path: Path, name: str) -> None:
    sitk.WriteImage(itk_image(VOLUME, MOVING_AFFINE), str(tmp_path / name))
    grid = read_image_grid(tmp_path / name, "image")
    np.testing.assert_allclose(grid.affine, MOVING_AFFINE, atol=1e-6)
    assert (grid.shape, grid.itk) == (MOVING_SHAPE, None)


def test_dicom(tmp_path: Path) -> None:
    write_volume(tmp_path / "series", (100 * VOLUME).astype(np.int16), np.diag([2.0, 2.0, 3.0, 1.0]))
    grid = read_image_grid(tmp_path / "series", "image")
    affine, shape, _ = whole(tmp_path / "series")
    np.testing.assert_array_equal(grid.affine, affine)
    assert grid.shape == shape


def test_times_do_not_count(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.stack([VOLUME, VOLUME], -1), MOVING_AFFINE), tmp_path / "a.nii")
    assert read_image_grid(tmp_path / "a.nii", "image").shape == MOVING_SHAPE


def test_shear_is_refused(tmp_path: Path) -> None:
    sheared = MOVING_AFFINE @ np.array([[1, 0.5, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    image = nib.Nifti1Image(VOLUME, None)
    image.set_sform(sheared, code=1)
    nib.save(image, tmp_path / "a.nii")
    with pytest.raises(InputError, match="sheared"):
        read_image_grid(tmp_path / "a.nii", "fixed image")
