"""The frame of the abdomen phantom: cavity, diaphragm, wall, spine, ribs, pelvis and chest.

Canonical coordinates as in :mod:`monai_regplugins.phantoms.anatomy`; a distance is in mm and negative inside.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from monai_regplugins.phantoms.shapes import (
    Canvas,
    Shape,
    cut,
    ellipsoid,
    everywhere,
    smooth_max,
    superellipse,
    tube,
)

__all__ = [
    "below_diaphragm",
    "cavity",
    "diaphragm",
    "in_cavity",
    "paint_chest",
    "paint_ribs_and_pelvis",
    "paint_spine",
    "paint_wall",
    "ripple",
    "within_cavity",
]

Array = npt.NDArray[Any]

CAVITY_RADII, CAVITY_CENTER_Y = (111.0, 74.0), 4.0
SPINE_RADII, SPINE_CENTER = (42.0, 44.0), (2.0, -50.0)
VERTEBRA, RIB = 36.0, 29.0  # distance from one to the next, mm


def cavity(p: Array) -> Array:
    """Distance to the border of the abdominal cavity: an upright cylinder with a bay for spine and great vessels."""
    wall = superellipse(p[0], p[1] - CAVITY_CENTER_Y, CAVITY_RADII, 2.2)
    spine = superellipse(p[0] - SPINE_CENTER[0], p[1] - SPINE_CENTER[1], SPINE_RADII, 2.5)
    return np.asarray(np.maximum(wall, -spine))


def in_cavity(x: Array, y: Array) -> npt.NDArray[np.bool_]:
    """Whether positions lie in the cross-section of the abdominal cavity, the region that slides along the wall."""
    return np.asarray(cavity(np.stack([x, y])) < 0)


def within_cavity(p: Array) -> Array:
    """Distance to the inside of the cavity's lining: organs keep clear of the sliding border."""
    return cavity(p) + 1.5


def diaphragm(p: Array) -> Array:
    """Distance above the diaphragm: two domes that fall off steeply towards the wall."""
    x, y, z = p
    rho2 = (x / 111) ** 2 + ((y - 10) / 80) ** 2
    right = np.exp(-(((x - 52) / 46) ** 2) - ((y - 4) / 46) ** 2)
    left = np.exp(-(((x + 58) / 42) ** 2) - ((y + 4) / 46) ** 2)
    height = 80 + 22 * right + 12 * left - 62 * rho2**3
    return np.asarray((z - height) / np.sqrt(1 + 9 * np.minimum(rho2, 1.3) ** 3))


def below_diaphragm(p: Array) -> Array:
    """Distance to the underside of the diaphragm."""
    return diaphragm(p) + 3


def ripple(p: Array, wavelength: float, seed: int) -> Array:
    """Smooth random texture of unit variance: plane waves in random directions, wavelengths within a factor of two."""
    rng = np.random.default_rng(seed)
    waves = 10
    direction = rng.normal(size=(waves, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    k = direction * (2 * np.pi / (wavelength * rng.uniform(0.7, 1.4, size=(waves, 1))))
    phase = rng.uniform(0, 2 * np.pi, size=waves)
    total = np.zeros(p.shape[1], dtype=np.float32)
    for vector, angle in zip(k.astype(np.float32), phase.astype(np.float32), strict=True):
        total += np.sin(vector @ p + angle)
    return np.asarray(total * np.float32(np.sqrt(2 / waves)))


def paint_wall(canvas: Canvas, t: dict[str, float], fine: Array, coarse: Array) -> None:
    """Skin, subcutaneous fat, the muscles of wall and back, and the fat of the cavity with its strands."""

    def skin(p: Array) -> Array:
        groove = 7 * np.exp(-((p[0] / 16) ** 2)) * (p[1] < 0)
        waist = 5 * np.exp(-(((p[2] + 25) / 55) ** 2))
        return np.asarray(superellipse(p[0], p[1], (142.0, 98.0), 2.4) + groove + waist)

    def muscle(p: Array) -> Array:
        outer = superellipse(p[0], p[1] - 2, (123.0, 83.0), 2.3)
        gap = 5 - np.hypot(p[0], 0.35 * (p[1] - 84))  # fat in the midline between the two straight muscles
        return np.asarray(smooth_max(outer, gap * (p[1] > 0) - 30 * (p[1] <= 0), 3.0))

    strands = np.clip(np.abs(fine) * -170 + 42, 0, 75)
    canvas.paint(everywhere(skin), t["skin"], rim=4, content=t["fat"] + 5 * coarse)
    canvas.paint(everywhere(muscle), t["muscle"] + 5 * fine)
    canvas.paint(everywhere(cavity), t["fat"] + strands)
    bay = cut(Shape(lambda p: superellipse(p[0] - 2, p[1] + 46, (40.0, 40.0), 2.5)), lambda p: -p[1] - 74, width=2)
    canvas.paint(bay, t["fat"] + strands)
    for side in (-1.0, 1.0):
        canvas.paint(tube([(side * 24, -52, 20, 5), (side * 32, -48, -40, 14), (side * 44, -34, -150, 21),
                           (side * 50, -30, -220, 20)]), t["muscle"] + 5 * fine)  # fmt: skip
        canvas.paint(ellipsoid((side * 62, -60, -50), (20, 9, 62)), t["muscle"] + 5 * fine)
        canvas.paint(tube([(side * 17, -34, -30, 4), (side * 14, -28, 40, 5), (side * 10, -26, 75, 4)]), t["muscle"])


def paint_spine(canvas: Canvas, t: dict[str, float], fine: Array) -> None:
    """Vertebrae with end plates, discs, canal and processes, repeated along z."""

    def level(p: Array) -> Array:
        return np.asarray(np.abs((p[2] + VERTEBRA / 2) % VERTEBRA - VERTEBRA / 2))  # from the middle of the vertebra

    def column(p: Array) -> Array:
        waist = 2.5 * (1 - level(p) / 14)
        return np.asarray(superellipse(p[0], p[1] + 50, (22.0, 17.0), 2.3) + waist)

    def body(p: Array) -> Array:
        return smooth_max(column(p), level(p) - 12.5, 3.0)

    def arch(p: Array) -> Array:
        ring = np.abs(np.hypot(p[0], p[1] + 75) - 11.5) - 3
        return np.asarray(np.maximum(ring, level(p) - 13))

    def spinous(p: Array) -> Array:
        z = np.abs((p[2] + 8 + VERTEBRA / 2) % VERTEBRA - VERTEBRA / 2)
        return np.asarray(np.maximum.reduce([np.abs(p[0]) - 3.5, np.abs(p[1] + 92) - 9, z - 9]))

    def transverse(p: Array) -> Array:
        along = np.maximum(np.abs(np.abs(p[0]) - 25) - 12, 0)
        return np.asarray(np.sqrt(along**2 + (p[1] + 70) ** 2 + level(p) ** 2) - 5)

    low, high = (-45.0, -104.0, -np.inf), (45.0, -28.0, np.inf)
    for shape, value in (
        (column, t["disc"]),
        (transverse, t["cortical bone"] - 150),
        (spinous, t["cortical bone"] - 150),
        (arch, t["cortical bone"]),
        (lambda p: np.hypot(p[0], p[1] + 75) - 8.5, t["canal"]),
    ):
        canvas.paint(Shape(shape, low, high), value)
    canvas.paint(Shape(body, low, high), t["cortical bone"], rim=3.5, content=t["bone"] + 25 * fine)


def paint_ribs_and_pelvis(canvas: Canvas, t: dict[str, float]) -> None:
    """Ribs: arcs within the wall that descend to the front, lower ones shorter. Pelvis: the iliac wings."""

    def ribs(p: Array) -> Array:
        x, y, z = p
        shell = superellipse(x, y - 3, (116.0, 78.0), 2.25)
        angle = np.arctan2(y, np.abs(x))  # -pi/2 at the back, 0 at the side, pi/2 in front
        height = z + 60 * (angle + 1.0)
        number = np.round(height / RIB)
        end = np.where(number < 0.5, -2.0, np.where(number < 1.5, -0.5, np.where(number < 2.5, 0.1, 0.75)))
        arc = np.hypot(shell / 4.0, (height - RIB * number) / 7.0)
        return np.asarray(np.maximum.reduce([4.0 * (arc - 1), 80 * (angle - end), 22 - np.abs(x)]))

    canvas.paint(Shape(ribs, (-np.inf, -np.inf, -75.0)), t["cortical bone"] - 60, rim=3.2, content=t["bone"] + 60)
    for side in (-1.0, 1.0):
        wing = ellipsoid((side * 84, -34, -150), (9, 52, 52), (0, side * 14, side * 38))
        canvas.paint(wing, t["cortical bone"], rim=3.5, content=t["bone"])


def paint_chest(canvas: Canvas, t: dict[str, float], fine: Array) -> None:
    """Lung bases with vessels above the diaphragm, and the lower half of the heart."""

    def lungs(p: Array) -> Array:
        chest = superellipse(p[0], p[1] - CAVITY_CENTER_Y, CAVITY_RADII, 2.2) + 2
        mediastinum = superellipse(p[0] + 2, p[1] + 26, (24.0, 60.0), 2.5)
        return np.maximum(smooth_max(chest, -mediastinum, 8.0), -diaphragm(p))

    top = (-np.inf, -np.inf, 0.0), (np.inf, np.inf, np.inf)
    vessels = np.clip((np.abs(fine) - 1.25) * 900, 0, 620)
    canvas.paint(Shape(lungs, *top), t["lung"] + 40 * fine + vessels)
    heart = cut(ellipsoid((-18, 16, 132), (58, 46, 50), (0, 25, 0)), lambda p: -diaphragm(p), width=8)
    canvas.paint(Shape(lambda p: heart.distance(p) - 4, heart.low, heart.high), t["fat"])
    canvas.paint(heart, t["heart"] - 25 + 6 * fine)
    canvas.paint(ellipsoid((-32, 18, 130), (30, 24, 34), (0, 25, 0)), t["heart"] + 25)
    canvas.paint(ellipsoid((16, 22, 132), (22, 26, 34), (0, 10, 0)), t["heart"] + 15)
