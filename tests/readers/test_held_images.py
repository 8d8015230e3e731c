"""Images that other libraries hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.data import MetaTensor

from monai_regplugins import load_bundle
from monai_regplugins.checks import InputError
from monai_regplugins.readers.held_images import held_image
from monai_regplugins.readers.images import read_scan

AFFINE = np.array([[0.0, -2.0, 0.0, 10.0], [1.5, 0.0, 0.0, -20.0], [0.0, 0.0, 3.0, 30.0], [0.0, 0.0, 0.0, 1.0]])


class ScalarImage:
    """What TorchIO's images are: four-dimensional tensors with an affine."""

    __module__ = "torchio.data.image"

    def __init__(self, tensor: Any, affine: Any) -> None:
        self.data, self.affine = tensor, affine


@pytest.fixture
def values() -> Any:
    """Smooth intensities."""
    x = np.indices((18, 20, 16))
    return (200 * np.exp(-sum((axis - 9) ** 2 for axis in x) / 40)).astype(np.int16)


@pytest.fixture
def held(values: Any, tmp_path: Path) -> dict[str, Any]:
    """One image, as a file and as each library holds it."""
    nib.save(image := nib.Nifti1Image(values, AFFINE), file := tmp_path / "image.nii.gz")
    torchio = ScalarImage(torch.from_numpy(values)[None], AFFINE)
    return {"file": str(file), "nibabel": image, "SimpleITK": sitk.ReadImage(str(file)), "torchio": torchio}


@pytest.mark.parametrize("library", ["nibabel", "SimpleITK", "torchio"])
def test_values_and_place_are_those_of_the_file(library: str, held: dict[str, Any]) -> None:
    scan, found = read_scan(held["file"], "image"), held_image(held[library])
    assert isinstance(found, MetaTensor)
    assert not found.is_floating_point()
    np.testing.assert_array_equal(found.as_tensor().squeeze(0), scan.values)
    np.testing.assert_allclose(found.affine, AFFINE, atol=1e-5)
    np.testing.assert_allclose(found.affine, scan.affine, atol=1e-5)


def test_anything_else_stays(values: Any) -> None:
    for source in ("a.nii", Path("a.nii"), values, torch.from_numpy(values), MetaTensor(torch.zeros(1))):
        assert held_image(source) is source


def test_a_plane_of_simpleitk() -> None:
    image = sitk.Image([4, 5], sitk.sitkFloat32)
    image.SetSpacing([2.0, 3.0])
    found = held_image(image)
    assert found.shape == (4, 5)
    np.testing.assert_array_equal(found.affine, np.diag([-2.0, -3.0, 1.0, 1.0]))


@pytest.mark.parametrize(
    "image", [sitk.Image([4, 5, 6], sitk.sitkVectorFloat32, 3), ScalarImage(torch.zeros(3, 4, 5, 6), np.eye(4))]
)
def test_several_values_per_voxel(image: Any) -> None:
    with pytest.raises(InputError, match=r"an image of \w+ has 3 values per voxel, expected 1"):
        held_image(image)


def test_they_register_like_their_file(held: dict[str, Any], values: Any, tmp_path: Path) -> None:
    """With a moving image and a label map from another library than the fixed image."""
    register = load_bundle("ran", device="cpu", refine_steps=0)
    nib.save(nib.Nifti1Image(np.roll(values, 1, 0), AFFINE), moving := tmp_path / "moving.nii.gz")
    label = nib.Nifti1Image((values > 100).astype(np.uint8), AFFINE)
    nib.save(label, labels := tmp_path / "label.nii.gz")
    wanted = register(held["file"], moving, fixed_label=labels, moving_label=labels)
    found = register(held["torchio"], sitk.ReadImage(str(moving)), fixed_label=label, moving_label=label)
    torch.testing.assert_close(found.ddf, wanted.ddf, rtol=0, atol=1e-4)
    torch.testing.assert_close(found.displacement, wanted.displacement, rtol=0, atol=1e-3)
    assert found.metrics["dsc"] == pytest.approx(wanted.metrics["dsc"], abs=1e-4)
