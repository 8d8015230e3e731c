"""Distance of warped channels, against the warp and finite differences."""

from __future__ import annotations

import pytest
import torch

from monai_regplugins import fields
from monai_regplugins.losses.channel_distance import ChannelDistance
from monai_regplugins.losses.sampled_image import SampledImage

SIZES = [(6, 7), (3, 4, 3), (40, 50, 60)]


def drawn(size: tuple[int, ...], channels: int = 3) -> list[torch.Tensor]:
    """Moving and fixed channels, weights, and a field that often leaves the image."""
    double = {"dtype": torch.float64}
    moving, fixed = torch.rand(2, 1, channels, *size, **double)
    return [moving, fixed, torch.rand(1, 1, *size, **double), 2 * torch.randn(1, len(size), *size, **double)]


@pytest.mark.parametrize("padding", ["zeros", "border"])
@pytest.mark.parametrize("size", SIZES)
def test_it_is_the_mean_squared_difference_to_the_warped_channels(size: tuple[int, ...], padding: str) -> None:
    moving, fixed, weights, ddf = drawn(size)
    ddf.requires_grad_()
    found = ChannelDistance(SampledImage(moving, padding), fixed, weights)(ddf)
    warped = torch.cat([fields.warp(moving[:, c : c + 1], ddf, padding=padding) for c in range(3)], dim=1)
    expected = ((warped - fixed).square().mean(dim=1) * weights[:, 0]).sum() / weights.sum()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*(torch.autograd.grad(value, ddf)[0] for value in (found, expected)))


@pytest.mark.parametrize("size", SIZES[:2])
def test_gradient_check(size: tuple[int, ...]) -> None:
    moving, fixed, weights, ddf = drawn(size)
    distance = ChannelDistance(SampledImage(moving, "border", torch.rand_like(weights) > 0.1), fixed, weights)
    assert torch.autograd.gradcheck(distance, (ddf.requires_grad_(),))


def test_no_gradient_where_nothing_counts() -> None:
    moving, fixed, weights, ddf = drawn((12, 10))
    weights[..., :4] = 0
    value, gradient = ChannelDistance(SampledImage(moving), fixed, weights).value_and_gradient(ddf)
    assert not gradient[..., :4].any()
    corrupted = fixed + 50 * (weights == 0)
    torch.testing.assert_close(ChannelDistance(SampledImage(moving), corrupted, weights)(ddf), value)
    assert ChannelDistance(SampledImage(moving), fixed, torch.zeros_like(weights))(ddf) == 0
