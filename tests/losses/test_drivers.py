"""Labels and landmarks as terms of a loss: values against independent ones, gradients against autograd, slabs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from monai_regplugins import fields
from monai_regplugins.losses import LabelOverlapLoss
from monai_regplugins.losses.drivers import SPREAD, Driver, LabelDistance, LandmarkDistance

SIZES = [(9, 11), (7, 6, 8)]
DOUBLE = torch.float64


def maps(size: tuple[int, ...]) -> list[torch.Tensor]:
    """Moving and fixed label maps of two labels, which fill the grid."""
    return list(torch.randint(3, (2, 1, 1, *size)))


def shares(
    moving: torch.Tensor, fixed: torch.Tensor, dtype: torch.dtype = DOUBLE
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [((moving == k).to(dtype), (fixed == k).to(dtype)) for k in (1, 2)]


def labels(size: tuple[int, ...], dtype: torch.dtype = DOUBLE) -> Driver:
    """With weights, and a part of the moving image that does not count."""
    weights, seen = torch.rand(1, 1, *size, dtype=dtype), (torch.rand(1, 1, *size) > 0.05).to(dtype)
    return LabelDistance(shares(*maps(size), dtype), 0.7, weights, seen)


def landmarks(size: tuple[int, ...], dtype: torch.dtype = DOUBLE) -> Driver:
    points = torch.rand(5, len(size), dtype=dtype) * (torch.tensor(size) - 1)
    return LandmarkDistance(points, torch.randn_like(points), size, torch.rand(5))


@pytest.mark.parametrize("size", SIZES)
def test_label_distance_is_the_squared_difference_to_the_warped_label(size: tuple[int, ...]) -> None:
    moving, fixed = maps(size)
    weights = torch.rand(1, 1, *size, dtype=DOUBLE)
    ddf = torch.randn(1, len(size), *size, dtype=DOUBLE, requires_grad=True)
    expected = torch.zeros((), dtype=DOUBLE)
    for m, f in shares(moving, fixed):
        difference = (fields.warp(m, ddf, padding="border") - f).square()
        expected = expected + (difference * weights).sum() / ((m + f) * weights).sum() / 2
    found = LabelDistance(shares(moving, fixed), weights=weights)(ddf)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*(torch.autograd.grad(value, ddf)[0] for value in (found, expected)))


def test_label_distance_of_equal_volumes_is_one_minus_the_soft_dice() -> None:
    label = torch.zeros(1, 1, 30, 30).index_fill(2, torch.arange(10, 16), 1.0)
    label[..., 20:, :] = 2
    moved = torch.zeros(1, 2, 30, 30)
    moved[:, 1] = 3
    found = LabelDistance([((label == k).float(), (label.roll(2, 2) == k).float()) for k in (1, 2)])
    torch.testing.assert_close(found(moved * 0), LabelOverlapLoss()(moved * 0, label, label.roll(2, 2)))


def test_label_distance_does_not_count_what_is_not_seen() -> None:
    size = (12, 12)
    label = torch.zeros(1, 1, *size, dtype=DOUBLE)
    label[..., 3:6] = 1
    seen = torch.ones_like(label)
    seen[..., :5, :] = 0
    ddf = torch.zeros(1, 2, *size, dtype=DOUBLE)
    ddf[:, 0] = 2  # rows up to 2 look at what is not seen
    _, gradient = LabelDistance([(label, label.roll(1, 3))], seen=seen).sums(ddf)
    assert not gradient[:, :, :3].any()
    assert gradient[:, :, 4:].any()


@pytest.mark.parametrize("size", SIZES)
def test_landmark_distance_is_that_of_the_regions_of_the_points(size: tuple[int, ...]) -> None:
    d = len(size)
    points = torch.stack([torch.randint(n, (4,)) for n in size], dim=1).to(DOUBLE)  # at voxel centers
    displacements, weights = torch.randn(4, d, dtype=DOUBLE), torch.rand(4, dtype=DOUBLE)
    ddf = torch.randn(1, d, *size, dtype=DOUBLE, requires_grad=True)
    voxels = torch.stack(torch.meshgrid(*(torch.arange(n) for n in size), indexing="ij"))[None]
    expected = torch.zeros((), dtype=DOUBLE)
    for p, displacement, w in zip(points, displacements, weights, strict=True):
        shape = (1, d, *[1] * d)
        region = torch.exp(-(voxels - p.view(shape)).square().sum(dim=1) / (2 * SPREAD**2))
        expected = expected + w * (region * (ddf - displacement.view(shape)).square().sum(dim=1)).mean()
    driver = LandmarkDistance(points, displacements, size, weights)
    still = torch.zeros_like(ddf)
    gradients = [torch.autograd.grad(value, ddf)[0] for value in (driver(ddf), expected)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-7)  # a millionth of a weight is none
    lone = LandmarkDistance(points[:1], displacements[:1], size)
    assert lone(still + displacements[0].view(1, d, *[1] * d)) < 1e-25


@pytest.mark.parametrize("made", [labels, landmarks])
@pytest.mark.parametrize("size", SIZES)
class TestDriver:
    def test_gradient_check(self, made: Callable[..., Driver], size: tuple[int, ...]) -> None:
        ddf = torch.randn(1, len(size), *size, dtype=DOUBLE, requires_grad=True)
        assert torch.autograd.gradcheck(made(size), (ddf,))

    def test_rows_add_up(self, made: Callable[..., Driver], size: tuple[int, ...]) -> None:
        driver, ddf = made(size), torch.randn(1, len(size), *size, dtype=DOUBLE)
        value, gradient = driver.sums(ddf)
        parts = [driver.sums(ddf[:, :, rows], rows.start) for rows in (slice(0, 1), slice(1, 4), slice(4, size[0]))]
        torch.testing.assert_close(torch.stack([part[0] for part in parts]).sum(), value)
        torch.testing.assert_close(torch.cat([part[1] for part in parts], dim=2), gradient)

    def test_finite_at_no_displacement_in_single_precision(
        self, made: Callable[..., Driver], size: tuple[int, ...]
    ) -> None:
        driver, ddf = made(size, torch.float32), torch.zeros(1, len(size), *size, requires_grad=True)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value = driver(ddf)
        (gradient,) = torch.autograd.grad(value, ddf)
        assert gradient.isfinite().all()
        assert gradient.any()
