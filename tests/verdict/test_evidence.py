"""Evidence in closed form."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy import ndimage

from monai_regplugins import fields
from monai_regplugins.verdict.evidence import (
    brightness_shift,
    clipped_percent,
    covered_percent,
    extents,
    field_evidence,
    local_similarity,
    mirror_gain,
    overlap_percent,
    sides_match,
    unchanged_percent,
)


def scaled(factor: float, *shift: float) -> torch.Tensor:
    """From fixed voxels to moving voxels that are ``factor`` times as many, 3D."""
    matrix = torch.diag(torch.tensor([factor, factor, factor, 1.0], dtype=torch.float64))
    matrix[:3, 3] = torch.tensor(shift or (0.0, 0.0, 0.0))
    return matrix


@pytest.mark.parametrize(
    ("matrix", "fixed", "moving", "expected"),
    [
        (scaled(1.0), (8, 9, 10), (8, 9, 10), 100.0),
        (scaled(1.0, 0.0, 0.0, 5.0), (8, 9, 10), (8, 9, 10), 50.0),
        (scaled(1.0, 0.0, 0.0, 10.0), (8, 9, 10), (8, 9, 10), 0.0),
        (scaled(2.0, 0.5, 0.5, 0.5), (8, 8, 8), (16, 16, 16), 100.0),  # the same place in voxels half as large
        (scaled(1.0, 0.0, 0.0, -8.0), (8, 8, 32), (8, 8, 8), 100.0),  # a crop of the fixed image
    ],
)
def test_shared_field_of_view(
    matrix: torch.Tensor, fixed: tuple[int, ...], moving: tuple[int, ...], expected: float
) -> None:
    assert overlap_percent(matrix, fixed, moving) == pytest.approx(expected, abs=4)


def test_a_crop_covers_its_share_of_the_fixed_image() -> None:
    crop, place = scaled(1.0, 0.0, 0.0, -8.0), ((8, 8, 32), (8, 8, 8))
    assert overlap_percent(crop, *place) == 100.0
    assert covered_percent(crop, *place) == pytest.approx(25.0, abs=1)
    assert covered_percent(torch.linalg.inv(crop), *reversed(place)) == 100.0


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_swapped_sides_are_seen_along_the_axis_from_left_to_right(axis: int) -> None:
    noise = torch.rand(1, 24, 24, 24, generator=torch.Generator().manual_seed(0))
    fixed = torch.from_numpy(ndimage.gaussian_filter(noise.numpy(), (0, 2, 2, 2)))
    affine = torch.eye(4)[:, [*torch.arange(3).roll(axis).tolist(), 3]]
    along = int(affine[0].argmax())
    swapped, same = (mirror_gain(one, fixed, affine) for one in (fixed.flip(along + 1), fixed))
    assert swapped == pytest.approx(-same)
    assert swapped > 0.3
    assert mirror_gain(fixed.flip((along + 1) % 3 + 1), fixed, affine) < 0.3


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_match_of_the_sides_is_the_correlation_of_what_is_not_symmetric(axis: int) -> None:
    affine = torch.eye(4)[:, [*torch.arange(3).roll(axis).tolist(), 3]]
    along = int(affine[0].argmax()) + 1
    symmetric, first, second = torch.rand(3, 1, 12, 12, 12, generator=torch.Generator().manual_seed(0))
    symmetric = symmetric + symmetric.flip(along)
    parts = [(one - one.flip(along)).flatten().numpy() for one in (first, second)]
    expected = np.corrcoef(*parts)[0, 1]  # their means are 0
    assert sides_match(first + symmetric, 3 * second - 7, affine) == pytest.approx(expected, abs=1e-5)
    assert sides_match(first.flip(along), second, affine) == pytest.approx(-expected, abs=1e-5)
    assert math.isnan(sides_match(first, torch.ones_like(second), affine))


def test_a_slice_without_left_and_right_has_no_sides() -> None:
    rotated = torch.tensor([[0.6, 0.0, 0.0], [0.8, 1.0, 0.0], [0.0, 0.0, 1.0]])
    for sides in (mirror_gain, sides_match):
        assert math.isnan(sides(torch.rand(1, 20, 20), torch.rand(1, 20, 20), rotated))


def test_extents_are_mm() -> None:
    assert extents((4, 5), torch.tensor([[0.0, 3.0, 7.0], [2.0, 0.0, 1.0], [0.0, 0.0, 1.0]])) == [8.0, 15.0]


def test_a_shift_moves_and_returns() -> None:
    ddf = torch.zeros(3, 20, 20, 60)
    ddf[0] = 2.0
    found = field_evidence(ddf, [3.0, 1.0, 1.0])
    assert found["motion95"] == pytest.approx(6.0, rel=1e-5)
    assert found["motion_percent"] == pytest.approx(100 * 6.0 / ((60 + 20 + 60) / 3), rel=1e-5)
    assert found["inverse95"] == pytest.approx(0.0, abs=1e-4)


def test_a_field_that_folds_has_no_inverse() -> None:
    ddf = 12 * torch.randn(2, 32, 32, generator=torch.Generator().manual_seed(0))
    assert field_evidence(ddf, [1.0, 1.0])["inverse95"] > 5
    assert all(math.isnan(value) for value in field_evidence(ddf / 0, [1.0, 1.0]).values())


def test_the_mask_says_where_the_motion_counts() -> None:
    ddf, mask = torch.zeros(2, 16, 16), torch.zeros(1, 16, 16)
    ddf[0, :8], mask[:, 8:] = 1.0, 1.0
    assert field_evidence(ddf, [1.0, 1.0])["motion95"] == pytest.approx(1.0)
    assert field_evidence(ddf, [1.0, 1.0], mask)["motion95"] == 0.0


def smooth_noise(seed: int, size: tuple[int, ...] = (40, 40)) -> torch.Tensor:
    values = torch.randn(1, *size, generator=torch.Generator().manual_seed(seed))
    return torch.as_tensor(ndimage.gaussian_filter(values.numpy(), [0] + [1.5] * len(size)))


def test_similarity_is_of_structure_not_of_intensity() -> None:
    fixed = smooth_noise(0)
    assert local_similarity(5 - 3 * fixed, fixed) == pytest.approx(1.0, abs=1e-3)
    assert local_similarity(smooth_noise(1), fixed) < 0.25
    shifted = fields.warp(fixed[None], torch.full((1, 2, 40, 40), 1.0))[0]
    assert 0.25 < local_similarity(shifted, fixed) < 0.95
    assert math.isnan(local_similarity(fixed, torch.zeros_like(fixed)))
    assert local_similarity(torch.zeros_like(fixed), fixed) == pytest.approx(0.0, abs=1e-6)


def test_only_what_counts_is_compared_and_flat_parts_are_not() -> None:
    fixed = smooth_noise(0)
    moving, counts = fixed.clone(), torch.ones_like(fixed)
    moving[:, 20:], counts[:, 20:] = smooth_noise(1)[:, 20:], 0.0
    assert local_similarity(moving, fixed, counts) == pytest.approx(1.0, abs=1e-3)
    assert local_similarity(moving, fixed) < 0.75
    half, noisy = fixed.clone(), fixed.clone()
    half[:, 20:] = 0.0
    noisy[:, 20:] = 0.001 * smooth_noise(1)[:, 20:]
    assert local_similarity(noisy, half) > 0.9


def test_brightness_is_compared_where_both_count() -> None:
    """CT without its intercept: 1024 HU of a standard deviation of 500, whatever lies outside of the mask."""
    fixed = 500 * torch.randn(1, 40, 40)
    fixed = (fixed - fixed[:, :, :20].mean()) * 500 / fixed[:, :, :20].std(correction=0)
    moving, inside = fixed + 1024, torch.zeros(1, 40, 40, dtype=torch.bool)
    inside[:, :, :20] = True
    moving[:, :, 20:] = -5000.0
    assert brightness_shift(moving, fixed, inside) == pytest.approx(1024 / 500, rel=1e-4)
    assert brightness_shift(fixed, fixed) == 0
    assert math.isnan(brightness_shift(fixed, torch.ones(1, 40, 40)))


def windows_correlation(image: torch.Tensor, fixed: torch.Tensor) -> npt.NDArray[Any]:
    """Squared correlation in windows of 7 voxels, which end at the edge of the image, as SciPy finds it."""

    def mean(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.asarray(
            ndimage.uniform_filter(values, 7, mode="constant")
            / ndimage.uniform_filter(np.ones_like(values), 7, mode="constant")
        )

    a, b = image[0].double().numpy(), fixed[0].double().numpy()
    products = [mean(one * other) - mean(one) * mean(other) for one, other in ((a, b), (a, a), (b, b))]
    return np.asarray(products[0] ** 2 / (products[1] * products[2]))


def test_what_matched_as_well_before() -> None:
    fixed, before, after = (smooth_noise(seed) for seed in (0, 1, 2))
    after, before = fixed + 0.3 * after, torch.where(torch.arange(40).view(1, 40, 1) < 24, fixed, before)
    states = [windows_correlation(one, fixed) for one in (before, after)]
    expected = 100 * float((states[0] >= states[1] - 0.05).mean())
    assert 45 < expected < 75
    assert unchanged_percent(before, after, fixed) == pytest.approx(expected, abs=0.3)
    inside = torch.zeros(1, 40, 40)
    inside[:, :20] = 1.0
    assert unchanged_percent(before, after, fixed, inside) == 100.0
    assert math.isnan(unchanged_percent(before, after, torch.ones(1, 40, 40)))


def test_clipped_share_of_the_brighter_part() -> None:
    image = torch.linspace(0, 1, 101).reshape(1, 1, 101)
    assert clipped_percent(image) < 3
    assert clipped_percent(image.clamp(max=0.75)) == pytest.approx(100 * 26 / 54, abs=3)
    assert math.isnan(clipped_percent(torch.ones(1, 4, 4)))


@pytest.mark.parametrize("size", [(40, 40), (90, 70)], ids=["as it is", "made coarser"])
def test_what_does_not_count_does_not_matter(size: tuple[int, ...]) -> None:
    fixed, counts = smooth_noise(0, size), torch.ones(1, *size)
    counts[:, 13:21, 5:] = 0.0
    image = fixed + smooth_noise(1, size)
    others = [torch.where(counts > 0, one, value) for one, value in ((image, 1e3), (fixed, -1e3))]
    found = local_similarity(image, fixed, counts)
    assert 0.2 < found < 0.9
    assert local_similarity(*others, counts) == pytest.approx(found, abs=1e-4)
