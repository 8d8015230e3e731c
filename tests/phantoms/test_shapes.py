"""Distances against geometry, and the soft edges of the canvas."""

from __future__ import annotations

import numpy as np
import pytest

from monai_regplugins.phantoms.shapes import (
    Canvas,
    Shape,
    cut,
    ellipsoid,
    everywhere,
    rotation_matrix,
    smooth_max,
    superellipse,
    tube,
)


@pytest.fixture
def points():
    return np.random.default_rng(2).uniform(-30, 30, (3, 400)).astype(np.float32)


def test_ball(points):
    np.testing.assert_allclose(
        ellipsoid((1, 2, 3), (9, 9, 9)).distance(points),
        np.linalg.norm(points - np.array([[1], [2], [3]]), axis=0) - 9,
        atol=1e-3,
    )


def test_turned_ellipsoid_surface_and_box():
    shape = ellipsoid((1, 2, 3), (10, 5, 3), (20, -30, 40))
    sphere = np.random.default_rng(3).normal(size=(3, 300))
    sphere /= np.linalg.norm(sphere, axis=0)
    rotation = rotation_matrix(np.deg2rad((20, -30, 40)))
    surface = rotation @ (np.array([[10.0], [5.0], [3.0]]) * sphere) + np.array([[1], [2], [3]])
    np.testing.assert_allclose(shape.distance(surface), 0, atol=1e-3)
    assert (surface >= np.array(shape.low)[:, None] - 1e-4).all()
    assert (surface <= np.array(shape.high)[:, None] + 1e-4).all()


def test_rotation_order():
    np.testing.assert_allclose(rotation_matrix((np.pi / 2, 0, np.pi / 2)) @ [0, 1, 0], [0, 0, 1], atol=1e-12)


def test_superellipse_is_first_order_exact_at_the_curve():
    t = np.linspace(0.1, 1.4, 30)
    x, y = 7 * np.cos(t) ** (2 / 2.5), 4 * np.sin(t) ** (2 / 2.5)
    np.testing.assert_allclose(superellipse(x, y, (7, 4), 2.5), 0, atol=1e-9)
    assert superellipse(np.array([8.0]), np.array([0.0]), (7, 4), 2.5)[0] == pytest.approx(1.0)
    assert np.isfinite(superellipse(np.zeros(1), np.zeros(1), (7, 4), 2.5)).all()


def test_straight_tube_is_a_capsule(points):
    shape = tube([(0, 0, -10, 4), (0, 0, 10, 4)])
    z = np.clip(points[2], -10, 10)
    expected = np.sqrt(points[0] ** 2 + points[1] ** 2 + (points[2] - z) ** 2) - 4
    difference = shape.distance(points) - expected
    assert difference.min() > -1e-4
    assert difference[expected > -1].max() < 0.15  # balls strung at a third of the radius


def test_cut_and_smooth_max():
    a, b = np.array([3.0, 0.0, 1.0]), np.array([0.0, 5.0, 1.0])
    np.testing.assert_allclose(smooth_max(a, b, 2.0), [3.0, 5.0, 1.5])
    half = cut(everywhere(lambda p: p[0]), lambda p: p[1], width=1e-3)
    np.testing.assert_allclose(half.distance(np.array([[-1.0, -1.0], [-2.0, 4.0], [0.0, 0.0]])), [-1, 4])


def test_canvas_blends_over_one_edge_and_labels_at_half():
    x = np.array([-3.0, -0.5, 0.0, 0.5, 3.0], dtype=np.float32)
    canvas = Canvas(np.stack([x, 0 * x, 0 * x]), background=10.0, edge=2.0)
    canvas.paint(Shape(lambda p: p[0]), 110.0, 3)
    np.testing.assert_allclose(canvas.image, [110, 85, 60, 35, 10])
    np.testing.assert_array_equal(canvas.label, [3, 3, 0, 0, 0])


def test_canvas_content_and_what_keeps_the_class():
    x = np.array([-9.0, -3.0, 5.0], dtype=np.float32)
    canvas = Canvas(np.stack([x, 0 * x, 0 * x]), background=0.0, edge=1.0)
    canvas.paint(Shape(lambda p: p[0]), 50.0, 1, rim=6, content=np.array([7.0, 8.0, 9.0]))
    np.testing.assert_allclose(canvas.image, [7, 50, 0])
    canvas.paint(Shape(lambda p: p[0] + 5), 70.0, None)
    np.testing.assert_array_equal(canvas.label, [1, 1, 0])
    canvas.paint(Shape(lambda p: p[0] + 5), 70.0)
    np.testing.assert_array_equal(canvas.label, [0, 1, 0])


def test_canvas_skips_a_shape_whose_box_is_elsewhere():
    canvas = Canvas(np.zeros((3, 4), dtype=np.float32), background=0.0, edge=1.0)
    canvas.paint(Shape(lambda p: -1e3 + 0 * p[0], (5, 5, 5), (6, 6, 6)), 9.0, 1)
    assert not canvas.image.any()
