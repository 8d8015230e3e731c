"""Our files in the hands of programs that are not ours and not SimpleITK: nitransforms and ANTs."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from field_cases import GRIDS, LPS, field_ras, move, points_inside

from monai_regplugins.io.displacement import save_itk_nifti

NAMES = list(GRIDS)


@pytest.fixture
def nonlinear() -> Any:
    """nitransforms' fields; it warns about its own dependencies when it is imported."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("nitransforms.nonlinear", reason="needs nitransforms")


@pytest.fixture
def ants() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("ants", reason="needs the benchmark extra")


@pytest.mark.parametrize("name", NAMES)
def test_nitransforms_moves_points_to_the_same_place(nonlinear: Any, tmp_path: Path, name: str) -> None:
    affine, displacement = GRIDS[name], field_ras()
    save_itk_nifti(displacement, affine, tmp_path / "field.nii.gz")
    field = nonlinear.DenseFieldTransform.from_filename(tmp_path / "field.nii.gz", fmt="itk")
    centers = np.moveaxis(np.indices(displacement.shape[1:]), 0, -1).reshape(-1, 3) @ affine[:3, :3].T + affine[:3, 3]
    moved = field.map(centers)  # at the centers of voxels, between which it takes splines where we are linear
    np.testing.assert_allclose(moved, centers + displacement.reshape(3, -1).T, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_ants_moves_points_to_the_same_place_and_composes_in_its_own_order(
    ants: Any, tmp_path: Path, name: str
) -> None:
    """The first transform listed meets a point first."""
    affine, displacement = GRIDS[name], field_ras()
    save_itk_nifti(displacement, affine, tmp_path / "field.nii.gz")
    matrix = sitk.AffineTransform([1.05, 0.1, 0.0, -0.1, 0.95, 0.02, 0.0, 0.03, 1.0], [3.0, -4.0, 5.0])
    sitk.WriteTransform(matrix, str(tmp_path / "affine.mat"))
    points = points_inside(affine, displacement.shape[1:], count=50)

    pandas = pytest.importorskip("pandas")
    signs = np.diag(LPS)[:3]
    table = pandas.DataFrame(points * signs, columns=list("xyz"))
    both = [str(tmp_path / "field.nii.gz"), str(tmp_path / "affine.mat")]
    found = ants.apply_transforms_to_points(3, table, both)[list("xyz")].to_numpy()

    bent = move(points, displacement, affine) * signs
    np.testing.assert_allclose(found, [matrix.TransformPoint(point) for point in bent.tolist()], atol=1e-3)
