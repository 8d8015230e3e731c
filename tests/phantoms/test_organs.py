"""Organs are where anatomy has them, and carry their class."""

from __future__ import annotations

import numpy as np
import pytest

from monai_regplugins.phantoms.anatomy import ABDOMEN_LABELS, TISSUES
from monai_regplugins.phantoms.organs import paint_bowel, paint_organs, paint_vessels
from monai_regplugins.phantoms.shapes import Canvas

TISSUE = {name: mean for name, (mean, _) in TISSUES.items()}
PLACES = {  # canonical mm
    "spleen": (-88, -26, 26),
    "right kidney": (70, -45, -50),
    "left kidney": (-68, -45, -35),
    "gallbladder": (42, 36, -18),
    "esophagus": (-4, -22, 140),
    "liver": (75, 10, 30),
    "stomach": (-52, 14, 54),
    "aorta": (-8, -22, 0),
    "inferior vena cava": (18, -20, 10),
    "portal and splenic vein": (24, 6, 20),
    "pancreas": (-24, 17, 17),
}


def _paint(places):
    canvas = Canvas(np.array(places, dtype=np.float32).T, background=-100.0, edge=1.0)
    flat = 0 * canvas.image
    paint_bowel(canvas, TISSUE, flat, flat)
    paint_organs(canvas, TISSUE, flat, flat)
    paint_vessels(canvas, TISSUE, flat)
    return canvas


@pytest.mark.parametrize("organ", PLACES)
def test_place_has_its_label(organ):
    canvas = _paint([PLACES[organ]])
    assert ABDOMEN_LABELS[int(canvas.label[0])] == organ


@pytest.mark.parametrize(
    ("organ", "tissue"),
    [("liver", "liver"), ("spleen", "spleen"), ("aorta", "aorta"), ("portal and splenic vein", "portal")],
)
def test_place_has_its_intensity(organ, tissue):
    assert _paint([PLACES[organ]]).image[0] == pytest.approx(TISSUE[tissue])


def test_gas_in_the_stomach_lies_in_front():
    canvas = _paint([(-50, 45, 10), (-50, 22, 30)])
    np.testing.assert_array_equal(canvas.label, [7, 7])
    assert canvas.image[0] < -800
    assert canvas.image[1] > 0


def test_fat_around_the_kidney_is_no_liver():
    x, y, z = np.meshgrid(np.arange(40, 100, 3), np.arange(-70, 0, 3), np.arange(20, 45, 3))
    canvas = _paint(np.stack([x, y, z]).reshape(3, -1).T)
    assert {2, 6} <= set(canvas.label.tolist())
    fat = np.abs(canvas.image - TISSUE["fat"]) < 1
    assert fat.any()
    assert not canvas.label[fat].any()


def test_bowel_fills_the_lower_abdomen_with_wall_content_and_gas():
    x, y, z = np.meshgrid(np.arange(-90, 91, 6), np.arange(0, 61, 6), np.arange(-120, -50, 6))
    image = _paint(np.stack([x, y, z]).reshape(3, -1).T).image
    for low, high in ((-1000, -700), (-110, -90), (0, 40), (60, 90)):
        assert ((image > low) & (image < high)).mean() > 0.01
