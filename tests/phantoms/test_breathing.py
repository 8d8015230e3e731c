"""Breathing: the map of the plane is the formula, exactly invertible and without folds; the signal is irregular."""

from __future__ import annotations

import numpy as np
import pytest

from monai_regplugins.phantoms.breathing import Breath, BreathingSignal, cavity_walls

DEEP = Breath(30.0, 7.0, 0.5)


@pytest.fixture
def points():
    y, z = np.random.default_rng(0).uniform(-140, 140, (2, 4000))
    return np.stack([np.zeros(4000), y, z])


def at(eta, z):
    """Points (3, N) at places across the cavity."""
    eta, z = np.broadcast_arrays(np.asarray(eta, dtype=float), np.asarray(z, dtype=float))
    back, front = cavity_walls(z)
    return np.stack([np.zeros_like(z), back + eta * (front - back), z])


@pytest.mark.parametrize("breath", [DEEP, Breath(12.0, 2.0, 0.2), Breath(-3.0, -0.5)])
def test_inverse_is_exact_both_ways(breath, points):
    moved = breath.inverse(points)
    assert np.abs(moved - points).max() > 2
    np.testing.assert_allclose(breath.forward(moved), points, atol=1e-9)
    np.testing.assert_allclose(breath.inverse(breath.forward(points)), points, atol=1e-9)


def test_no_breath_is_rest(points):
    np.testing.assert_allclose(Breath(0.0, 0.0).inverse(points), points, atol=1e-12)


def test_no_folding(points):
    step = 1e-5
    steps = step * np.eye(3)[1:, :, None]
    jacobian = np.stack([DEEP.inverse(points + d) - DEEP.inverse(points - d) for d in steps])[:, 1:] / (2 * step)
    determinant = jacobian[0, 0] * jacobian[1, 1] - jacobian[0, 1] * jacobian[1, 0]
    assert determinant.min() > 0.7
    assert 1.2 < determinant.max() < 2  # the lung expands


def test_closed_form_in_the_middle_of_the_cavity():
    """Below the diaphragm, halfway between the walls: full descent, half of the expansion's step."""
    rest = at(0.5, -80.0)[:, None]
    moved = DEEP.inverse(rest)[:, 0]
    assert moved[2] == pytest.approx(-80.0 - 30.0)
    back, front = cavity_walls(moved[2])
    assert moved[1] == pytest.approx((back + front) / 2 + 7.0 / 2)  # the push is complete at z = -70 and below


def test_spine_and_apex_rest():
    spine = at(-0.1, np.linspace(-120, 110, 20))
    np.testing.assert_allclose(DEEP.inverse(spine), spine, atol=1e-12)
    apex = at(np.linspace(0.1, 0.9, 9), 121.0)
    np.testing.assert_allclose(DEEP.inverse(apex), apex, atol=1e-12)


def test_front_wall_goes_out_and_not_down():
    wall = at(1.1, np.linspace(-120, -75, 5))
    np.testing.assert_allclose(DEEP.inverse(wall) - wall, np.broadcast_to([[0], [7.0], [0]], (3, 5)), atol=1e-12)


def test_lung_slides_along_the_back_wall():
    """Along the wall what lies 12 mm inside goes down, what lies 4 mm behind does not, and neither crosses the wall."""
    inside, behind = DEEP.inverse(at(0.12, -60.0)[:, None])[:, 0], DEEP.inverse(at(-0.04, -60.0)[:, None])[:, 0]
    assert inside[2] < -60 - 30
    assert behind[2] == -60
    back, front = cavity_walls(inside[2])
    assert 0 < (inside[1] - back) / (front - back) < 0.2


def test_back_of_the_diaphragm_goes_down_more_than_the_front():
    back, front = (DEEP.inverse(at(eta, -60.0)[:, None])[2, 0] for eta in (0.2, 0.8))
    assert back - front == pytest.approx(-30 * 0.5 * 0.6)


def test_signal_is_a_function_of_its_seed_and_of_time():
    times = np.linspace(0, 30, 400)
    first, again, other = (BreathingSignal(np.random.default_rng(s), 30.0, 16.0) for s in (1, 1, 2))
    np.testing.assert_array_equal(first(times), again(times))
    np.testing.assert_array_equal(first(times)[100:], first(times[100:]))
    assert np.abs(first(times) - other(times)).max() > 2


def test_signal_has_irregular_breaths_around_its_height():
    times = np.linspace(0, 300, 30_001)
    depth = BreathingSignal(np.random.default_rng(3), 300.0, 16.0, period=4.0)(times)
    inner = depth[1:-1]
    peaks = np.flatnonzero((inner > depth[:-2]) & (inner > depth[2:]) & (inner > 6))
    assert 60 < len(peaks) < 90
    assert np.std(np.diff(times[peaks])) > 0.3
    assert 2 < np.std(depth[1:-1][peaks]) < 5
    assert np.median(depth[1:-1][peaks]) == pytest.approx(16, abs=4)
    assert np.abs(np.diff(depth)).max() < 0.5  # continuous, also from one breath to the next
    assert (depth < 4).mean() > (depth > 12).mean()  # rests at the end of expiration
