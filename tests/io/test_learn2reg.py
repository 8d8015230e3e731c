"""Learn2Reg's fields by the formulas of its evaluation."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from field_cases import GRIDS, MOVING_AFFINE, MOVING_SHAPE, SHAPE, field_ras
from nibabel.affines import apply_affine
from scipy.ndimage import map_coordinates

from monai_regplugins.checks import InputError
from monai_regplugins.io.learn2reg import learn2reg_name, load_learn2reg, write_learn2reg


@pytest.mark.parametrize("name", GRIDS)
def test_the_evaluation_of_learn2reg_warps_to_the_same_image(tmp_path: Path, name: str) -> None:
    affine, displacement = GRIDS[name], field_ras() / 4
    write_learn2reg(displacement, affine, tmp_path / "disp.nii.gz", affine, SHAPE)
    i, j, k = np.indices(SHAPE)
    moving = np.sin(i / 3.0) + np.cos(j / 2.5) * np.sin(k / 4.0)

    disp = np.asarray(nib.load(tmp_path / "disp.nii.gz").dataobj)
    identity = np.meshgrid(*[np.arange(n) for n in SHAPE], indexing="ij")
    found = map_coordinates(moving, identity + disp.transpose(3, 0, 1, 2), order=1, mode="nearest")

    world = apply_affine(affine, np.moveaxis(np.indices(SHAPE), 0, -1)) + np.moveaxis(displacement, 0, -1)
    at = np.moveaxis(apply_affine(np.linalg.inv(affine), world), -1, 0)
    np.testing.assert_allclose(found, map_coordinates(moving, at, order=1, mode="nearest"), atol=1e-5)

    back, grid = load_learn2reg(tmp_path / "disp.nii.gz", affine)
    np.testing.assert_allclose(back, displacement, atol=1e-6)
    assert np.array_equal(grid, affine)


def test_header_is_the_one_of_the_challenge(tmp_path: Path) -> None:
    write_learn2reg(field_ras(), GRIDS["left-handed"], tmp_path / "disp.nii.gz", GRIDS["left-handed"], SHAPE)
    image = nib.load(tmp_path / "disp.nii.gz")
    assert (image.shape, image.get_data_dtype()) == ((*SHAPE, 3), np.float32)
    assert np.array_equal(image.affine, np.eye(4))
    assert int(image.header["intent_code"]) == 0


def test_two_grids_are_refused(tmp_path: Path) -> None:
    affine, path = GRIDS["oblique"], tmp_path / "disp.nii.gz"
    shifted = affine.copy()
    shifted[0, 3] += 0.01
    for moving_affine, moving_shape in [(MOVING_AFFINE, MOVING_SHAPE), (affine, MOVING_SHAPE), (shifted, SHAPE)]:
        with pytest.raises(InputError, match=r"lie on two grids .* resample the moving image"):
            write_learn2reg(field_ras(), affine, path, moving_affine, moving_shape)
    for moving_affine, moving_shape in [(None, SHAPE), (affine, None)]:
        with pytest.raises(InputError, match="needs the moving image's grid"):
            write_learn2reg(field_ras(), affine, path, moving_affine, moving_shape)
    assert not path.exists()


def test_a_field_without_its_grid_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "disp.nii.gz"
    write_learn2reg(field_ras(), np.eye(4), path, np.eye(4), SHAPE)
    with pytest.raises(InputError, match="has no grid; give the fixed image's affine"):
        load_learn2reg(path, None)
    nib.save(nib.Nifti1Image(np.zeros(SHAPE, np.float32), np.eye(4)), path)
    with pytest.raises(InputError, match="expected \\(X, Y, Z, 3\\)"):
        load_learn2reg(path, np.eye(4))


@pytest.mark.parametrize(
    ("fixed", "moving", "name"),
    [
        ("a/LungCT_0003_0000.nii.gz", "b/LungCT_0003_0001.nii.gz", "disp_0003_0003.nii.gz"),
        ("AbdomenCTCT_0001_0000.nii.gz", "AbdomenCTCT_0004_0000.nii", "disp_0001_0000_0004_0000.nii.gz"),
        ("OASIS_0001", "OASIS_0002", "disp_0001_0002.nii.gz"),
        ("inhale.nii.gz", "exhale.nii.gz", "disp_0000_0001.nii.gz"),
        ("OASIS_0007_0000.nii.gz", None, "disp_0000_0001.nii.gz"),
    ],
)
def test_names(fixed: str, moving: str | None, name: str) -> None:
    assert learn2reg_name(fixed, moving) == name
