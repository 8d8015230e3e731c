"""The sagittal chest at rest: which tissue lies where, and that it is one continuous function of the place."""

from __future__ import annotations

import numpy as np
import pytest

from monai_regplugins.phantoms.breathing import cavity_walls
from monai_regplugins.phantoms.sagittal import (
    CHEST_LABELS,
    SIGNALS,
    draw_chest,
    sagittal_chest,
)


@pytest.fixture(scope="module")
def chest():
    return draw_chest(np.random.default_rng(4))


def at(*places):
    """Points (3, N) of places (eta, z)."""
    eta, z = np.array(places, dtype=np.float32).T
    back, front = cavity_walls(z)
    return np.stack([np.zeros_like(z), back + eta * (front - back), z])


def test_tissues_by_place(chest):
    points = at((0.3, -5), (0.5, -80), (-0.16, 0.5), (3.0, 0), (0.12, 60))
    _, label = sagittal_chest(points, chest, 1.0)
    assert [CHEST_LABELS[value] for value in label] == ["lung", "liver", "vertebrae", "background", "lung"]


def test_heart_lies_at_its_place(chest):
    y, z, wide, high = chest.heart
    points = np.array([[0.0, 0.0], [y, y - 2 * wide], [z, z + 2 * high]], dtype=np.float32)
    image, label = sagittal_chest(points, chest, 1.0)
    assert CHEST_LABELS[label[0]] == "heart"
    assert label[1] != label[0]
    assert image[0] > 90


def test_contrast(chest):
    """Air is darker than lung, lung than muscle, muscle than liver, liver than fat."""
    y, z = np.meshgrid(np.arange(-128, 128, 4.0), np.arange(-128, 128, 4.0), indexing="ij")
    points = np.stack([np.zeros(y.size), y.ravel(), z.ravel()]).astype(np.float32)
    image, label = sagittal_chest(points, chest, 2.0)
    air = image[points[1] > 110]
    assert np.median(air) == pytest.approx(SIGNALS["air"][0])
    lung, liver, heart = (np.median(image[label == value]) for value in (1, 2, 3))
    assert np.median(air) + 5 < lung < 30 < liver < heart
    assert set(np.unique(label)) == set(CHEST_LABELS)


def test_diluted_lung_is_darker_and_nothing_else_changes(chest):
    points = at((0.25, 0), (0.15, -10), (0.5, -80), (-0.16, 0.5))
    full, thin = (sagittal_chest(points, chest, 1.0, density)[0] for density in (1.0, 0.7))
    assert (thin[:2] <= full[:2]).all()
    assert thin[:2].sum() < 0.95 * full[:2].sum()
    np.testing.assert_array_equal(thin[2:], full[2:])


def test_bifurcations_lie_in_lung_and_liver(chest):
    for tree, name in ((chest.lung_vessels, "lung"), (chest.liver_vessels, "liver")):
        assert len(tree.bifurcations) > 5
        points = np.vstack([np.zeros(len(tree.bifurcations)), tree.bifurcations.T]).astype(np.float32)
        _, label = sagittal_chest(points, chest, 1.0)
        assert {CHEST_LABELS[value] for value in label} == {name}


def test_intensity_is_continuous(chest):
    """Half the step, about half the largest jump: no edge is harder than the soft edge."""
    jumps = []
    for step in (0.2, 0.1):
        z = np.arange(-120, 120, step, dtype=np.float32)
        points = np.stack([np.zeros_like(z), np.full_like(z, 12.0), z])
        jumps.append(np.abs(np.diff(sagittal_chest(points, chest, 2.0)[0])).max())
    assert jumps[1] < 0.6 * jumps[0]


def test_subjects_differ():
    one, two = (draw_chest(np.random.default_rng(seed)) for seed in (0, 1))
    again = draw_chest(np.random.default_rng(0))
    assert one.signal == again.signal != two.signal
    np.testing.assert_array_equal(one.lung_vessels.ends, again.lung_vessels.ends)
    assert one.dome != two.dome
