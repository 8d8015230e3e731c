"""Sparsification, its area and coverage against numbers by hand, closed forms and SciPy's distributions."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from scipy.stats import chi2, maxwell, rayleigh

from monai_regplugins.checks import InputError
from monai_regplugins.metrics.uncertainty import ause, coverage, interval_radius, sparsification

ERROR = torch.tensor([1.0, 5.0, 0.0])
OTHER_ORDER = torch.tensor([0.3, 0.1, 0.2])


def test_sparsification_in_numbers() -> None:
    """2, then without 5: 0.5, then without 1: 0, all over the mean of 2."""
    assert sparsification(ERROR, ERROR).tolist() == [1, 0.25, 0]
    assert sparsification(ERROR, OTHER_ORDER).tolist() == [1, 1.25, 2.5]


def test_area_in_numbers() -> None:
    assert ause(ERROR, 7 * ERROR) == 0
    assert ause(ERROR, OTHER_ORDER) == pytest.approx((0 + 1 + 2.5) / 3)


def test_area_without_information_is_the_mean_over_all_orders() -> None:
    error = torch.tensor([1.0, 5.0, 0.0, 2.0])
    orders = [ause(error, torch.tensor(order)) for order in itertools.permutations(range(4))]
    assert ause(error, None) == pytest.approx(sum(orders) / len(orders))


def test_area_of_uniform_errors() -> None:
    """Errors uniform in [0, 1]: the share q that is left has the mean q / 2, so that no information costs 1/2."""
    error = (torch.arange(10000) + 0.5) / 10000
    assert ause(error, None) == pytest.approx(0.5, abs=1e-4)
    # the reverse order leaves the mean 1 - q / 2, in units of 1/2: the area of 2 - q is 3/2, that of q 1/2
    assert ause(error, -error) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
def test_radius_equals_those_of_rayleigh_and_maxwell(level: float) -> None:
    assert interval_radius(level, 2) == pytest.approx(rayleigh.ppf(level) / math.sqrt(2))
    assert interval_radius(level, 3) == pytest.approx(maxwell.ppf(level) / math.sqrt(3))


@pytest.mark.parametrize("d", [2, 3])
def test_coverage_of_gaussian_errors(d: int) -> None:
    """Of errors at the quantiles of their distribution, 90 % lie within the interval, whatever their deviation."""
    quantiles = torch.from_numpy(chi2.ppf((torch.arange(1000).numpy() + 0.5) / 1000, d))
    deviation = torch.linspace(0.5, 4.0, 1000).roll(317)
    error = deviation * (quantiles / d).sqrt()
    assert coverage(error, deviation, d) == 0.9
    assert coverage(error, deviation, d, level=0.5) == 0.5


def test_sizes_have_to_agree() -> None:
    for measure in (ause, sparsification, lambda e, s: coverage(e, s, 3)):
        with pytest.raises(InputError, match="error"):
            measure(torch.ones(3), torch.ones(1))
