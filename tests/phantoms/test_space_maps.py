"""Exactly invertible maps: round trips, and the closed forms of single pieces."""

from __future__ import annotations

import numpy as np
import pytest

from monai_regplugins.phantoms.space_maps import (
    AffineMap,
    LocalDilation,
    LocalTwist,
    MapChain,
    RegionSlide,
    ShearWave,
)


def _inside(x, y):
    return np.hypot(x, y) < 30


MAPS = {
    "affine": AffineMap(np.array([[1.1, 0.1, 0], [0, 0.9, 0.2], [0, 0, 1]]), (1.0, -2.0, 3.0)),
    "wave": ShearWave((5.0, -3.0, 2.0), (0.03, 0.02, -0.01), 0.7),
    "growth": LocalDilation((2.0, 3.0, -1.0), (40.0, 30.0, 50.0), 0.9),
    "shrinkage": LocalDilation((2.0, 3.0, -1.0), (40.0, 30.0, np.inf), -0.6),
    "twist": LocalTwist((2.0, 3.0, -1.0), 45.0, (1.0, 2.0, 3.0), 1.2),
    "slide": RegionSlide(_inside, 9.0, (0.1, -0.2), 1.1),
}
MAPS["chain"] = MapChain(list(MAPS.values()))


@pytest.fixture
def points():
    return np.random.default_rng(1).uniform(-50, 50, (3, 500))


@pytest.mark.parametrize("name", MAPS)
def test_round_trip(name, points):
    mapped = MAPS[name].forward(points)
    assert np.abs(mapped - points).max() > 1
    np.testing.assert_allclose(MAPS[name].inverse(mapped), points, atol=1e-4)


@pytest.mark.parametrize("name", MAPS)
def test_dtype_is_kept_and_input_untouched(name, points):
    single = points.astype(np.float32)
    before = single.copy()
    assert MAPS[name].forward(single).dtype == np.float32
    assert MAPS[name].inverse(single).dtype == np.float32
    np.testing.assert_array_equal(single, before)


@pytest.mark.parametrize(("name", "determinant"), [("wave", 1.0), ("twist", None), ("growth", None)])
def test_no_folding(name, determinant, points):
    step = 1e-5
    columns = [
        (MAPS[name].forward(points + step * e[:, None]) - MAPS[name].forward(points - step * e[:, None])) / (2 * step)
        for e in np.eye(3)
    ]
    jacobian = np.linalg.det(np.stack(columns).transpose(2, 1, 0))
    assert jacobian.min() > 0
    if determinant is not None:
        np.testing.assert_allclose(jacobian, determinant, atol=1e-6)


def test_wave_moves_across_its_direction():
    wave = ShearWave((2.0, 2.0, 0.0), (0.1, 0.0, 0.0))
    moved = wave.forward(np.array([[np.pi / 0.2], [0.0], [0.0]]))
    np.testing.assert_allclose(moved[:, 0], [np.pi / 0.2, 2.0, 0.0])  # the part along k is removed


def test_dilation_scales_its_center_and_leaves_the_rest():
    grow = LocalDilation((0.0, 0.0, 0.0), (10.0, 10.0, 10.0), 0.5)
    moved = grow.forward(np.array([[1e-3, 10.0, 0.0], [0.0, 0.0, 12.0], [0.0, 0.0, 0.0]]))
    np.testing.assert_allclose(moved, [[1.5e-3, 10.0, 0.0], [0.0, 0.0, 12.0], [0.0, 0.0, 0.0]], rtol=1e-6)


def test_twist_turns_its_center_by_the_angle():
    twist = LocalTwist((0.0, 0.0, 0.0), 100.0, (0.0, 0.0, 5.0), np.pi / 2)
    np.testing.assert_allclose(twist.forward(np.array([[0.01], [0.0], [0.0]]))[:, 0], [0, 0.01, 0], atol=1e-8)


def test_slide_is_discontinuous_at_the_border_only():
    moved = MAPS["slide"].forward(np.array([[29.99, 30.01, 60.0], [0.0, 0.0, 0.0], [5.0, 5.0, 5.0]]))
    np.testing.assert_allclose(moved[2], [1.1 * 5 + 9 + 0.1 * 29.99, 5, 5])


@pytest.mark.parametrize("strength", [-1.0, 1.25])
def test_dilation_refuses_to_fold(strength):
    with pytest.raises(ValueError, match="folds space"):
        LocalDilation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), strength)
