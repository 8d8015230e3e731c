"""The distance of distributions, against SciPy's."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from monai_regplugins.losses.contrast import contrast_distance


def test_it_is_the_earth_movers_distance() -> None:
    first, second = torch.rand(3000) ** 3, torch.randn(2000)
    expected = stats.wasserstein_distance(*(stats.zscore(values.double().numpy()) for values in (first, second)))
    assert contrast_distance(first, second) == pytest.approx(expected, rel=0.05)


def test_place_gain_and_offset_do_not_matter() -> None:
    image = torch.rand(20, 30) ** 2
    assert contrast_distance(image, 3 * image.flip(0).T + 5) < 1e-6


def test_flat_images() -> None:
    assert contrast_distance(torch.ones(5), torch.zeros(3)) == 0
