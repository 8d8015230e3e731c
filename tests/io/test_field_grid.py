"""Checks of a field and its grid, and the units and frames of its components."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from field_cases import GRIDS, LPS, field_ras

from monai_regplugins import fields
from monai_regplugins.checks import InputError
from monai_regplugins.io.field_grid import (
    check_field,
    check_plane,
    ddf_of_displacement,
    displacement_of_ddf,
    swap_frame,
)

SHEARED = np.array([[1.0, 0.5, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


def test_a_field_comes_back_in_the_types_of_files() -> None:
    field, affine = check_field(field_ras().astype(np.float64).tolist(), np.eye(4, dtype=int))
    assert (field.dtype, affine.dtype) == (np.float32, np.float64)
    assert np.array_equal(field, field_ras())


@pytest.mark.parametrize(
    ("shape", "affine", "message"),
    [
        ((1, 3, 4, 4, 4), np.eye(4), "expected \\(3, X, Y, Z\\) or \\(2, X, Y\\)"),
        ((3, 4, 4), np.eye(4), "has shape \\(3, 4, 4\\)"),
        ((3, 4, 0, 4), np.eye(4), "has shape \\(3, 4, 0, 4\\)"),
        ((2, 4, 4), np.eye(3), "expected \\(4, 4\\)"),
        ((3, 4, 4, 4), np.diag([1.0, 0, 1, 1]), "not invertible"),
        ((3, 4, 4, 4), SHEARED, "sheared"),
    ],
)
def test_another_field_is_refused(shape: tuple[int, ...], affine: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_field(np.zeros(shape), affine)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_field_that_is_not_finite_is_refused(bad: float) -> None:
    field = field_ras()
    field[1, 2, 3, 4] = bad
    with pytest.raises(InputError, match=r"NaN or infinite .*again gives the same"):
        check_field(field, np.eye(4))


@pytest.mark.parametrize("name", GRIDS)
def test_units_and_frames_are_those_of_the_tensors(name: str) -> None:
    """The same conversions exist for tensors, tested there; a matrix product says what they are."""
    affine, ddf = GRIDS[name], field_ras()
    displacement = displacement_of_ddf(ddf, affine)
    lps = np.einsum("kj,j...->k...", (LPS @ affine)[:3, :3], ddf)
    np.testing.assert_allclose(swap_frame(displacement), lps, atol=1e-6)
    np.testing.assert_allclose(fields.voxel_to_ras(torch.from_numpy(ddf)[None], affine)[0], displacement, atol=2e-6)
    np.testing.assert_allclose(ddf_of_displacement(displacement, affine), ddf, atol=2e-6)


def test_a_sagittal_plane_has_components_along_a_and_s() -> None:
    """One voxel along the first axis of this slice is 2 mm backwards, along the second 3 mm up."""
    affine = np.array([[0.0, 0, 1, 7], [-2, 0, 0, 0], [0, 3, 0, 0], [0, 0, 0, 1]])
    ddf = np.array([[[1.0]], [[10.0]]], dtype=np.float32)
    assert displacement_of_ddf(ddf, affine).ravel().tolist() == [-2.0, 30.0]
    assert np.array_equal(ddf_of_displacement(displacement_of_ddf(ddf, affine), affine), ddf)
    with pytest.raises(InputError, match="leaves the world's x-y plane"):
        check_plane(affine, 2)
    check_plane(affine, 3)
