"""The frame of the abdomen at places where anatomy says what is there."""

from __future__ import annotations

import numpy as np

from monai_regplugins.phantoms.body import (
    below_diaphragm,
    cavity,
    diaphragm,
    in_cavity,
    paint_chest,
    paint_ribs_and_pelvis,
    paint_spine,
    paint_wall,
    ripple,
    within_cavity,
)
from monai_regplugins.phantoms.shapes import Canvas

TISSUE = {"skin": 1, "fat": 2, "muscle": 3, "disc": 4, "cortical bone": 800, "bone": 5, "canal": 6}
TISSUE |= {"lung": 7, "heart": 8}


def _canvas(*places):
    return Canvas(np.array(places, dtype=np.float32).T, background=-1000.0, edge=1.0)


def test_cavity_holds_organs_but_not_spine_nor_wall():
    np.testing.assert_array_equal(in_cavity(np.array([60.0, 0.0, 140.0]), np.array([10.0, -50.0, 0.0])), [1, 0, 0])
    inside = np.array([[60.0], [10.0], [0.0]])
    assert cavity(inside)[0] < within_cavity(inside)[0] < 0


def test_diaphragm_is_higher_under_the_right_dome_and_falls_to_the_wall():
    x, y, z = np.meshgrid([-58.0, 52.0, 105.0], [4.0], np.arange(-50.0, 150.0), indexing="ij")
    heights = (diaphragm(np.stack([x, y, z]).reshape(3, -1)).reshape(3, -1) < 0).sum(axis=1)
    assert heights[1] > heights[0] > heights[2]
    point = np.array([[0.0], [0.0], [0.0]])
    assert diaphragm(point)[0] < below_diaphragm(point)[0] < 0


def test_ripple_has_zero_mean_and_unit_variance():
    points = np.random.default_rng(0).uniform(-2000, 2000, (3, 20000)).astype(np.float32)
    texture = ripple(points, 20.0, 1)
    assert abs(texture.mean()) < 0.03
    assert abs(texture.std() - 1) < 0.05


def test_layers_of_the_wall():
    canvas = _canvas((160, 0, 0), (132, 0, 40), (117, 0, 40), (60, 10, 0))
    paint_wall(canvas, TISSUE, 0 * canvas.image + 1, 0 * canvas.image)
    assert canvas.image[0] == -1000
    assert canvas.image[1] == 2  # fat under the skin
    assert canvas.image[2] == 3 + 5  # muscle with texture 1
    assert canvas.image[3] == 2  # fat of the cavity


def test_spine_repeats_vertebra_and_disc():
    canvas = _canvas((0, -50, 0), (0, -50, 18), (0, -50, 36), (0, -75, 5))
    paint_spine(canvas, TISSUE, 0 * canvas.image)
    np.testing.assert_allclose(canvas.image, [5, 4, 5, 6])


def test_ribs_descend_to_the_front_and_leave_out_the_midline():
    z = np.arange(40.0, 140.0, 1.0)

    def rib_heights(x, y):
        canvas = _canvas(*((x, y, height) for height in z))
        paint_ribs_and_pelvis(canvas, TISSUE)
        return z[canvas.image > 0]

    side, front, midline = rib_heights(116.0, 3.0), rib_heights(108.0, 32.0), rib_heights(0.0, -75.0)
    assert side.size
    assert front.size
    assert midline.size == 0
    assert min(abs(front[0] + 29 * k - side[0]) for k in range(-3, 4)) > 3  # not at the same height


def test_lung_above_and_heart_in_the_middle():
    canvas = _canvas((70, 0, 130), (70, 0, 20), (-32, 18, 130))
    paint_chest(canvas, TISSUE, 0 * canvas.image)
    np.testing.assert_allclose(canvas.image, [7, -1000, 8 + 25])
