"""Trees that fill a lung: how they branch, and how much of each voxel they cover."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import cKDTree

from monai_regplugins.phantoms.lung_trees import cover, grow_lung_tree, main_airways
from monai_regplugins.phantoms.vessels import VesselTree

ROOT, HEADING = np.array([5.0, 0.0, 0.0]), np.array([1.0, 0.0, 0.0])


def places(seed=0, count=600):
    """Random places in a ball."""
    points = np.random.default_rng(seed).uniform(-1, 1, (2 * count, 3))
    return points[np.linalg.norm(points, axis=1) < 1] * 50 + (60, 0, 0)


def grow(seed=0):
    return grow_lung_tree(np.random.default_rng(seed), ROOT, HEADING, 6.0, places())


def tube(start, end, radius):
    return VesselTree(np.array([start]), np.array([end]), np.full((1, 2), radius), np.zeros((0, 3)))


def grid(edge, half=16.0):
    return cKDTree(np.mgrid[-half:half:edge, -half:half:edge, -half:half:edge].reshape(3, -1).T)


def test_growth_is_a_function_of_the_generator():
    for one, two in zip(grow(), grow(), strict=True):
        np.testing.assert_array_equal(one, two)
    assert (grow(1).bifurcations[5] != grow().bifurcations[5]).any()


def test_one_vessel_comes_to_each_bifurcation_and_two_leave():
    tree = grow()
    assert len(tree.bifurcations) > 60
    for place in tree.bifurcations:
        assert (tree.starts == place).all(axis=1).sum() == 2
        assert (tree.ends == place).all(axis=1).sum() == 1
    assert (tree.starts == ROOT).all(axis=1).sum() == 1
    leaves = (cKDTree(tree.starts).query(tree.ends)[0] > 0).sum()
    assert leaves == len(tree.bifurcations) + 1


def test_vessels_get_thinner_from_the_root_on():
    tree = grow()
    assert tree.radii[0, 0] == tree.radii.max() == 6.0
    assert (np.diff(tree.radii[:, 0]) <= 0).all()
    assert (tree.radii[:, 1] < tree.radii[:, 0]).all()
    assert 0.3 < tree.radii.min() < 2


def test_the_tree_fills_the_lung_and_stays_in_it():
    tree = grow()
    distance = cKDTree(np.concatenate([tree.starts, tree.ends])).query(places(5))[0]
    assert np.quantile(distance, 0.95) < 15  # of a ball of 50 mm
    assert np.linalg.norm(tree.ends - (60, 0, 0), axis=1).max() < 52


def test_first_vessel_leaves_in_its_heading():
    tree = grow_lung_tree(np.random.default_rng(0), ROOT, np.array([0.0, 0.0, 3.0]), 6.0, places())
    first = (tree.ends - tree.starts)[(tree.starts == ROOT).all(axis=1)][0]
    assert first[2] > 0.7 * np.linalg.norm(first)


@pytest.mark.parametrize("radius", [5.0, 3.0, 2.0, 1.2, 1.0, 0.5])
def test_cover_adds_up_to_the_volume_of_the_vessel(radius):
    """Vessels thicker and thinner than a voxel, as an average over places and directions."""
    edge, volumes = 2.0, []
    points = grid(edge)
    for a, b, c, d in np.random.default_rng(0).uniform(-3, 3, (8, 4)):
        tree = tube((a, b, -60.0), (c, d, 60.0), radius)
        length = 32.0 * np.linalg.norm(tree.ends - tree.starts) / 120.0
        volumes.append(cover(points, tree, edge)[1].sum() * edge**3 / length)
    assert np.mean(volumes) == pytest.approx(np.pi * radius**2, rel=0.03)


def test_cover_touches_each_voxel_once_and_only_near_ones():
    points = grid(1.0)
    touched, part = cover(points, tube((-5.0, 0.0, 0.0), (5.0, 0.0, 0.0), 2.0), 1.0)
    assert len(set(touched)) == len(touched)
    assert part.max() == 1.0
    assert (part > 0).all()
    near = points.data[touched]
    assert np.linalg.norm(near - np.clip(near[:, :1], -5, 5) * [1, 0, 0], axis=1).max() < 2.5
    assert len(cover(points, tube((100.0, 0.0, 0.0), (110.0, 0.0, 0.0), 2.0), 1.0)[0]) == 0


def test_airways_run_beside_the_thick_arteries():
    tree = grow()
    airways = main_airways(tree, 2.0, np.array([0.0, -1.5, 0.0]))
    thick = tree.radii[:, 1] > 2.0
    assert 3 < len(airways.starts) == thick.sum() < len(tree.starts)
    np.testing.assert_allclose(tree.starts[thick] - airways.starts, tree.radii[thick, :1] * (0, 1.5, 0), atol=1e-12)
    assert (airways.radii < tree.radii[thick]).all()
