"""Normalized mutual information against ITK's Mattes metric, histograms, and finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from monai_regplugins.checks import InputError
from monai_regplugins.losses.mutual_information import MutualInformation

SIZES = [(14, 12), (4, 5, 6)]


def drawn(size: tuple[int, ...], count: int) -> list[torch.Tensor]:
    return list(torch.rand(count, 1, 1, *size, dtype=torch.float64))


@pytest.mark.parametrize("bins", [12, 32])
@pytest.mark.parametrize("size", SIZES)
def test_the_information_is_that_of_mattes_in_itk(size: tuple[int, ...], bins: int) -> None:
    fixed, noise = drawn(size, 2)
    moving = fixed.sin() + 0.3 * noise
    metric = sitk.ImageRegistrationMethod()
    metric.SetMetricAsMattesMutualInformation(bins)
    metric.SetInitialTransform(sitk.Transform(len(size), sitk.sitkIdentity))
    expected = metric.MetricEvaluate(*(sitk.GetImageFromArray(image[0, 0].numpy()) for image in (fixed, moving)))
    found = MutualInformation(fixed, moving, bins=bins).entropies(moving)
    assert float(found.joint - found.fixed - found.moving) == pytest.approx(expected, rel=1e-6)


def test_the_value_from_the_joint_histogram() -> None:
    """Weighted counts of voxels whose intensities lie in the middle of four bins each, by loops."""
    fixed, moving, weights, seen = drawn((9, 8), 4)
    bins = 8
    p = np.zeros((bins, bins))
    places = []
    for image in (fixed, moving):
        values = image.flatten().numpy()
        places.append((values - values.min()) / (values.max() - values.min()) * (bins - 4) + 2)
    for f, m, w in zip(*places, (weights * seen).flatten().tolist(), strict=True):
        for k in range(bins):
            t = abs(k - m)
            share = (4 - 6 * t**2 + 3 * t**3) / 6 if t < 1 else max(2 - t, 0) ** 3 / 6
            p[min(int(f), bins - 3), k] += w * share
    p /= p.sum()
    entropies = [-sum(q * np.log(q) for q in part.ravel() if q > 0) for part in (p.sum(axis=1), p.sum(axis=0), p)]
    found = MutualInformation(fixed, moving, weights, bins=bins)(moving, seen)
    assert float(found) == pytest.approx(1 - (entropies[0] + entropies[1]) / entropies[2], rel=1e-9)


@pytest.mark.parametrize("size", SIZES)
def test_gradient_check(size: tuple[int, ...]) -> None:
    fixed, moving, weights, seen = drawn(size, 4)
    loss = MutualInformation(fixed, moving, weights * (weights > 0.3))
    warped = (0.9 * moving + 0.03).requires_grad_()
    assert torch.autograd.gradcheck(lambda image: loss(image, seen), (warped,))


def test_what_is_masked_has_no_influence() -> None:
    fixed, moving = drawn((12, 10), 2)
    weights = torch.ones_like(fixed)
    weights[..., :4] = 0
    found = []
    for noise in (0, 50):
        corrupted = [image + noise * (1 - weights) for image in (fixed, moving)]
        found.append(MutualInformation(*corrupted, weights, weights > 0).value_and_gradient(corrupted[1]))
    assert torch.equal(found[0][1][..., :4], torch.zeros(1, 1, 12, 4, dtype=torch.float64))
    assert found[0][1][..., 4:].any()
    torch.testing.assert_close(found[0], found[1])


def test_nothing_to_tell() -> None:
    """No voxel counts, or both images are flat."""
    fixed, moving = drawn((8, 8), 2)
    for loss, image in (
        (MutualInformation(fixed, moving, torch.zeros_like(fixed)), moving),
        (MutualInformation(torch.ones_like(fixed), torch.ones_like(fixed)), torch.ones_like(fixed)),
    ):
        value, gradient = loss.value_and_gradient(image)
        assert abs(value) < 1e-12
        assert gradient.abs().max() < 1e-12


def test_too_few_bins() -> None:
    with pytest.raises(InputError, match="bins is 5"):
        MutualInformation(*drawn((8, 8), 2), bins=5)
