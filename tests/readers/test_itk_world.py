"""Where ITK places files, against SimpleITK's images of the same files."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from field_cases import LPS, MOVING_AFFINE, MOVING_SHAPE
from monai.data import MetaTensor
from nifti_headers import KINDS, save_kind

from monai_regplugins.readers.images import read_scan
from monai_regplugins.readers.itk_world import itk_affine, itk_world_of, note_itk_world

VOLUME = np.random.default_rng(0).normal(size=MOVING_SHAPE).astype(np.float32)


@pytest.mark.parametrize("name", KINDS)
def test_the_map_leads_to_where_simpleitk_places_each_voxel(tmp_path: Path, name: str) -> None:
    path = save_kind(tmp_path / "a.nii.gz", VOLUME, MOVING_AFFINE, KINDS[name])
    scan = read_scan(path, "image")
    world = itk_world_of(MetaTensor(scan.values, affine=scan.affine, meta=scan.meta))
    image, voxel = sitk.ReadImage(str(path)), [13, 4, 9]
    theirs = LPS[:3, :3] @ image.TransformIndexToPhysicalPoint(voxel)
    ours = (np.eye(4) if world is None else world) @ scan.affine.numpy() @ [*voxel, 1]
    np.testing.assert_allclose(ours[:3], theirs, atol=1e-3)
    plain = name in ("both alike", "micron", "sform alone", "qform alone", "scanner sform beside a qform")
    assert (world is None) or not plain


def test_itk_says_nothing_about_what_it_cannot_read(tmp_path: Path) -> None:
    nib.save(nib.Nifti2Image(VOLUME, MOVING_AFFINE), tmp_path / "a.nii")
    assert itk_affine(tmp_path / "a.nii") is None
    assert note_itk_world(np.eye(4), None, (2, 2, 2)) == {}
    assert note_itk_world(np.eye(4), np.diag([1.0, 1.0, 0.0, 1.0]), (2, 2, 2)) == {}


def test_a_slice_has_no_third_axis() -> None:
    assert note_itk_world(np.diag([1.0, 1.0, 5.0, 1.0]), np.eye(4), (4, 4)) == {}
    note = note_itk_world(np.diag([2.0, 1.0, 5.0, 1.0]), np.eye(4), (4, 4))
    world = itk_world_of(MetaTensor(torch.zeros(1, 4, 4), meta=note))
    np.testing.assert_allclose(world, np.diag([0.5, 1, 1, 1]))


def test_ants_places_files_as_simpleitk_does(tmp_path: Path) -> None:
    ants = pytest.importorskip("ants", reason="needs antspyx")
    for name, kind in KINDS.items():
        path = save_kind(tmp_path / "a.nii.gz", VOLUME, MOVING_AFFINE, kind)
        image, affine = ants.image_read(str(path)), itk_affine(path)
        assert affine is not None, name
        theirs = np.column_stack([np.asarray(image.direction) * image.spacing, image.origin])
        np.testing.assert_allclose(LPS[:3, :3] @ theirs, affine[:3], rtol=1e-6, atol=1e-4, err_msg=name)
