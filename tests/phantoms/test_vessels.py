"""Vessel trees: where they grow, where they split, and how they are painted."""

from __future__ import annotations

import numpy as np
import pytest

from monai_regplugins.phantoms.shapes import Canvas
from monai_regplugins.phantoms.vessels import VesselTree, grow_vessels, paint_vessel_tree


def grow(seed=0, radius=40.0, generations=3):
    rng = np.random.default_rng(seed)
    headings = np.linspace(0, 2 * np.pi, 4)[:-1]
    return grow_vessels(rng, (5.0, -3.0), headings, 3.0, 12.0, generations, lambda p: np.hypot(*p) < radius)


def grid(step=0.5, half=20.0):
    y, z = np.meshgrid(np.arange(-half, half, step), np.arange(-half, half, step), indexing="ij")
    return np.stack([np.zeros(y.size), y.ravel(), z.ravel()]).astype(np.float32)


def tube(start, end, first, last):
    return VesselTree(*(np.array([pair], dtype=float) for pair in (start, end, (first, last))), np.zeros((0, 2)))


def test_growth_is_a_function_of_the_generator():
    for one, two in zip(grow(), grow(), strict=True):
        np.testing.assert_array_equal(one, two)
    assert grow(1).bifurcations[0] != pytest.approx(grow().bifurcations[0])


def test_vessels_stay_inside_and_get_thinner():
    tree = grow(radius=30.0, generations=5)
    assert np.hypot(*tree.ends.T).max() < 30
    assert (tree.radii[:, 1] < tree.radii[:, 0]).all()
    assert (tree.radii > 0).all()


def test_three_vessels_split_three_times_where_nothing_is_in_the_way():
    tree = grow(radius=1e3)
    assert len(tree.bifurcations) == 3 * (1 + 2 + 4)
    assert len(tree.starts) == 3 * 3 * (1 + 2 + 4 + 8)


def test_two_vessels_leave_each_bifurcation():
    tree = grow(radius=1e3)
    for place in tree.bifurcations:
        assert (tree.starts == place).all(axis=1).sum() == 2
        assert (tree.ends == place).all(axis=1).sum() == 1


def test_painted_width_is_that_of_the_cone():
    canvas = Canvas(grid(), 10.0, edge=0.5)
    paint_vessel_tree(canvas, tube((-10.0, 0.0), (10.0, 0.0), 6.0, 3.0), 110.0)
    _, y, z = canvas.points
    for place, radius in ((-10.0, 6.0), (0.0, 4.5), (9.5, 3.075)):
        bright = np.abs(z[(np.abs(y - place) < 0.1) & (canvas.image > 60)])
        assert bright.max() == pytest.approx(radius, abs=0.5)
    assert canvas.image.min() == 10
    assert canvas.image.max() == pytest.approx(110)


def test_thin_vessels_are_faint_in_proportion():
    canvas = Canvas(grid(), 0.0, edge=0.5)
    paint_vessel_tree(canvas, tube((-10.0, 0.0), (10.0, 0.0), 1.0, 1.0), 100.0)
    assert canvas.image.max() == pytest.approx(40)  # 1.0 / 2.5


def test_only_brightens_and_keeps_labels():
    canvas = Canvas(grid(), 200.0, edge=0.5)
    canvas.label[:] = 3
    paint_vessel_tree(canvas, tube((-10.0, 0.0), (10.0, 0.0), 4.0, 4.0), 100.0)
    assert (canvas.image == 200).all()
    assert (canvas.label == 3).all()


def test_vessels_far_away_change_nothing():
    canvas = Canvas(grid(), 0.0, edge=0.5)
    paint_vessel_tree(canvas, tube((200.0, 0.0), (210.0, 0.0), 4.0, 4.0), 100.0)
    assert (canvas.image == 0).all()
