"""Slices on a grid of right angles, against SciPy's interpolation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.interpolate import RegularGridInterpolator

from monai_regplugins.readers.dicom_upright import resample_upright, upright_grid

VALUES = np.random.default_rng(0).random((8, 9, 6)).astype(np.float32)
SPACING = np.array([1.5, 2.0])
PLACES = np.array([0.0, 2.0, 4.0, 7.0, 9.0, 12.0])


def origins(drift: float) -> np.ndarray:
    return np.stack([np.full(6, 11.0), 5.0 + drift * PLACES, PLACES - 20.0], axis=1)


def test_uneven_slices_are_those_of_scipy() -> None:
    at = origins(0.0)
    grid = upright_grid(at, (8, 9), SPACING, even=False, upright=True)
    assert grid.shape == (8, 9, 7)
    np.testing.assert_allclose(grid.origin, [11.0, 5.0, -20.0])
    np.testing.assert_allclose(grid.spacing, [1.5, 2.0, 2.0])
    interpolate = RegularGridInterpolator((np.arange(8), np.arange(9), PLACES), VALUES)
    expected = interpolate(np.stack(np.meshgrid(np.arange(8), np.arange(9), 2.0 * np.arange(7), indexing="ij"), -1))
    np.testing.assert_allclose(resample_upright(VALUES, at, grid, True), expected, atol=1e-6)


@pytest.mark.parametrize("drift", [0.25, -0.4])
def test_tilted_slices_are_shifted_to_their_origins(drift: float) -> None:
    at = origins(drift)
    grid = upright_grid(at, (8, 9), SPACING, even=True, upright=False)
    assert grid.shape[:2] == (8, 9 + int(np.ceil(abs(drift) * 12 / 2)))
    assert grid.origin[1] == at[:, 1].min()
    level = np.linspace(PLACES[0], PLACES[-1], 6)
    even = np.column_stack([at[:, 0], 5.0 + drift * level, level])
    sampled = resample_upright(VALUES, even, grid._replace(origin=np.array([11.0, grid.origin[1], 0.0])), False)
    for k in range(6):
        y = (grid.origin[1] + 2.0 * np.arange(grid.shape[1]) - even[k, 1]) / 2.0
        inside = (y >= 0) & (y <= 8)
        for x in range(8):
            expected = np.interp(y[inside], np.arange(9), VALUES[x, :, k])
            np.testing.assert_allclose(sampled[x, inside, k], expected, atol=1e-5)
        np.testing.assert_allclose(sampled[:, (y < -1) | (y > 9), k], VALUES.min())


def test_two_near_slices_do_not_make_a_grid_of_many() -> None:
    at = np.zeros((5, 3))
    at[:, 2] = [0.0, 0.4, 3.0, 6.0, 9.0]
    grid = upright_grid(at, (2, 2), SPACING, even=False, upright=True)
    assert grid.shape[2] == 7  # 1.5 mm, half the usual distance
