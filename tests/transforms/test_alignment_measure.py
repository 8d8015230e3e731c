"""The measures of a match, against numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from monai_regplugins.transforms.alignment_descent import CORRELATION, MUTUAL_INFORMATION
from monai_regplugins.transforms.alignment_measure import OUTSIDE, agreement, metric_for
from monai_regplugins.transforms.alignment_scan import Scan

SHAPE = (30, 40)
RNG = np.random.default_rng(0)
FIRST = RNG.normal(size=SHAPE)
SECOND = FIRST + RNG.normal(size=SHAPE)


def scan(values: np.ndarray, weight: np.ndarray | None = None) -> Scan:
    """An array as an image."""
    image = torch.from_numpy(values).float()[None]
    counts = torch.ones_like(image) if weight is None else torch.from_numpy(weight).float()[None]
    return Scan(image, torch.eye(3).double(), counts)


def shift(x: float) -> torch.Tensor:
    """A map along the first axis."""
    matrix = torch.eye(3).double()
    matrix[0, 2] = x
    return matrix


def test_correlation_is_that_of_the_common_voxels_that_count() -> None:
    mask = RNG.random(SHAPE) < 0.8
    found = agreement(scan(FIRST, mask), scan(SECOND), shift(4), CORRELATION)
    expected = np.corrcoef(FIRST[:-4][mask[:-4]], SECOND[4:][mask[:-4]])[0, 1]
    assert found == pytest.approx(expected, abs=1e-5)
    both = mask[:-4] & mask[4:]
    found = agreement(scan(FIRST, mask), scan(SECOND, mask), shift(4), CORRELATION)
    assert found == pytest.approx(np.corrcoef(FIRST[:-4][both], SECOND[4:][both])[0, 1], abs=1e-5)


def test_mutual_information_is_that_of_a_joint_histogram() -> None:
    joint, _, _ = np.histogram2d(FIRST.ravel(), SECOND.ravel(), bins=15)  # five voxels in each on average
    p = joint / joint.sum()
    alone = p.sum(axis=1, keepdims=True) * p.sum(axis=0, keepdims=True)
    expected = (p[p > 0] * np.log(p[p > 0] / alone[p > 0])).sum()
    found = agreement(scan(FIRST), scan(SECOND), shift(0), MUTUAL_INFORMATION)
    assert found == pytest.approx(expected, rel=2e-3)  # float32 moves a few values into the next bin


@pytest.mark.parametrize("x", [22.0, 40.0])
def test_images_that_hardly_overlap_have_no_measure(x: float) -> None:
    assert agreement(scan(FIRST), scan(FIRST), shift(x), CORRELATION) == OUTSIDE


CONTRASTS = {
    "same": (lambda x: x, CORRELATION),
    "linear": (lambda x: 0.2 * x - 7, CORRELATION),
    "inverted": (lambda x: 5 - x, MUTUAL_INFORMATION),
    "folded": (np.abs, MUTUAL_INFORMATION),
}


@pytest.mark.parametrize("name", CONTRASTS)
def test_the_metric_follows_the_contrast(name: str) -> None:
    change, expected = CONTRASTS[name]
    noisy = FIRST + 0.3 * RNG.normal(size=SHAPE)
    assert metric_for(scan(noisy), scan(change(FIRST)), shift(0)) == expected
