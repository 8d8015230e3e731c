"""Which position of a NIfTI header is taken: nibabel's rule in mm, on all kinds of headers, and what is reported."""

from __future__ import annotations

import logging
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from field_cases import MOVING_AFFINE, MOVING_SHAPE
from nifti_headers import FACTOR, KINDS, Kind, save_kind

from monai_regplugins.checks import InputError
from monai_regplugins.readers.images import read_scan
from monai_regplugins.readers.itk_world import itk_affine
from monai_regplugins.readers.nifti import nifti_header, nifti_place
from monai_regplugins.transforms.load import LoadSubjectd

VOLUME = np.random.default_rng(0).normal(size=MOVING_SHAPE).astype(np.float32)
HANDS = {"right": 1, "left": -1}


@pytest.mark.parametrize("hand", HANDS)
@pytest.mark.parametrize("name", KINDS)
def test_nibabel_places_the_image_alike_but_for_the_unit(tmp_path: Path, name: str, hand: str) -> None:
    affine = MOVING_AFFINE @ np.diag([HANDS[hand], 1, 1, 1])
    path = save_kind(tmp_path / "a.nii.gz", VOLUME, affine, KINDS[name])
    theirs = nib.load(path).affine.copy()
    theirs[:3] /= FACTOR[KINDS[name].unit]
    scan = read_scan(path, "image")
    np.testing.assert_allclose(scan.affine, theirs, rtol=1e-12)
    np.testing.assert_array_equal(scan.values, VOLUME)
    if KINDS[name].sform:
        np.testing.assert_allclose(scan.affine, affine, atol=2e-3)


@pytest.mark.parametrize("name", KINDS)
def test_a_header_that_contradicts_itself_is_told_of_in_one_line(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = save_kind(tmp_path / "a.nii", VOLUME, MOVING_AFFINE, KINDS[name])
    with caplog.at_level(logging.WARNING):
        read_scan(path, "moving image")
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == KINDS[name].warned
    for line in lines:
        assert line.startswith(f"moving image '{path}' is placed differently by different programs: ")
        assert "\n" not in line
        if KINDS[name].apart:
            assert f"sform (code {KINDS[name].sform}) [[" in line
            assert f"qform (code {KINDS[name].qform}) [[" in line
            assert "the sform counts" in line


@pytest.mark.parametrize("shift", [0.05, 0.15])
def test_a_tenth_of_a_voxel_anywhere_is_worth_a_warning(tmp_path: Path, shift: float) -> None:
    """A turn that moves the corner of the image, not its first voxel."""
    path = save_kind(tmp_path / "a.nii", VOLUME, np.eye(4), Kind(2, 1))
    image, turned = nib.Nifti1Image(VOLUME, None, nib.load(path).header), np.eye(4)
    length = np.hypot(*[n - 1 for n in MOVING_SHAPE[:2]])
    turned[:2, :2] = [[np.cos(shift / length), -np.sin(shift / length)], [np.sin(shift / length), 1.0]]
    turned[1, 1] = turned[0, 0]
    image.set_sform(turned, 2)
    nib.save(image, path)
    place = nifti_place(nifti_header(path))
    assert bool(place.contradiction) == (shift > 0.1)
    assert not place.certain


@pytest.mark.parametrize("qform", [0, 1])
def test_shear_is_refused_by_the_matrix_that_counts(tmp_path: Path, qform: int) -> None:
    """A qform beside it, which has no shear, and a pixdim of other lengths change nothing."""
    path = save_kind(tmp_path / "a.nii", VOLUME, MOVING_AFFINE, Kind(1, qform, shear=0.05))
    with pytest.raises(InputError, match=r"is sheared \(cosine 0.05 between two axes\)"):
        LoadSubjectd()({"image": path})


def test_pixdim_beside_the_columns_moves_nothing(tmp_path: Path) -> None:
    """A reader that takes the qform instead, even of code 0, loses rotation and origin."""
    path = save_kind(tmp_path / "a.nii", VOLUME, MOVING_AFFINE, Kind(1, 0, pixdim=1.0005))
    np.testing.assert_allclose(read_scan(path, "image").affine, MOVING_AFFINE, atol=1e-5)


def test_a_damaged_qform_does_not_matter_beside_an_sform(tmp_path: Path) -> None:
    path = save_kind(tmp_path / "a.nii", VOLUME, MOVING_AFFINE, Kind(1, 1))
    content = bytearray(path.read_bytes())
    content[256:268] = np.float32([3.0, 2.0, 1.0]).tobytes()  # a quaternion longer than 1
    path.write_bytes(content)
    np.testing.assert_allclose(read_scan(path, "image").affine, MOVING_AFFINE, atol=1e-5)


@pytest.mark.parametrize(("stated", "hand"), [(0.0, 1), (np.nan, 1), (-1.0, -1), (-2.0, -1)])
def test_a_qform_without_a_stated_hand_is_right_handed(tmp_path: Path, stated: float, hand: int) -> None:
    """As the standard and ITK have it; many old files hold 0."""
    affine = MOVING_AFFINE @ np.diag([1, 1, np.sign(np.linalg.det(MOVING_AFFINE[:3, :3])) * hand, 1])
    path = save_kind(tmp_path / "a.nii", VOLUME, affine, Kind(0, 1))
    content = bytearray(path.read_bytes())
    content[76:80] = np.float32(stated).tobytes()
    path.write_bytes(content)
    np.testing.assert_allclose(read_scan(path, "image").affine, affine, atol=1e-4)
    if np.isfinite(stated):
        np.testing.assert_allclose(itk_affine(path), affine, atol=1e-4)


def test_an_empty_sform_is_no_position(tmp_path: Path) -> None:
    path = save_kind(tmp_path / "a.nii", VOLUME, MOVING_AFFINE, Kind(1, 1))
    content = bytearray(path.read_bytes())
    content[280:328] = bytes(48)
    path.write_bytes(content)
    np.testing.assert_allclose(read_scan(path, "image").affine, MOVING_AFFINE, atol=1e-4)
    content[252:254] = bytes(2)  # no qform either
    path.write_bytes(content)
    with pytest.raises(InputError, match="is not invertible"):
        LoadSubjectd()({"image": path})


CORRECTED = {"a_Tilt_1.nii": "without the tilt of the gantry", "a_Eq_1.nii.gz": "with even slices", "a_1.nii": ""}


@pytest.mark.parametrize("other", CORRECTED)
def test_the_file_that_dcm2niix_has_corrected_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, other: str
) -> None:
    names = ("a.nii", "b.nii", other)
    for name in names:
        nib.save(nib.Nifti1Image(VOLUME, np.eye(4)), tmp_path / name)
    reported = {}
    for name in names:
        caplog.clear()
        read_scan(tmp_path / name, "fixed image")
        reported[name] = [record.getMessage() for record in caplog.records]
    words = f"lies beside '{other}', the same scan {CORRECTED[other]}; register that one."
    assert reported.pop("a.nii") == ([f"fixed image '{tmp_path / 'a.nii'}' {words}"] if CORRECTED[other] else [])
    assert not any(reported.values())
