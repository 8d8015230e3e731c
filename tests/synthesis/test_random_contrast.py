"""Random contrast and what a random scanner does to an image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from monai_regplugins.checks import InputError
from monai_regplugins.synthesis.random_contrast import (
    Contrast,
    RandomScanner,
    blurred,
    thick_slices,
    unpadded,
)

SHAPE = (12, 10, 14)
PLAIN = {"blur": 0.0, "bias": 0.0, "gamma": 0.0, "noise": 0.0, "thick": 0.0, "padded": 0.0}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_a_contrast_gives_each_label_its_level_and_background_no_texture() -> None:
    label, texture = torch.tensor([[0, 1], [2, 1]], dtype=torch.uint8), torch.tensor([[5.0, 1.0], [2.0, 0.0]])
    image = Contrast(torch.tensor([0.25, 0.5, 1.0]), 0.1).image(label, texture)
    torch.testing.assert_close(image, torch.tensor([[0.25, 0.6], [1.2, 0.5]]))


def test_backgrounds_are_dark_as_often_as_asked_for() -> None:
    dark = [float(Contrast.draw(rng(seed), 4, dark_background=0.7).levels[0]) == 0 for seed in range(200)]
    assert 0.6 < np.mean(dark) < 0.8


def test_a_scanner_that_does_nothing_only_scales() -> None:
    image = 3 + 2 * torch.rand(1, *SHAPE)
    scan, seen = RandomScanner(**PLAIN)(rng(), image)
    torch.testing.assert_close(scan, (image - image.min()) / (image.max() - image.min()), atol=1e-5, rtol=0)
    assert bool(seen.all())


@pytest.mark.parametrize("seed", range(6))
def test_scans_are_finite_in_range_and_zero_where_padded(seed: int) -> None:
    scan, seen = RandomScanner(padded=1.0, thick=0.5)(rng(seed), torch.rand(1, *SHAPE))
    assert scan.shape == seen.shape == (1, *SHAPE)
    assert bool(scan.isfinite().all())
    assert float(scan.min()) >= 0
    assert float(scan.max()) <= 1
    assert not bool(scan[~seen].any())
    assert float(scan.std()) > 0


def test_a_constant_image_stays_finite() -> None:
    scan, _ = RandomScanner(**PLAIN)(rng(), torch.full((1, *SHAPE), 0.5))
    assert bool(scan.isfinite().all())


@pytest.mark.parametrize(("name", "least"), [("blur", 0.001), ("bias", 0.001), ("gamma", 0.001), ("noise", 0.001)])
def test_each_change_changes_the_image(name: str, least: float) -> None:
    image = torch.rand(1, *SHAPE)
    plain, _ = RandomScanner(**PLAIN)(rng(), image)
    changed, _ = RandomScanner(**(PLAIN | {name: 1.0}))(rng(), image)
    assert float((changed - plain).abs().mean()) > least


def test_blur_is_that_of_scipy_inside() -> None:
    image = torch.rand(1, 24, 24, 24)
    expected = ndimage.gaussian_filter(image[0].numpy(), 1.2, truncate=8.0)
    np.testing.assert_allclose(blurred(image, 1.2)[0, 8:-8, 8:-8, 8:-8], expected[8:-8, 8:-8, 8:-8], atol=1e-5)
    torch.testing.assert_close(blurred(torch.ones(1, *SHAPE), 2.0), torch.ones(1, *SHAPE))


def test_thick_slices_lose_detail_along_one_axis_and_keep_the_mean() -> None:
    image = torch.rand(1, *SHAPE)
    thick = thick_slices(image, 0, 2)
    assert thick.shape == image.shape
    assert float(thick.diff(dim=1).std()) < 0.6 * float(image.diff(dim=1).std())
    across = image.mean(dim=1, keepdim=True)
    torch.testing.assert_close(thick_slices(across.expand_as(image), 0, 2), across.expand_as(image))


def test_padding_leaves_a_box_that_holds_the_middle() -> None:
    boxes = torch.stack([unpadded(rng(seed), SHAPE) for seed in range(40)])
    assert bool(boxes[..., 3:9, 3:7, 4:10].all())
    padded_axes = torch.stack(
        [~boxes.amax(dim=[2 + j for j in range(3) if j != k]).flatten(1).all(1) for k in range(3)]
    )
    assert {0, 1, 2, 3} >= set(padded_axes.sum(0).tolist())
    assert bool((padded_axes.sum(0) > 1).any())
    assert bool((padded_axes.sum(0) == 1).any())


@pytest.mark.parametrize("name", ["blur", "bias", "gamma", "noise", "thick", "padded"])
def test_numbers_out_of_range(name: str) -> None:
    with pytest.raises(InputError, match=f"{name} is -0.5, expected"):
        RandomScanner(**{name: -0.5})
    if name in ("thick", "padded"):
        with pytest.raises(InputError, match=f"{name} is 1.5, expected a probability"):
            RandomScanner(**{name: 1.5})
