"""Discrete search: shifts and a stretch that gradient descent does not reach, masks, and the reach."""

from __future__ import annotations

import pytest
import torch

from monai_regplugins import fields
from monai_regplugins.inferers.discrete_search import discrete_field
from monai_regplugins.inferers.gaussian import gaussian_mean
from monai_regplugins.losses.instance import WeightedImage


def textured(size: tuple[int, ...]) -> torch.Tensor:
    return gaussian_mean(torch.rand(1, 1, *size), 1.0)


@pytest.mark.parametrize(("size", "shift"), [((40, 36), (6, -5)), ((20, 18, 22), (3, -2, 0))])
@pytest.mark.parametrize("gain", [1, -1])
def test_a_shift_is_found(size: tuple[int, ...], shift: tuple[int, ...], gain: int) -> None:
    image = textured(size)
    moving = gain * image.roll(shift, tuple(range(2, image.ndim)))
    found = discrete_field(WeightedImage(moving), WeightedImage(image), max(map(abs, shift)) + 1)
    inner = (0, slice(None), *(slice(n // 4, 3 * n // 4) for n in size))
    expected = torch.tensor(shift, dtype=torch.float32).view(-1, *[1] * len(size))
    assert (found[inner] - expected).abs().mean() < 0.25


def test_a_long_shift_between_the_displacements_that_are_tried() -> None:
    image = textured((32, 28, 30))
    found = discrete_field(WeightedImage(image.roll((7, -6, 1), (2, 3, 4))), WeightedImage(image), 7)
    expected = torch.tensor([7.0, -6.0, 1.0]).view(-1, 1, 1, 1)
    assert ((found[0] - expected)[:, 8:-8, 8:-8, 8:-8].abs() < 1).float().mean() > 0.9


def test_a_stretch_is_found() -> None:
    image = textured((64, 64))
    ddf = (fields.identity_grid((64, 64)) - 31.5)[None] * 0.15  # up to 4.7 voxels
    fixed = fields.warp(image, ddf, padding="border")
    found = discrete_field(WeightedImage(image), WeightedImage(fixed), 6)
    assert (found - ddf)[..., 8:-8, 8:-8].norm(dim=1).mean() < 0.25 * ddf[..., 8:-8, 8:-8].norm(dim=1).mean()


def test_what_is_masked_has_no_influence() -> None:
    image, mask = textured((40, 40)), torch.ones(1, 1, 40, 40)
    mask[..., 30:] = 0
    moving = image.roll(3, 2)
    clean, corrupted = (
        discrete_field(
            WeightedImage(moving, mask), WeightedImage(image + noise * (1 - mask) * torch.rand(40, 40), mask), 4
        )
        for noise in (0, 50)
    )
    torch.testing.assert_close(clean, corrupted)
