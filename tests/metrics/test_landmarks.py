"""Landmark errors where the field is known in closed form."""

from __future__ import annotations

import pytest
import torch

from monai_regplugins.fields import identity_grid
from monai_regplugins.metrics import landmark_errors, pair_metrics


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
