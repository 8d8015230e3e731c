"""Random motion: what is known of it, and the noise it is made of."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from monai_regplugins import fields
from monai_regplugins.checks import InputError
from monai_regplugins.synthesis.random_motion import (
    RandomMotion,
    separable_product,
    smooth_displacement,
    smooth_noise,
)

SHAPE = (16, 14, 12)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def longest(ddf: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(ddf, dim=0).max())


def test_noise_has_mean_zero_and_variance_one_at_each_voxel() -> None:
    noise = smooth_noise(rng(), (6, 5, 4), (1.5, 3.0, 0.8), channels=4000)
    assert noise.shape == (4000, 6, 5, 4)
    assert float(noise.mean(0).abs().max()) < 6 / math.sqrt(4000)
    assert float((noise.var(0) - 1).abs().max()) < 0.15


def test_noise_is_correlated_as_the_gaussians_say() -> None:
    sigma, distance = 3.0, 4
    noise = smooth_noise(rng(), (12, 4), sigma, channels=4000)[:, :, 0]
    found = float((noise[:, 4] * noise[:, 4 + distance]).mean())
    assert found == pytest.approx(math.exp(-(distance**2) / (4 * sigma**2)), abs=0.06)


def test_noise_of_infinite_sigma_is_constant_along_that_axis() -> None:
    noise = smooth_noise(rng(), (5, 6, 7), (2.0, math.inf, 2.0))
    assert torch.equal(noise, noise[:, :, :1].expand_as(noise))
    assert float(noise.std()) > 0


@pytest.mark.parametrize("sizes", [(3, 4), (3, 4, 5)])
def test_separable_product_is_that_of_all_axes(sizes: tuple[int, ...]) -> None:
    values, matrices = torch.randn(2, *sizes), [torch.randn(n + 1, n) for n in sizes]
    letters = "abc"[: len(sizes)]
    sums = ",".join(f"{letter.upper()}{letter}" for letter in letters)
    expected = torch.einsum(f"z{letters},{sums}->z{letters.upper()}", values, *matrices)
    torch.testing.assert_close(separable_product(values, matrices), expected)


@pytest.mark.parametrize("seed", range(8))
def test_smooth_displacements_have_their_peak_and_do_not_fold(seed: int) -> None:
    small = smooth_displacement(rng(seed), SHAPE, 0.2)
    assert longest(small) == pytest.approx(0.2, rel=1e-4)
    large = smooth_displacement(rng(seed), SHAPE, 6.0)
    assert longest(large) <= 6.0001
    assert float(fields.jacobian_determinant(large[None]).min()) >= 0.1


def test_amplitudes_reach_from_none_to_the_largest() -> None:
    motion = RandomMotion(still=0.2, sliding=0.0)
    peaks = np.array([longest(motion(rng(seed), SHAPE, 4).ddf) for seed in range(150)])
    limit = min(SHAPE) / 3
    assert peaks.max() <= limit * 1.0001
    assert 0.1 < np.mean(peaks == 0) < 0.3
    moving = peaks[peaks > 0]
    assert moving.min() < limit / 16
    assert moving.max() > limit / 2
    assert 0.3 < np.mean(moving < limit / 8) < 0.7  # half of the six octaves


@pytest.mark.parametrize("seed", range(6))
def test_sides_of_a_slide_move_against_each_other_along_its_axis_only(seed: int) -> None:
    margin = 4
    motion = RandomMotion(still=0.0, sliding=1.0, octaves=0.0)(rng(seed), SHAPE, margin)
    assert motion.region.shape == tuple(n + 2 * margin for n in SHAPE)
    axes = [k for k in range(3) if torch.equal(motion.region, motion.region.narrow(k, 0, 1).expand_as(motion.region))]
    assert len(axes) == 1  # a cylinder, so the motion is tangential to its wall
    reached = fields.warp(motion.region[None, None], (motion.ddf + margin)[None], "nearest", "border")[0, 0]
    jumps = torch.cat([motion.ddf.diff(dim=k + 1).abs()[:, reached.diff(dim=k)] for k in range(3)], dim=1).mean(dim=1)
    smooth = torch.cat([motion.ddf.diff(dim=k + 1).abs()[:, ~reached.diff(dim=k)] for k in range(3)], dim=1).mean(dim=1)
    excess = jumps - smooth
    assert int(excess.argmax()) == axes[0]
    assert float(excess[axes[0]]) > 0.15
    assert sorted(excess.abs().tolist())[1] < 0.5 * float(excess[axes[0]])


def test_a_seed_gives_the_same_motion_again() -> None:
    motion = RandomMotion(sliding=1.0, still=0.0)
    first, again, other = (motion(rng(seed), SHAPE, 4) for seed in (3, 3, 4))
    assert torch.equal(first.ddf, again.ddf)
    assert torch.equal(first.region, again.region)
    assert not torch.equal(first.ddf, other.ddf)


@pytest.mark.parametrize(
    ("name", "value"), [("largest", 0.0), ("largest", 0.6), ("octaves", -1.0), ("still", 1.5), ("sliding", -0.1)]
)
def test_numbers_out_of_range(name: str, value: float) -> None:
    with pytest.raises(InputError, match=f"{name} is {value}, expected"):
        RandomMotion(**{name: value})
