"""The breath in 3D: exactly invertible, with the stated determinant, along the pleura and not through it."""

from __future__ import annotations

import numpy as np
import pytest

from monai_regplugins.phantoms.ventilation import (
    ChestExpansion,
    PleuralSlide,
    cavity_section,
    chest_cavity,
    chest_wall,
    in_chest_cavity,
    oval_distance,
)

SLIDE, EXPANSION = PleuralSlide(24.0, 0.25, 0.3), ChestExpansion(7.0, 3.0, 3.0)


@pytest.fixture(scope="module")
def points():
    return np.random.default_rng(0).uniform(-140, 140, (3, 20_000))


def at(u, v, z):
    """Points (3, N) at places of the cavity."""
    u, v, z = np.broadcast_arrays(*(np.asarray(part, dtype=float) for part in (u, v, z)))
    wide, middle, deep = cavity_section(z)
    return np.stack([u * wide, middle + v * deep, z])


@pytest.mark.parametrize("breath", [SLIDE, PleuralSlide(-4.0), EXPANSION, ChestExpansion(-1.0, 0.5, -1.0)])
def test_inverse_is_exact_both_ways(breath, points):
    moved = breath.inverse(points)
    assert np.abs(moved - points).max() > 0.9
    np.testing.assert_allclose(breath.forward(moved), points, atol=1e-11)
    np.testing.assert_allclose(breath.inverse(breath.forward(points)), points, atol=1e-11)
    assert breath.forward(points.astype(np.float32)).dtype == np.float32


@pytest.mark.parametrize("breath", [PleuralSlide(0.0), ChestExpansion(0.0)])
def test_no_breath_is_rest(breath, points):
    np.testing.assert_allclose(breath.inverse(points), points, atol=1e-12)
    np.testing.assert_allclose(breath.expansion(points), 1.0, atol=1e-12)


@pytest.mark.parametrize("breath", [SLIDE, EXPANSION])
def test_expansion_is_the_determinant_and_nothing_folds(breath, points):
    step = 1e-5
    columns = [breath.inverse(points + step * d) - breath.inverse(points - step * d) for d in np.eye(3)[:, :, None]]
    determinant = np.linalg.det(np.stack(columns).transpose(2, 0, 1) / (2 * step))
    expansion = breath.expansion(points)
    near = np.abs(determinant - expansion) < 1e-6
    assert near.mean() > 0.9995  # all but where the step crosses the pleura
    assert expansion.min() > 0.9
    assert expansion.max() > 1.15  # the lungs fill


def test_cavity_is_mapped_onto_itself(points):
    def inside(p):
        wide, middle, deep = cavity_section(p[2])
        return in_chest_cavity(p[0] / wide, (p[1] - middle) / deep)

    moved = SLIDE.inverse(points)
    np.testing.assert_array_equal(inside(moved), inside(points))
    np.testing.assert_array_equal(moved[:, ~inside(points)], points[:, ~inside(points)])
    np.testing.assert_array_equal(inside(points), chest_cavity(points) < 0)
    assert (chest_wall(points) <= chest_cavity(points)).all()


def test_closed_form_below_the_diaphragm():
    """Full descent there, more at the back than in front, less in the mediastinum."""
    rest = at([0.7, 0.7, 0.7, -0.08], [0.0, -0.6, 0.6, 0.2], -80.0)
    drop = rest[2] - SLIDE.inverse(rest)[2]
    aside = 1 - 0.7 * np.exp(-0.5 * (0.78 / 0.22) ** 2)
    np.testing.assert_allclose(drop, 24 * np.array([aside, 1.15 * aside, 0.85 * aside, 0.3 * 0.95]), rtol=1e-12)


def test_spine_and_apex_rest():
    spine = np.stack([np.zeros(20), np.full(20, -40.0), np.linspace(-120, 90, 20)])
    for breath in (SLIDE, EXPANSION):
        np.testing.assert_allclose(breath.inverse(spine), spine, atol=1e-12)
    apex = at(np.linspace(-0.8, 0.8, 9), 0.1, 105.0)
    np.testing.assert_allclose(SLIDE.inverse(apex), apex, atol=1e-12)


def test_lungs_slide_along_the_pleura():
    """On both sides of the border, hundredths of a millimeter apart, one place rests and the other goes down."""
    inside, outside = SLIDE.inverse(at([0.9999, 1.0001], 0.0, -80.0)).T
    assert outside[2] == -80.0
    assert inside[2] < -80 - 23


def test_wall_goes_out_and_up():
    moved = EXPANSION.inverse(np.array([[0.0, 110.0, -110.0], [80.0, -50.0, -50.0], [-70.0, -70.0, -70.0]]))
    np.testing.assert_allclose(moved - [[0, 110, -110], [80, -50, -50], [-70, -70, -70]],
                               [[0, 3, -3], [7, 0, 0], [3, 0, 0]], atol=1e-12)  # fmt: skip


def test_distance_to_the_oval():
    """Compared with the nearest of very many places on the curve."""
    angle = np.linspace(0, 2 * np.pi, 40_001)
    wide, deep = 100.0, 60.0
    curve = np.stack([wide * np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** 0.8,
                      deep * np.sign(np.sin(angle)) * np.abs(np.sin(angle)) ** 0.8])  # fmt: skip
    places = curve[:, 137::2000] * 1.04
    exact = np.linalg.norm(places[:, :, None] - curve[:, None], axis=0).min(axis=1)
    np.testing.assert_allclose(oval_distance(*places, wide, deep), exact, rtol=0.06)
    assert oval_distance(np.array([0.0]), np.array([0.0]), wide, deep)[0] < -50
