"""A pair in the contrast of one of its images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from monai_regplugins.inferers import pair_contrast
from monai_regplugins.inferers.gaussian import gaussian_mean
from monai_regplugins.inferers.observed_pair import ObservedPair
from monai_regplugins.inferers.pair_contrast import bias_of, in_contrast_of, without_bias
from monai_regplugins.losses.instance import WeightedImage


@pytest.mark.parametrize("side", ["fixed", "moving"])
def test_the_other_image_is_mapped_though_the_field_is_a_little_wrong(side: str) -> None:
    """A regression of all voxels alike would flatten the map: at steep places a small error pairs other intensities."""
    scene = torch.from_numpy(ndimage.gaussian_filter(np.random.default_rng(0).random((96, 96)), 2)).float()
    moving = ((scene - scene.min()) / (scene.max() - scene.min()))[None, None]
    mask, wave = torch.ones_like(moving), torch.sin(7 * moving)
    mask[..., 80:] = 0
    planted = [image + 30 * (1 - mask) for image in (moving, wave)]
    pair = dict(zip(("moving", "fixed") if side == "fixed" else ("fixed", "moving"), planted, strict=True))
    observed = ObservedPair(**pair, fixed_mask=mask, moving_mask=mask)
    mapped = observed.in_contrast_of(side, torch.full((1, 2, 96, 96), 0.7)).at([[96, 96]])[0]
    assert torch.equal(mapped[side == "fixed"].image, pair[side])
    inner = (..., slice(8, 88), slice(8, 72))
    error = (mapped[side == "moving"].image - wave)[inner]
    assert error.std() < 0.15 * wave.std()


def test_a_contrast_is_the_same_by_parts_of_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large images are looked at slab by slab, and at some of their voxels."""
    generator = torch.Generator().manual_seed(0)
    scene = gaussian_mean(torch.rand(1, 1, 40, 32, 32, generator=generator), 1.5)
    scene = (scene - scene.mean()) / scene.std()
    pair = WeightedImage(scene, (scene > -1).float()), WeightedImage((2 * scene).sin())
    ddf = torch.full((1, 3, 40, 32, 32), 0.3)
    (whole, _) = in_contrast_of("fixed", *pair, ddf)
    monkeypatch.setattr(pair_contrast, "SLAB", 3 * 32 * 32)
    (by_parts, _) = in_contrast_of("fixed", *pair, ddf)
    torch.testing.assert_close(by_parts.image, whole.image)
    monkeypatch.setattr(pair_contrast, "SAMPLES", 40 * 32 * 32 // 4)
    (by_fewer, _) = in_contrast_of("fixed", *pair, ddf)
    assert 0 < (by_fewer.image - whole.image).abs().mean() < 0.05 * whole.image.std()


def test_each_channel_is_mapped_by_itself() -> None:
    scene = torch.from_numpy(ndimage.gaussian_filter(np.random.default_rng(0).random((2, 64, 64)), (0, 2, 2))).float()
    moving = 10 * (scene - scene.mean())[None]
    fixed = torch.cat([moving[:, :1].square(), -moving[:, 1:]], dim=1)
    (mapped, _) = ObservedPair(moving, fixed).in_contrast_of("fixed", torch.zeros(1, 2, 64, 64)).at([[64, 64]])[0]
    assert (mapped.image - fixed).abs().mean() < 0.01 * fixed.std()


def test_without_a_common_voxel_images_keep_their_contrast() -> None:
    image, nowhere = torch.rand(1, 1, 8, 8), torch.zeros(1, 1, 8, 8)
    pair = WeightedImage(image), WeightedImage(1 - image, nowhere)
    for side in ("fixed", "moving"):
        moving, fixed = in_contrast_of(side, *pair, torch.zeros(1, 2, 8, 8))
        assert torch.equal(moving.image, image)
        assert torch.equal(fixed.image, 1 - image)


def test_a_bias_is_found_where_both_images_count() -> None:
    generator = torch.Generator().manual_seed(0)
    image = 0.2 + gaussian_mean(torch.rand(1, 1, 32, 32, 32, generator=generator), 1.0)
    true = 1 + 0.3 * torch.linspace(-1, 1, 32).expand(1, 1, 32, 32, 32)
    mask = torch.ones_like(image)
    mask[:, :, :4] = 0
    fixed = torch.where(mask > 0, true * image, 9.0)
    bias = bias_of(WeightedImage(image), WeightedImage(fixed, mask), torch.zeros(1, 3, 32, 32, 32))
    assert bias is not None
    inner = (..., slice(4, -4))
    torch.testing.assert_close(bias[:, :, 8:][inner], true[:, :, 8:][inner], atol=0.03, rtol=0)
    unbiased = without_bias(image * true, bias)
    assert (unbiased - image)[:, :, 8:][inner].abs().max() < 0.05


def test_of_intensities_below_zero_nothing_is_a_multiple() -> None:
    image, still = torch.rand(1, 1, 16, 16), torch.zeros(1, 2, 16, 16)
    assert bias_of(WeightedImage(image - 0.5), WeightedImage(image), still) is None
    assert bias_of(WeightedImage(image), WeightedImage(-image), still) is None
    assert bias_of(WeightedImage(image - 0.005), WeightedImage(image), still) is not None
