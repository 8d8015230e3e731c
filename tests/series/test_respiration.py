"""The respiratory curve of a registered series, and the axes of the patient."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from monai_regplugins.checks import InputError
from monai_regplugins.readers.cine import CineSeries
from monai_regplugins.series.respiration import head_axis, plane_axes, respiratory_curve

SHAPE = (3, 6, 4)
DOWN_BACK = [[0, 0, -10.0], [0, -1.5, 0], [-2.0, 0, 0]]  # columns of the affine: H, W, slice
UP_RIGHT = [[0, 1.5, 0], [0, 0, 10.0], [2.0, 0, 0]]
BACK_UP = [[0, 0, 10.0], [-1.5, 0, 0], [0, 2.0, 0]]
AXIAL = np.diag([2.0, 1.5, 10.0])


def series(matrix, slice_axis=2):
    affine = np.eye(4)
    affine[:3, :3] = matrix
    axes = [axis for axis in range(3) if axis != slice_axis]
    spacing = np.linalg.norm(affine[:3, axes], axis=0)
    return CineSeries(np.ones(SHAPE, np.float32), tuple(spacing.tolist()), None, affine, "toy", slice_axis)


@pytest.mark.parametrize(
    ("matrix", "expected"), [(DOWN_BACK, (0, -1)), (UP_RIGHT, (0, 1)), (BACK_UP, (1, 1)), (AXIAL, None)]
)
def test_head_axis(matrix, expected):
    assert head_axis(series(matrix)) == expected


def test_head_axis_with_the_slice_first():
    """A file (1, W, H, T) in RAS order: the frame's second axis runs to the head."""
    assert head_axis(series(np.diag([10.0, 1.5, 2.0]), slice_axis=0)) == (1, 1)
    np.testing.assert_array_equal(plane_axes(series(np.diag([10.0, 1.5, 2.0]), 0)), [[0, 0], [1, 0], [0, 1]])


@pytest.mark.parametrize(
    ("matrix", "component", "factor"),
    [(DOWN_BACK, 0, 2.0), (UP_RIGHT, 0, -2.0), (BACK_UP, 1, -2.0), (AXIAL, 0, 2.0)],
)
def test_curve_is_the_mean_displacement_to_the_feet_in_mm(matrix, component, factor):
    ddf = np.random.default_rng(0).normal(size=(3, 2, 6, 4))
    expected = factor * ddf[:, component].mean(axis=(1, 2))
    np.testing.assert_allclose(respiratory_curve(ddf, series(matrix)), expected, atol=1e-12)
    tensor = torch.tensor(ddf, requires_grad=True)
    np.testing.assert_allclose(respiratory_curve(tensor, series(matrix)), expected, atol=1e-12)


def test_curve_within_a_mask():
    ddf = np.random.default_rng(0).normal(size=(3, 2, 6, 4))
    mask = np.zeros((6, 4))
    mask[2, 1:3] = 1
    np.testing.assert_allclose(respiratory_curve(ddf, series(AXIAL), mask), 2 * ddf[:, 0, 2, 1:3].mean(axis=1))


@pytest.mark.parametrize(
    ("shape", "mask", "message"),
    [
        ((2, 2, 6, 4), None, r"fields have shape \(2, 2, 6, 4\), expected \(3, 2, 6, 4\)"),
        ((3, 2, 6, 4), np.zeros((6, 4)), "0 pixels"),
        ((3, 2, 6, 4), np.ones((4, 6)), r"mask has shape \(4, 6\)"),
    ],
)
def test_refused(shape, mask, message):
    with pytest.raises(InputError, match=message):
        respiratory_curve(np.zeros(shape), series(AXIAL), mask)
