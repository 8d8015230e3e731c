"""An MR-like sagittal slice through the chest at rest, described by formulas.

Coordinates as in :mod:`monai_regplugins.phantoms.breathing`: mm, y to the front, z to the head, the origin in the
middle of the chest. The cavity's walls are the same in all subjects; a subject's own map changes their form.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from monai_regplugins.phantoms.body import ripple
from monai_regplugins.phantoms.breathing import cavity_walls
from monai_regplugins.phantoms.shapes import (
    Canvas,
    Shape,
    cut,
    ellipsoid,
    everywhere,
    smooth_max,
    superellipse,
)
from monai_regplugins.phantoms.vessels import VesselTree, grow_vessels, paint_vessel_tree

__all__ = ["CHEST_LABELS", "SagittalChest", "draw_chest", "sagittal_chest"]

Array = npt.NDArray[Any]

CHEST_LABELS = {0: "background", 1: "lung", 2: "liver", 3: "heart", 4: "vertebrae"}
LUNG, LIVER, HEART, VERTEBRAE = 1, 2, 3, 4

SIGNALS = {  # gray values of the scanner: mean over subjects and standard deviation between subjects
    "air": (2.0, 0.0),
    "lung": (18.0, 2.0),
    "muscle": (66.0, 5.0),
    "fat": (165.0, 14.0),
    "marrow": (80.0, 7.0),
    "cortex": (34.0, 4.0),
    "disc": (122.0, 8.0),
    "fluid": (132.0, 10.0),
    "cord": (94.0, 5.0),
    "liver": (104.0, 7.0),
    "liver vessel": (138.0, 8.0),
    "blood": (165.0, 10.0),
    "myocardium": (112.0, 8.0),
}
VERTEBRA = 25.0  # distance from one to the next, mm
STERNUM = ((52.0, 14.0), (20.0, 15.0), (-11.0, 12.0))  # center z and half length of its pieces, mm


@dataclass(frozen=True)
class SagittalChest:
    """What differs from subject to subject, at rest.

    Attributes:
        signal: gray value of each of :data:`SIGNALS`.
        dome: height z of the diaphragm's top in mm.
        fat: thickness of the fat in front and at the back in mm.
        heart: center y, z and radii along y, z in mm.
        lung_vessels: the pulmonary vessels.
        liver_vessels: the hepatic vessels.
    """

    signal: dict[str, float]
    dome: float
    fat: tuple[float, float]
    heart: tuple[float, float, float, float]
    lung_vessels: VesselTree
    liver_vessels: VesselTree


def draw_chest(rng: np.random.Generator) -> SagittalChest:
    """Draw the chest of one subject at random."""
    signal = {name: float(rng.normal(mean, deviation)) for name, (mean, deviation) in SIGNALS.items()}
    dome = float(rng.normal(-36.0, 4.0))
    radii = (float(rng.uniform(30.0, 36.0)), float(rng.uniform(25.0, 30.0)))
    heart = (float(rng.uniform(29.0, 34.0)), dome + 0.78 * radii[1], *radii)

    def in_lung(place: Array) -> bool:
        point = np.array([[0.0], [place[0]], [place[1]]])
        beside_heart = _heart_shape(heart).distance(point)[0] > 1.5
        return bool(_lung_distance(point, dome)[0] < -3.5 and beside_heart)

    def in_liver(place: Array) -> bool:
        return bool(_liver_distance(np.array([[0.0], [place[0]], [place[1]]]), dome)[0] < -6.0)

    spread = np.array([0.2, 0.85, 1.45, 2.05, 2.75, 3.6, 4.25, 4.75, 5.25]) + rng.normal(0.0, 0.12, 9)
    hilum = (float(rng.uniform(-9.0, -1.0)), float(rng.uniform(30.0, 38.0)))
    lung_vessels = grow_vessels(rng, hilum, spread, 3.3, 24.0, 4, in_lung)
    porta = (float(rng.uniform(0.0, 12.0)), float(rng.uniform(-104.0, -96.0)))
    fan = np.linspace(0.3, 2.8, 4) + rng.normal(0.0, 0.12, 4)
    liver_vessels = grow_vessels(rng, porta, fan, 2.6, 22.0, 3, in_liver)
    fat = (float(rng.uniform(6.0, 14.0)), float(rng.uniform(6.0, 12.0)))
    return SagittalChest(signal, dome, fat, heart, lung_vessels, liver_vessels)


def sagittal_chest(points: Array, chest: SagittalChest, edge: float, density: float = 1.0) -> tuple[Array, Array]:
    """Intensities and labels of a chest at rest.

    Args:
        points: positions at rest in mm, shape (3, N).
        chest: the subject.
        edge: width of soft edges in mm, about one pixel.
        density: of the lung's tissue, relative to rest; it falls as the lung fills with air.

    Returns:
        Gray values (N,) float32, about 0 to 200, and labels (N,) uint8 as in :data:`CHEST_LABELS`.
    """
    canvas = Canvas(points, chest.signal["air"], edge)
    fine, coarse = ripple(points, 11.0, 3), ripple(points, 34.0, 4)
    _paint_trunk(canvas, chest, fine, coarse)
    _paint_spine(canvas, chest.signal, fine)
    _paint_sternum(canvas, chest.signal, fine)
    _paint_liver(canvas, chest, fine, coarse)
    _paint_lung(canvas, chest, density * (1 + 0.22 * fine + 0.12 * coarse))
    _paint_heart(canvas, chest, fine)
    return canvas.image, canvas.label


def _eta(p: Array) -> tuple[Array, Array]:
    """Coordinate across the cavity and the cavity's width in mm."""
    back, front = cavity_walls(p[2])
    return (p[1] - back) / (front - back), front - back


def _cavity_distance(p: Array) -> Array:
    """Distance to the inside of the cavity's lining."""
    eta, width = _eta(p)
    return np.asarray(smooth_max(-eta * width, (eta - 1.0) * width, 8.0) + 0.5)


def _above_diaphragm(p: Array, dome: float) -> Array:
    """Distance above the diaphragm: steep behind, flatter in front."""
    eta, width = _eta(p)
    aside = eta - 0.56
    fall = np.where(aside < 0, 205.0, 150.0)
    slope = 2.0 * fall * aside / width
    return np.asarray((p[2] - dome + fall * aside**2) / np.sqrt(1.0 + np.minimum(slope**2, 9.0)))


def _lung_distance(p: Array, dome: float) -> Array:
    eta, _ = _eta(p)
    apex = p[2] - 110.0 + 95.0 * (eta - 0.42) ** 2
    within = smooth_max(_cavity_distance(p), apex, 14.0)
    return smooth_max(within, -_above_diaphragm(p, dome), 3.0)


def _liver_distance(p: Array, dome: float) -> Array:
    return smooth_max(_cavity_distance(p), _above_diaphragm(p, dome), 3.0)


def _paint_trunk(canvas: Canvas, chest: SagittalChest, fine: Array, coarse: Array) -> None:
    """Skin, fat and muscle."""
    _, y, z = canvas.points
    back, front = cavity_walls(z)
    before = y - front - 13.0 - chest.fat[0]
    behind = back - 62.0 - 4.0 * np.cos(z / 55.0) - chest.fat[1] - y
    signal = chest.signal
    canvas.paint(everywhere(lambda _: np.maximum(before, behind)), 0.6 * signal["fat"])
    canvas.paint(everywhere(lambda _: np.maximum(before, behind) + 2.0), signal["fat"] * (1 + 0.06 * coarse))
    inner = smooth_max(before + chest.fat[0], behind + chest.fat[1], 4.0) + 1.5 * coarse
    canvas.paint(everywhere(lambda _: inner), signal["muscle"] * (1 + 0.08 * fine))
    # layers of fat between the long muscles of the back
    streaks = 0.5 + 0.5 * np.sin(0.42 * (y - back) + 2.2 * coarse)
    layers = np.maximum(np.maximum(y - back + 46.0, inner + 3.0), 0.9 - 3.0 * streaks**6)
    canvas.paint(everywhere(lambda _: layers), 0.8 * signal["fat"])


def _paint_spine(canvas: Canvas, signal: dict[str, float], fine: Array) -> None:
    """Vertebral bodies with discs, the canal with the cord, and spinous processes."""
    _, y, z = canvas.points
    front = cavity_walls(z)[0] - 4.0
    depth = front - y  # behind the front of the column
    height = (z + 7.0) % VERTEBRA - VERTEBRA / 2
    canal = everywhere(lambda _: np.abs(depth - 36.0) - 6.5)
    canvas.paint(everywhere(lambda _: np.abs(depth - 21.0) - 22.0), 0.7 * signal["muscle"])
    disc = everywhere(lambda _: superellipse(depth - 13.5, VERTEBRA / 2 - np.abs(height), (13.0, 3.0), 3.0))
    canvas.paint(disc, signal["disc"])
    body = everywhere(lambda _: superellipse(depth - 13.5, height, (13.5, 10.2), 5.0))
    marrow = signal["marrow"] * (1 + 0.10 * fine)
    canvas.paint(body, signal["cortex"], VERTEBRAE, rim=1.3, content=marrow)
    canvas.paint(canal, signal["fluid"])
    canvas.paint(everywhere(lambda _: np.abs(depth - 35.5) - 3.4), signal["cord"])
    along = height + 0.55 * (depth - 45.0) + 3.0
    along = (along + VERTEBRA / 2) % VERTEBRA - VERTEBRA / 2
    spinous = everywhere(lambda _: superellipse(depth - 51.0, along, (9.0, 4.6), 2.6))
    canvas.paint(spinous, 0.8 * signal["marrow"])


def _paint_sternum(canvas: Canvas, signal: dict[str, float], fine: Array) -> None:
    """The breast bone in three pieces within the front wall."""
    _, y, z = canvas.points
    depth = y - cavity_walls(z)[1]
    pieces = [superellipse(depth - 7.0, z - center, (4.6, half), 3.0) for center, half in STERNUM]
    bone = everywhere(lambda _: np.minimum.reduce(pieces))
    canvas.paint(bone, signal["cortex"], 0, rim=1.2, content=signal["marrow"] * (1.15 + 0.08 * fine))


def _paint_liver(canvas: Canvas, chest: SagittalChest, fine: Array, coarse: Array) -> None:
    liver = everywhere(lambda p: _liver_distance(p, chest.dome))
    canvas.paint(liver, chest.signal["liver"] * (1 + 0.035 * fine + 0.03 * coarse), LIVER)
    paint_vessel_tree(canvas, chest.liver_vessels, chest.signal["liver vessel"])


def _paint_lung(canvas: Canvas, chest: SagittalChest, density: Array) -> None:
    lung = everywhere(lambda p: _lung_distance(p, chest.dome))
    gravity = 1.0 - 0.004 * (canvas.points[1] - 10.0)  # more blood at the back of a lying person
    canvas.paint(lung, chest.signal["lung"] * gravity * density, LUNG)
    paint_vessel_tree(canvas, chest.lung_vessels, chest.signal["blood"])
    _paint_hilum(canvas, chest)


def _paint_hilum(canvas: Canvas, chest: SagittalChest) -> None:
    """The pulmonary artery and veins where they enter the lung, cut across."""
    y, z = chest.lung_vessels.starts[0]
    for aside, above, wide, high in ((1.0, 1.0, 6.5, 5.0), (-5.0, -7.0, 4.0, 5.5), (7.0, -5.0, 5.0, 3.5)):
        vessel = ellipsoid((0.0, y + aside, z + above), (1e3, wide, high), (20.0, 0.0, 0.0))
        canvas.paint(vessel, chest.signal["blood"], None)


def _heart_shape(heart: tuple[float, float, float, float]) -> Shape:
    """The whole heart, its tip forward and down."""
    y, z, wide, high = heart
    return ellipsoid((0.0, y, z), (1e3, wide, high), (-25.0, 0.0, 0.0))


def _paint_heart(canvas: Canvas, chest: SagittalChest, fine: Array) -> None:
    """Muscle around blood, in a sac that ends at the diaphragm and at the front wall."""
    y, z, wide, high = chest.heart

    def sac(p: Array) -> Array:
        return np.maximum(_cavity_distance(p) + 1.5, 1.0 - _above_diaphragm(p, chest.dome))

    outside = cut(_heart_shape(chest.heart), sac)
    left = cut(ellipsoid((0.0, y - 7.0, z - 1.0), (1e3, 0.60 * wide, 0.62 * high), (-25.0, 0.0, 0.0)), sac)
    right = cut(ellipsoid((0.0, y + 13.0, z + 9.0), (1e3, 0.42 * wide, 0.46 * high), (-50.0, 0.0, 0.0)), sac)
    canvas.paint(outside, chest.signal["myocardium"] * (1 + 0.05 * fine), HEART)
    for pool in (right, left):
        canvas.paint(pool, 0.92 * chest.signal["blood"] * (1 + 0.04 * fine), None)
