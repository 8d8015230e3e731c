"""Pairs with a ground truth out of one image."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy import ndimage

from monai_regplugins.benchmark.synthetic_warp import find_sources, main, synthetic_displacement
from monai_regplugins.checks import InputError
from monai_regplugins.data import validation_pairs
from monai_regplugins.metrics.landmarks import landmark_differences
from monai_regplugins.metrics.regularity import folding
from monai_regplugins.transforms import LoadPaird, ResampleToFixedd

SHAPE, SPACING = (24, 30, 20), (2.0, 1.5, 3.0)


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An anisotropic image of smooth structures, and labels of it, with a header that mirrors the first axis."""
    folder, rng = tmp_path_factory.mktemp("scan"), np.random.default_rng(0)
    image = 500 * ndimage.gaussian_filter(rng.normal(size=SHAPE), 2.5)
    affine = np.diag([-SPACING[0], SPACING[1], SPACING[2], 1.0])
    nib.save(nib.Nifti1Image(image.astype(np.float32), affine), folder / "image.nii.gz")
    nib.save(nib.Nifti1Image((image > 0).astype(np.uint8) * 3, affine), folder / "label.nii.gz")
    return folder / "image.nii.gz", folder / "label.nii.gz"


@pytest.fixture(scope="module")
def dataset(scan: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("made") / "Warped"
    size = ["--pairs", "2", "--largest", "5", "--sigma", "12", "--landmarks", "60"]
    return main([str(scan[0]), "--label", str(scan[1]), "--output_dir", str(target), *size])


def test_the_synthetic_displacement_registers_image_labels_and_landmarks(dataset: Path) -> None:
    pairs = validation_pairs(dataset)
    assert [pair["pair_id"] for pair in pairs] == ["0000_to_0001", "0000_to_0002"]
    for number, listed in enumerate(pairs, start=1):
        pair = ResampleToFixedd()(LoadPaird()(listed))
        ddf = nib.load(dataset / "displacements" / f"disp_{number:04d}_0000.nii.gz").get_fdata()
        at = np.indices(SHAPE) + np.moveaxis(ddf, -1, 0)
        expected = ndimage.map_coordinates(pair["moving"][0].numpy(), at, order=3, mode="nearest")
        inner = tuple(slice(3, -3) for _ in SHAPE)  # SciPy continues the image differently at the border
        assert np.abs(expected - pair["fixed"][0].numpy())[inner].max() < 0.02 * expected.std()
        labels = ndimage.map_coordinates(pair["moving_label"][0].numpy(), at, order=0, mode="nearest")
        assert (labels != pair["fixed_label"][0].numpy()).mean() < 0.001  # ties are rounded either way
        exact = torch.from_numpy(np.moveaxis(ddf, -1, 0).copy()).float()
        points = [pair[f"{side}_landmarks"] for side in ("fixed", "moving")]
        errors = landmark_differences(*points, pair["spacing"], exact)
        before = landmark_differences(*points, pair["spacing"], torch.zeros_like(exact))
        assert len(points[0]) > 20
        # linear interpolation of the field errs by a few hundredths of a voxel
        assert errors.norm(dim=1).mean() < 0.02 * before.norm(dim=1).mean()


def test_components_reach_the_largest_in_mm_and_nothing_folds() -> None:
    spacing = torch.tensor(SPACING)
    field, ddf = synthetic_displacement(np.random.default_rng(3), SHAPE, spacing, 4.0, 12.0)
    millimeters = ddf * spacing.reshape(3, 1, 1, 1)
    assert 2.0 < millimeters.abs().max() <= 4.0 + 1e-4
    assert folding(ddf)[0] == 0
    node = torch.tensor([[10 * SPACING[0], 7 * SPACING[1], 5 * SPACING[2]]], dtype=torch.float64)
    torch.testing.assert_close(field.at(node)[0].float(), millimeters[:, 10, 7, 5])


def test_sources_are_moved_to_their_targets() -> None:
    field, _ = synthetic_displacement(np.random.default_rng(1), SHAPE, torch.ones(3), 4.0, 8.0)
    targets = torch.rand(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 20
    sources = find_sources(field, targets)
    torch.testing.assert_close(sources + field.at(sources), targets, atol=1e-3, rtol=0)


def test_labels_may_be_missing_and_the_seed_decides(scan: tuple[Path, Path], tmp_path: Path) -> None:
    def first(seed: int) -> np.ndarray:
        folder = main([str(scan[0]), "--output_dir", str(tmp_path / f"{seed}-{len(list(tmp_path.iterdir()))}"),
                       "--sigma", "15", "--landmarks", "5", "--seed", str(seed)])  # fmt: skip
        assert not (folder / "labelsTr").exists()
        return np.asarray(nib.load(folder / "displacements" / "disp_0001_0000.nii.gz").get_fdata())

    one = first(1)
    assert np.array_equal(one, first(1))
    assert not np.allclose(one, first(2))


def test_a_folder_with_something_in_it_is_left_alone(scan: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    with pytest.raises(InputError, match="is not empty"):
        main([str(scan[0]), "--output_dir", str(tmp_path)])
    assert [file.name for file in tmp_path.iterdir()] == ["precious"]


def test_bad_numbers_and_files_are_told(scan: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="pairs is 0"):
        main([str(scan[0]), "--output_dir", str(tmp_path / "a"), "--pairs", "0"])
    with pytest.raises(InputError, match="sigma"):
        main([str(scan[0]), "--output_dir", str(tmp_path / "a"), "--sigma", "0"])
    with pytest.raises(InputError, match="does not exist"):
        main(["missing.nii.gz", "--output_dir", str(tmp_path / "a")])
    assert list(tmp_path.iterdir()) == []
