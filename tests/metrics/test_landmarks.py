"""Landmark errors where the field is known in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from monai_regplugins.checks import InputError
from monai_regplugins.fields import identity_grid
from monai_regplugins.metrics.landmarks import (
    landmark_differences,
    landmark_errors,
    landmark_statistics,
    mean_of_worst,
)
from monai_regplugins.metrics.pair import pair_metrics


@pytest.mark.parametrize("dims", [2, 3])
def test_linear_field_is_exact_between_the_voxels(dims: int) -> None:
    matrix = torch.eye(dims) + 0.1 * torch.randn(dims, dims)
    grid = identity_grid([12] * dims)
    ddf = torch.einsum("ij,j...->i...", matrix - torch.eye(dims), grid)
    points = 1 + 9 * torch.rand(20, dims)
    spacing = torch.tensor([0.5, 2.0, 3.0][:dims])
    offset = torch.randn(20, dims)
    errors = landmark_errors(points, points @ matrix.T + offset / spacing, spacing, ddf)
    torch.testing.assert_close(errors, offset.norm(dim=1).double(), rtol=1e-4, atol=1e-4)


def test_distance_before_is_in_mm() -> None:
    errors = landmark_errors(torch.tensor([[1.0, 2.0]]), torch.tensor([[4.0, 0.0]]), [1.0, 2.0])
    assert errors.tolist() == [5.0]


def test_measures_of_a_pair_hold_mean_and_maximum() -> None:
    image = torch.rand(1, 8, 8)
    fixed, moving = torch.tensor([[1.0, 1.0], [5.0, 5.0]]), torch.tensor([[2.0, 1.0], [5.0, 8.0]])
    ddf = torch.zeros(2, 8, 8)
    ddf[0] = 1.0
    values = pair_metrics(
        moving=image, fixed=image, warped=image, ddf=ddf, spacing=[1, 1], moving_points=moving, fixed_points=fixed
    )
    assert (values["tre_before"], values["tre_max_before"]) == (2.0, 3.0)
    assert values["tre"] == pytest.approx((0 + 10**0.5) / 2)
    assert values["tre_max"] == pytest.approx(10**0.5)


def test_differences_point_from_the_moving_point_to_the_mapped_one() -> None:
    ddf = torch.zeros(2, 6, 6)
    ddf[0], ddf[1] = 1.0, -2.0
    fixed, moving = torch.tensor([[1.0, 4.0], [2.5, 3.5]]), torch.tensor([[4.0, 1.0], [3.5, 1.5]])
    differences = landmark_differences(fixed, moving, [0.5, 3.0], ddf)
    assert differences.tolist() == [[-1.0, 3.0], [0.0, 0.0]]
    assert landmark_errors(fixed, moving, [0.5, 3.0], ddf).tolist() == pytest.approx([10**0.5, 0.0])


def test_statistics_equal_numpys() -> None:
    vectors = torch.randn(37, 3, dtype=torch.float64) * torch.tensor([1.0, 2.0, 5.0])
    initial = 16 * torch.rand(37)
    values = landmark_statistics(vectors, initial)
    distances = np.linalg.norm(vectors.numpy(), axis=1)
    near = distances[initial.numpy() <= 8]
    assert 5 < len(near) < 32
    expected = {
        "landmarks": 37,
        "tre": distances.mean(),
        "tre_sd": distances.std(ddof=1),
        "tre_median": np.median(distances),
        "tre_p75": np.percentile(distances, 75),
        "tre_p95": np.percentile(distances, 95),
        "tre_max": distances.max(),
        "tre30": np.sort(distances)[-12:].mean(),  # 30 % of 37, rounded up
        **{f"tre_axis_{k}": np.abs(vectors.numpy()[:, k]).mean() for k in range(3)},
        "landmarks_within": len(near),
        "tre_within": near.mean(),
        "tre_within_sd": near.std(ddof=1),
    }
    assert values == pytest.approx(expected, rel=1e-12)
    assert list(values) == list(expected)


def test_the_worst_are_thirty_percent() -> None:
    """As many of either end as Learn2Reg's ten test cases have: three; rounded up else, NaN left out."""
    cases = torch.tensor([4.0, 1.0, 9.0, 2.0, 8.0, 3.0, 10.0, 6.0, 5.0, 7.0])
    assert mean_of_worst(cases) == 9.0
    assert mean_of_worst(cases, largest=False) == 2.0
    assert mean_of_worst(torch.cat([cases, torch.tensor([math.nan, 11.0])])) == 9.5
    assert mean_of_worst(torch.tensor([2.0, 1.0])) == 2.0
    assert math.isnan(mean_of_worst(torch.tensor([math.nan])))


def test_the_capture_range_ends_at_8_mm_of_distance() -> None:
    """Vectors count with their length, as distances do; 8 mm itself is within."""
    errors, initial = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([[8.0, 0.0], [6.0, 6.0], [0.0, 0.0]])
    values = landmark_statistics(errors, initial)
    assert (values["landmarks_within"], values["tre_within"]) == (2.0, 2.5)
    assert values == landmark_statistics(errors, torch.linalg.vector_norm(initial, dim=1))
    assert not [name for name in values if "axis" in name]


def test_too_few_landmarks_are_unknown() -> None:
    one = landmark_statistics(torch.tensor([3.0]), torch.tensor([9.0]))
    assert (one["tre"], one["tre_max"], one["landmarks_within"]) == (3.0, 3.0, 0.0)
    assert all(math.isnan(one[name]) for name in ("tre_sd", "tre_within", "tre_within_sd"))
    assert math.isnan(landmark_statistics(torch.zeros(0))["tre_p95"])


def test_landmarks_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="initial has size 2 but errors has 3"):
        landmark_statistics(torch.zeros(3), torch.zeros(2))
    with pytest.raises(InputError, match=r"errors has shape \(1, 3, 2\)"):
        landmark_statistics(torch.zeros(1, 3, 2))
