"""Local correlation with one fixed image, against the masked loss, NumPy and finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from monai_regplugins.losses import MaskedLNCCLoss
from monai_regplugins.losses.local_correlation import LocalCorrelation

SIZES = [(9, 8), (7, 8, 6)]


def drawn(size: tuple[int, ...], count: int) -> list[torch.Tensor]:
    return list(torch.rand(count, 1, 1, *size, dtype=torch.float64))


@pytest.mark.parametrize("window", [2, 5, 8, 9])
@pytest.mark.parametrize("size", SIZES)
def test_without_weights_it_is_the_masked_loss(size: tuple[int, ...], window: int) -> None:
    warped, fixed = drawn(size, 2)
    warped.requires_grad_()
    found = LocalCorrelation(fixed, window, centers=fixed > 0.1)(warped)
    expected = MaskedLNCCLoss(window, 0.1)(warped, fixed)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*(torch.autograd.grad(loss, warped)[0] for loss in (found, expected)))


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_weights_within_the_windows(stride: int) -> None:
    """Window by window with NumPy's weighted moments."""
    warped, fixed, weights, seen = (values[0, 0].numpy() for values in drawn((9, 8), 4))
    weights = weights * (weights > 0.3)
    total = norm = 0.0
    for i in range((stride - 1) // 2, 9, stride):
        for j in range((stride - 1) // 2, 8, stride):
            box = (slice(max(i - 2, 0), i + 3), slice(max(j - 2, 0), j + 3))
            w = (weights * seen)[box].ravel()
            cov = np.cov(np.stack([warped[box].ravel(), fixed[box].ravel()]), aweights=w, ddof=0) * w.sum()
            count = (weights * seen)[i, j]
            total, norm = total - count * cov[0, 1] ** 2 / (cov[0, 0] * cov[1, 1] + 1e-5), norm + count
    images = (torch.from_numpy(values)[None, None] for values in (fixed, weights, warped, seen))
    j_image, w_image, i_image, s_image = images
    found = LocalCorrelation(j_image, 5, w_image, stride=stride)(i_image, s_image)
    assert float(found) == pytest.approx(total / norm, rel=1e-9)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", SIZES)
def test_gradient_check(size: tuple[int, ...], stride: int) -> None:
    warped, fixed, weights, seen = drawn(size, 4)
    loss = LocalCorrelation(fixed, 5, (weights > 0.3).double(), fixed > 0.2, stride)
    assert torch.autograd.gradcheck(lambda image: loss(image, seen), (warped.requires_grad_(),))


def test_what_is_masked_has_no_influence() -> None:
    warped, fixed = drawn((12, 10), 2)
    weights = torch.ones_like(fixed)
    weights[..., :4] = 0
    value, gradient = LocalCorrelation(fixed, 5, weights).value_and_gradient(warped)
    corrupted = [torch.where(weights > 0, image, 1e3 * torch.rand_like(image)) for image in (warped, fixed)]
    other, other_gradient = LocalCorrelation(corrupted[1], 5, weights).value_and_gradient(corrupted[0])
    assert torch.equal(gradient[..., :4], torch.zeros(1, 1, 12, 4))
    assert (gradient[..., 4:] != 0).all()
    torch.testing.assert_close(value, other)
    torch.testing.assert_close(gradient[..., 4:], other_gradient[..., 4:])


def test_nothing_counts() -> None:
    warped, fixed = drawn((8, 8), 2)
    value, gradient = LocalCorrelation(fixed, 5, torch.zeros_like(fixed)).value_and_gradient(warped)
    assert float(value) == 0
    assert not gradient.any()


def test_flat_windows_in_float32_give_no_noise() -> None:
    """A constant region far from the mean: what float32 leaves of its variance is rounding."""
    fixed = torch.zeros(1, 1, 40, 40)
    fixed[..., 20:] = torch.rand(40, 20)
    warped = 0.3 + 0.5 * fixed + 0.05 * (fixed > 0) * torch.rand_like(fixed)
    loss = LocalCorrelation(fixed.double(), 9).value_and_gradient(warped.double())
    found = LocalCorrelation(fixed, 9).value_and_gradient(warped)
    torch.testing.assert_close(found[0].double(), loss[0], atol=1e-5, rtol=0)
    assert (found[1] - loss[1]).norm() < 1e-2 * loss[1].norm()
