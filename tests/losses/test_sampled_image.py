"""Value and closed-form gradient of a warped image, against the warp and its automatic derivative."""

from __future__ import annotations

import pytest
import torch

from monai_regplugins import fields
from monai_regplugins.checks import InputError
from monai_regplugins.losses.sampled_image import SampledImage

SIZES = [(5, 6), (4, 5, 3), (2, 2), (40, 50, 60)]


def drawn(size: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """An image and a field that often leaves it."""
    return torch.rand(1, 1, *size, dtype=torch.float64), 3 * torch.randn(1, len(size), *size, dtype=torch.float64)


@pytest.mark.parametrize("padding", ["zeros", "border"])
@pytest.mark.parametrize("size", SIZES)
def test_it_is_the_warp_and_its_derivative(size: tuple[int, ...], padding: str) -> None:
    image, ddf = drawn(size)
    ddf, weights = ddf.requires_grad_(), torch.rand_like(image)
    (found, _), expected = SampledImage(image, padding)(ddf), fields.warp(image, ddf, padding=padding)
    torch.testing.assert_close(found, expected)
    slopes = [torch.autograd.grad((values * weights).sum(), ddf)[0] for values in (found, expected)]
    torch.testing.assert_close(*slopes)


@pytest.mark.parametrize("padding", ["zeros", "border"])
@pytest.mark.parametrize("size", SIZES[:2])
def test_gradient_check(size: tuple[int, ...], padding: str) -> None:
    image, ddf = drawn(size)
    assert torch.autograd.gradcheck(lambda u: SampledImage(image, padding)(u)[0], (ddf.requires_grad_(),))


def test_no_direction_is_preferred_at_voxel_centers() -> None:
    """Under no displacement the mean slope of a parabola about its vertex is zero, not that of one side."""
    parabola = (torch.arange(20.0) - 9.5).square()[None, None, None].expand(1, 1, 4, 20)
    _, slopes, _ = SampledImage(parabola, "border").sample(torch.zeros(1, 2, 4, 20))
    assert slopes[0, 1, :, 1:-1].mean().abs() < 1e-4
    assert (slopes[0, 0] == 0).all()


def test_far_outside_nothing_changes() -> None:
    image = torch.rand(1, 1, 5, 6)
    values, slopes, _ = SampledImage(image).sample(torch.full((1, 2, 5, 6), 1e4))
    assert not values.any()
    assert not slopes.any()


@pytest.mark.parametrize("padding", ["zeros", "border"])
@pytest.mark.parametrize("size", SIZES)
def test_a_position_is_seen_where_all_voxels_around_it_count(size: tuple[int, ...], padding: str) -> None:
    image, ddf = drawn(size)
    ddf = ddf.floor() + 0.1 + 0.8 * torch.rand_like(ddf)  # between voxels
    counts = torch.rand_like(image) > 0.2
    _, seen = SampledImage(image, padding, counts)(ddf)
    shares = fields.warp(counts.double(), ddf)
    assert seen is not None
    assert torch.equal(seen, (shares > 1 - 1e-9).double())


def test_unknown_padding() -> None:
    with pytest.raises(InputError, match="padding"):
        SampledImage(torch.rand(1, 1, 4, 4), "mirror")
