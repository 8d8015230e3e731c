"""The frame of the chest: skin, muscles and bones where they belong."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from monai_regplugins.phantoms.chest import CHEST_TISSUES
from monai_regplugins.phantoms.chest_frame import (
    body_outline,
    paint_chest_bones,
    paint_chest_wall,
    paint_thoracic_spine,
)
from monai_regplugins.phantoms.shapes import Canvas
from monai_regplugins.phantoms.ventilation import chest_wall

STEP, SPINE, RIBS, STERNUM = 3.0, 8, 9, 10
SHAPE = (92, 72, 84)
TISSUE = {name: mean for name, (mean, _) in CHEST_TISSUES.items()}


@pytest.fixture(scope="module")
def grid():
    return ((np.indices(SHAPE).reshape(3, -1).T - (np.array(SHAPE) - 1) / 2) * STEP).T.astype(np.float32)


@pytest.fixture(scope="module")
def painted(grid):
    canvas = Canvas(grid, -1000.0, STEP)
    wall, flat = chest_wall(grid), np.zeros(grid.shape[1], dtype=np.float32)
    paint_chest_wall(canvas, TISSUE, body_outline(grid, 8.0), wall, flat, 8.0)
    paint_thoracic_spine(canvas, TISSUE, flat, SPINE)
    paint_chest_bones(canvas, TISSUE, wall, flat, RIBS, STERNUM)
    return canvas


def test_outline_moves_out_by_the_fat():
    front = np.array([[0.0], [300.0], [-20.0]])
    assert body_outline(front, 4.0)[0] - body_outline(front, 12.0)[0] == pytest.approx(8.0, abs=0.5)
    middle = np.array([[0.0, 300.0], [0.0, 0.0], [0.0, 0.0]])
    assert (np.sign(body_outline(middle, 8.0)) == [-1, 1]).all()


def test_chest_wall_is_within_the_skin(grid):
    """Muscle and fat all around the ribs."""
    ribs = (chest_wall(grid) < 10) & (np.abs(grid[2]) < 100)
    assert body_outline(grid, 8.0)[ribs].max() < -4


def test_twelve_ribs_on_each_side_descend_to_the_front(painted):
    ribs = painted.label.reshape(SHAPE) == RIBS
    x, y, z = (part.reshape(SHAPE) for part in painted.points)
    for side in (-1, 1):
        lines = []
        for low, high in ((-60, -50), (20, 30)):
            strip = ribs & (x * side > 40) & (y > low) & (y < high) & (z < 110)
            heights = np.flatnonzero(strip.any(axis=(0, 1)))
            lines.append(np.split(heights, np.flatnonzero(np.diff(heights) > 1) + 1))
        assert len(lines[0]) >= 9
        spacing = STEP * np.diff([line.mean() for line in lines[0]])
        assert np.median(spacing) == pytest.approx(20.0, abs=1.5)
        assert lines[0][-1].mean() - lines[1][-1].mean() > 30 / STEP  # the first rib in front is far lower


def test_bones_are_bright_and_apart(painted):
    for label, least in ((SPINE, 200), (RIBS, 200), (STERNUM, 200)):
        values = painted.image[painted.label == label]
        assert len(values) > 300
        assert np.median(values) > least
    sternum = painted.points[:, painted.label == STERNUM]
    assert np.abs(sternum[0]).max() < 25
    assert sternum[1].min() > 30
    assert ndimage.label(painted.label.reshape(SHAPE) == STERNUM)[1] == 1


def test_cartilage_joins_ribs_and_sternum(painted):
    x, y, _ = painted.points
    front = painted.image[(painted.label == RIBS) & (y > 50) & (np.abs(x) < 40)]
    assert np.median(front) == pytest.approx(TISSUE["cartilage"], abs=15)


def test_vertebrae_follow_each_other_every_20_mm(painted):
    x, _, z = painted.points
    for side in (-1, 1):
        processes = np.unique(z[(painted.label == SPINE) & (np.abs(side * x - 22.0) < 2)])  # the transverse ones
        first = processes[np.diff(processes, prepend=-1e3) > STEP + 0.1]
        assert len(first) >= 10
        assert np.diff(first[1:-1]).mean() == pytest.approx(20.0, abs=0.5)
    spine = painted.points[:, painted.label == SPINE]
    assert np.abs(spine[0]).max() < 30
    assert spine[1].max() < -15


def test_muscle_and_fat(painted):
    wall = chest_wall(painted.points)
    between_ribs = painted.image[(wall > 3) & (wall < 9) & (painted.label == 0) & (np.abs(painted.points[0]) > 40)]
    assert np.median(between_ribs) == pytest.approx(TISSUE["muscle"], abs=1)
    under_skin = painted.image[np.abs(body_outline(painted.points, 8.0) + 5.0) < 1]
    assert np.median(under_skin) == pytest.approx(TISSUE["fat"], abs=1)
    assert painted.image[body_outline(painted.points, 8.0) > STEP].max() == -1000
