"""Maps along the axes, against SciPy and torch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from monai_regplugins.losses.axis_products import along_axes, box_matrix, gaussian_matrix, interpolation_matrix


@pytest.mark.parametrize("sizes", [((4, 5), (3, 6)), ((4, 5, 3), (2, 5, 7))])
def test_along_axes_is_a_product_with_each_matrix(sizes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    old, new = sizes
    values = torch.rand(2, 3, *old, dtype=torch.float64)
    matrices = [torch.rand(n, m, dtype=torch.float64) for m, n in zip(old, new, strict=True)]
    letters = "xyz"[: len(old)]
    terms = ",".join(f"{upper}{lower}" for upper, lower in zip("XYZ", letters, strict=False))
    expected = torch.einsum(f"bc{letters},{terms}->bc{'XYZ'[: len(old)]}", values, *matrices)
    torch.testing.assert_close(along_axes(values, matrices), expected)
    assert torch.autograd.gradcheck(lambda v: along_axes(v, matrices), values.requires_grad_())


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("window", [2, 3, 8, 9])
def test_box_matrix_sums_over_windows(window: int, stride: int) -> None:
    values = np.random.default_rng(0).random(13)
    # an even window of SciPy leans to the low side
    sums = ndimage.correlate1d(values, np.ones(window), mode="constant", origin=0 if window % 2 else -1)
    found = box_matrix(13, window, stride, torch.ones((), dtype=torch.float64)) @ torch.from_numpy(values)
    np.testing.assert_allclose(found.numpy(), sums[(stride - 1) // 2 :: stride])


def test_a_window_is_left_on_the_shortest_axes() -> None:
    assert box_matrix(1, 9, 2, torch.ones(())).tolist() == [[1.0]]


def test_interpolation_matrix_covers_the_same_length() -> None:
    expected = [np.interp((np.arange(9) + 0.5) * 5 / 9 - 0.5, np.arange(5), row) for row in np.eye(5)]
    np.testing.assert_allclose(interpolation_matrix(9, 5, torch.ones(())).numpy().T, expected, atol=1e-6)


@pytest.mark.parametrize(("size", "sigma"), [(12, 1.0), (3, 2.0), (1, 1.0), (7, 0.4)])
def test_gaussian_matrix_is_the_filter_of_scipy(size: int, sigma: float) -> None:
    expected = ndimage.gaussian_filter1d(np.eye(size), sigma, axis=0, mode="reflect", radius=math.floor(4 * sigma))
    np.testing.assert_allclose(gaussian_matrix(size, sigma, torch.ones(())).numpy(), expected, atol=1e-6)


def test_a_gaussian_without_width_changes_nothing() -> None:
    assert torch.equal(gaussian_matrix(3, 0.0, torch.ones(())), torch.eye(3))


def test_long_axes_in_blocks_are_the_whole_product() -> None:
    """Box sums and interpolation have few columns to a row, a Gaussian many, and a row may have none."""
    values = torch.rand(1, 2, 150, 5, 140, dtype=torch.float64, requires_grad=True)
    empty = box_matrix(140, 7, 1, values)
    empty[:80] = 0
    for first, last in (
        (box_matrix(150, 7, 1, values), empty),
        (gaussian_matrix(150, 9.0, values), interpolation_matrix(281, 140, values)),
        (interpolation_matrix(260, 150, values), gaussian_matrix(140, 1.0, values)),
    ):
        middle = torch.eye(5, dtype=torch.float64)
        found = along_axes(values, [first, middle, last])
        expected = torch.einsum("ck,bnajk->bnajc", last, torch.einsum("ai,bnijk->bnajk", first, values))
        torch.testing.assert_close(found, expected)
        (slope,) = torch.autograd.grad(found.square().sum(), values, retain_graph=True)
        (wanted,) = torch.autograd.grad(expected.square().sum(), values)
        torch.testing.assert_close(slope, wanted)
