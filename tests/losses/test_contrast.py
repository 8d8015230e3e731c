"""The regression of one image on another, against a dense least-squares solution."""

from __future__ import annotations

import numpy as np
import torch

from monai_regplugins.losses.contrast import KNOTS, ContrastMap


def wave(image: torch.Tensor) -> torch.Tensor:
    """A map of the intensities that is not monotonic."""
    return torch.sin(7 * image)


def test_it_is_the_penalized_least_squares_solution() -> None:
    image, weights = torch.rand(2, 500, dtype=torch.float64)
    target = wave(image) + 0.3 * torch.randn_like(image)
    found = ContrastMap.fitted(image, target, weights)
    knots = found.low + found.width * np.arange(KNOTS)
    hats = np.stack([np.interp(image.numpy(), knots, row) for row in np.eye(KNOTS)], axis=1)
    w = (weights / weights.mean()).sqrt().numpy()
    rows = np.concatenate([w[:, None] * hats, np.diff(np.eye(KNOTS), n=2, axis=0)])
    right = np.concatenate([w * target.numpy(), np.zeros(KNOTS - 2)])
    levels = np.linalg.lstsq(rows, right, rcond=None)[0]
    np.testing.assert_allclose(found.levels.numpy(), levels, atol=1e-6)
    np.testing.assert_allclose(found(image).numpy(), hats @ levels, atol=1e-6)


def test_intensities_that_do_not_count_have_no_influence() -> None:
    image, counts = torch.rand(2000) ** 2, (torch.rand(2000) > 0.3).float()
    clean, planted = (
        ContrastMap.fitted(image + noise * (1 - counts), wave(image) - noise * (1 - counts), counts) for noise in (0, 9)
    )
    assert clean.low == planted.low
    torch.testing.assert_close(clean.levels, planted.levels)
    assert (clean(image) - wave(image)).abs().mean() < 0.01


def test_a_flat_image_becomes_the_mean() -> None:
    target = torch.rand(300)
    mapped = ContrastMap.fitted(torch.full((300,), 4.0), target)(torch.full((300,), 4.0))
    torch.testing.assert_close(mapped, target.mean().expand(300), atol=1e-4, rtol=0)
