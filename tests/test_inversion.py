"""Inverses point by point, against maps whose inverse is known."""

from __future__ import annotations

import math

import pytest
import torch

from monai_regplugins import fields
from monai_regplugins.inversion import inverse_at, solve


def test_a_shear_that_the_plain_fixed_point_does_not_undo() -> None:
    """Neighbors move apart by four times their distance."""

    def forward(x: torch.Tensor) -> torch.Tensor:
        first = x[:, 0] + 4 * x[:, 1].sin()
        return torch.stack([first, x[:, 1] + 2 * first.sin()], dim=1)

    expected = torch.rand(500, 2, dtype=torch.float64) * 6 - 3
    points = forward(expected)
    found, left = solve(forward, points, expected + 0.2 * torch.randn_like(expected), torch.eye(2).double(), 1e-9)
    solved = left <= 1e-9
    assert solved.double().mean() > 0.95
    torch.testing.assert_close(found[solved], expected[solved], atol=1e-6, rtol=0)
    torch.testing.assert_close((forward(found) - points).norm(dim=1), left)


@pytest.mark.parametrize("size", [(30, 32), (20, 18, 16)])
def test_a_field_is_inverted_at_points_between_its_voxels(size: tuple[int, ...]) -> None:
    x = fields.identity_grid(size, dtype=torch.float64)
    ddf = torch.stack([2 * (0.9 * one).sin() for one in [*x[1:], 0 * x[0]]])[None]  # shears in a row, which do not fold
    points = torch.rand(300, len(size), dtype=torch.float64) * (torch.tensor(size) - 1)
    v, left = inverse_at(ddf, points, 1e-6)
    torch.testing.assert_close(v + fields.sample_at(ddf, (points + v)[None])[0], torch.zeros_like(v), atol=1e-6, rtol=0)
    assert left.max() <= 1e-6
    assert not v.requires_grad


def test_what_has_no_inverse_is_reported() -> None:
    ddf = torch.zeros(1, 2, 12, 12)
    ddf[0, 0, 6:] = 4.0  # a gap
    _, left = inverse_at(ddf, torch.tensor([[2.0, 5.0], [11.0, 5.0]]))
    assert left.tolist() == [0.0, 0.0]
    ddf[0, 0] = fields.identity_grid((12, 12))[0].neg()  # all rows go to the first one
    _, left = inverse_at(ddf, torch.tensor([[0.0, 5.0], [3.0, 5.0]]))
    assert left.tolist() == [0.0, pytest.approx(3.0)]
    _, left = inverse_at(torch.full((1, 2, 4, 4), math.nan), torch.ones(1, 2))
    assert left.isnan().all()
