"""The chest at rest: which tissue lies where, and that it is one continuous function of the place."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from monai_regplugins.phantoms.chest import (
    CHEST_TISSUES,
    THORAX_LABELS,
    chest_at_rest,
    draw_anatomy,
    lung_distance,
)
from monai_regplugins.phantoms.ventilation import chest_cavity, chest_wall

STEP, SHAPE = 4.0, (70, 56, 66)


@pytest.fixture(scope="module")
def chest():
    return draw_anatomy(np.random.default_rng(4))


@pytest.fixture(scope="module")
def points():
    return ((np.indices(SHAPE).reshape(3, -1).T - (np.array(SHAPE) - 1) / 2) * STEP).T.astype(np.float32)


@pytest.fixture(scope="module")
def volume(chest, points):
    image, label = chest_at_rest(points, chest, STEP)
    return image.reshape(SHAPE), label.reshape(SHAPE)


def at(chest, *places, edge=0.5):
    image, label = chest_at_rest(np.array(places, dtype=np.float32).T, chest, edge)
    return image, [THORAX_LABELS[value] for value in label]


def test_a_chest_is_a_function_of_its_generator(chest):
    again, other = (draw_anatomy(np.random.default_rng(seed)) for seed in (4, 5))
    np.testing.assert_array_equal(again.veins[1].ends, chest.veins[1].ends)
    assert again.tissue == chest.tissue
    assert other.heart != chest.heart


def test_structures_lie_where_they_belong(chest):
    places = {
        "right lung": (70, -10, 30),
        "left lung": (-60, -10, 45),
        "heart": chest.heart[:3],
        "liver": (60, 0, -75),
        "spleen": (-67, -28, -98),
        "aorta": (-23, -28, 10),
        "vertebrae": (0, -41, 0),
        "sternum": (0, 78, -20),
        "background": (0, -24, 62),  # the esophagus
    }
    image, labels = at(chest, *places.values())
    assert labels == list(places)
    assert image[0] < -750
    assert image[3] == pytest.approx(chest.tissue["liver"], abs=20)
    air = at(chest, (0, -10, 80), (0, 200, 0), (-56, 38, -92))[0]
    np.testing.assert_allclose(air, [-980, -1000, chest.tissue["gas"]], atol=15)  # trachea, outside, stomach


def test_all_labels_are_there_in_one_piece(volume):
    for value in range(1, 9):
        parts, _ = ndimage.label(volume[1] == value)
        sizes = np.bincount(parts.ravel())[1:]
        assert sizes.max() > 0.93 * sizes.sum(), THORAX_LABELS[value]
        assert sizes.sum() > 30


def test_right_and_left(volume, points):
    x = points[0].reshape(SHAPE)
    _, label = volume
    assert x[label == 1].min() > -4 > x[label == 2].max() - 4
    assert x[label == 4].mean() > 20  # liver
    assert x[label == 6].mean() < -40  # spleen
    assert (label == 1).sum() > (label == 2).sum()  # the heart takes its place on the left


def test_volumes_of_a_small_adult(volume):
    liters = {value: (volume[1] == value).sum() * STEP**3 / 1e6 for value in THORAX_LABELS}
    assert 1.2 < liters[1] + liters[2] < 3.0
    assert 0.2 < liters[3] < 0.6


def test_lungs_keep_within_the_cavity(chest, points, volume):
    lung = lung_distance(points, chest)
    assert chest_cavity(points)[lung < 0].max() < -1.0
    given = lung_distance(points, chest, wall=chest_wall(points))
    np.testing.assert_allclose(given, lung, atol=1e-4)
    inside = np.isin(volume[1].ravel(), (1, 2))
    assert inside[lung < -6].mean() > 0.97
    assert not inside[lung > 1e-3].any()


def test_lung_is_heavier_at_the_back_and_follows_the_density(chest, points):
    lung = points[:, lung_distance(points, chest) < -8]
    dense, thin = (chest_at_rest(lung, chest, 1.0, density)[0] for density in (1.0, 0.8))
    front, back = np.median(dense[lung[1] > 30]), np.median(dense[lung[1] < -30])
    assert 20 < back - front < 80  # of a lying person
    air, tissue = CHEST_TISSUES["air"][0], dense < -720  # no vessels
    np.testing.assert_allclose(np.median(((thin - air) / (dense - air))[tissue]), 0.8, atol=0.01)
    assert np.median(dense) == pytest.approx(chest.tissue["lung"], abs=12)


def test_vessels_are_bright_in_the_lung(chest):
    """At the bifurcations of thick vessels there is blood."""
    for tree in (*chest.arteries, *chest.veins):
        places = tree.bifurcations[3:12]
        inside = lung_distance(places.T, chest) < -3
        image, labels = at(chest, *places[inside])
        assert (image > -150).mean() > 0.7  # the others lie in the bronchus beside them
        assert set(labels) <= {"right lung", "left lung"}


def test_image_does_not_depend_on_the_grid(chest, points):
    some = points[:, ::37]
    whole = chest_at_rest(points, chest, STEP)
    part = chest_at_rest(some, chest, STEP)
    np.testing.assert_array_equal(part[1], whole[1][::37])
    np.testing.assert_allclose(part[0], whole[0][::37], atol=0.05)


def test_edges_are_soft(chest):
    """Across the diaphragm the intensity rises over the width of an edge, in steps no larger than it allows."""
    z = np.arange(-60, 20, 0.25, dtype=np.float32)
    line = np.stack([np.full_like(z, 62.0), np.full_like(z, -2.0), z])
    image, _ = chest_at_rest(line, chest, 4.0)
    lung, tissue = image[-1], image[0]
    assert tissue - lung > 800
    assert np.abs(np.diff(image)).max() < 1.5 * (tissue - lung) * 0.25 / 4.0
