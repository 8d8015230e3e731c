"""The canonical abdomen as a whole."""

from __future__ import annotations

import numpy as np
import pytest

from monai_regplugins.phantoms.anatomy import (
    ABDOMEN_LABELS,
    ABDOMEN_LANDMARKS,
    TISSUES,
    abdomen,
)

TISSUE = {name: mean for name, (mean, _) in TISSUES.items()}


@pytest.fixture(scope="module")
def canonical():
    axes = [np.arange(-half + 2.5, half, 5, dtype=np.float32) for half in (150, 110, 150)]
    points = np.stack(np.meshgrid(*axes, indexing="ij")).reshape(3, -1)
    image, label = abdomen(points, TISSUE, edge=5.0)
    return points, image, label


def test_all_labels_in_the_order_of_real_volumes(canonical):
    _, _, label = canonical
    volume = {name: (label == value).sum() * 0.125 for value, name in ABDOMEN_LABELS.items() if value}  # ml
    assert min(volume, key=volume.get) == "portal and splenic vein"
    assert max(volume, key=volume.get) == "liver"
    assert 10 < volume["portal and splenic vein"] < 40
    assert 700 < volume["liver"] < 1600
    assert 80 < volume["right kidney"] < 200
    assert volume["gallbladder"] < volume["pancreas"] < volume["spleen"] < volume["stomach"]


def test_sides(canonical):
    points, _, label = canonical
    x = {name: points[0, label == value].mean() for value, name in ABDOMEN_LABELS.items()}
    assert min(x["liver"], x["right kidney"], x["gallbladder"], x["inferior vena cava"]) > 0
    assert max(x["spleen"], x["left kidney"], x["stomach"], x["aorta"]) < 0


def test_intensities_span_air_to_bone(canonical):
    points, image, label = canonical
    assert image.dtype == np.float32
    assert label.dtype == np.uint8
    assert image[np.abs(points[0]) > 145].max() == TISSUE["air"]
    assert image.max() > 400
    assert image[label == 6].std() > 3  # texture and vessels in the liver


def test_texture_gain(canonical):
    points = canonical[0][:, canonical[2] == 1]  # the spleen, with sharp edges
    flat, plain, strong = (abdomen(points, TISSUE, edge=0.1, texture=gain)[0] for gain in (0.0, 1.0, 2.0))
    assert np.median(np.abs(flat - TISSUE["spleen"])) < 1e-3
    spread = [np.median(np.abs(image - TISSUE["spleen"])) for image in (plain, strong)]
    assert 2 < spread[0] < 15
    assert spread[1] == pytest.approx(2 * spread[0], rel=0.05)


def test_landmarks_lie_in_what_they_name():
    names = ("spleen", "gallbladder", "liver", "portal confluence", "right kidney", "vertebra 0")
    points = np.array([ABDOMEN_LANDMARKS[name] for name in names], dtype=np.float32).T
    _, label = abdomen(points, TISSUE, edge=1.0)
    np.testing.assert_array_equal(label, [1, 4, 6, 10, 2, 0])
