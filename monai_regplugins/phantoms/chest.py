"""A CT-like chest at rest, at end expiration, described by formulas.

Coordinates as in :mod:`monai_regplugins.phantoms.ventilation`; a distance is in mm and negative inside. The walls of
the cavity are the same in all subjects; a subject's own map changes their form.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from monai_regplugins.phantoms.anatomy import TISSUES
from monai_regplugins.phantoms.body import ripple
from monai_regplugins.phantoms.chest_frame import (
    body_outline,
    paint_chest_bones,
    paint_chest_wall,
    paint_thoracic_spine,
)
from monai_regplugins.phantoms.lung_trees import cover, grow_lung_tree, main_airways
from monai_regplugins.phantoms.shapes import (
    Canvas,
    Shape,
    cut,
    ellipsoid,
    everywhere,
    smooth_max,
    tube,
)
from monai_regplugins.phantoms.ventilation import cavity_section, chest_cavity, chest_wall
from monai_regplugins.phantoms.vessels import VesselTree

__all__ = ["THORAX_LABELS", "Chest", "chest_at_rest", "draw_anatomy", "lung_distance"]

Array = npt.NDArray[Any]
Knots = list[tuple[float, float, float, float]]

THORAX_LABELS = {
    0: "background",
    1: "right lung",
    2: "left lung",
    3: "heart",
    4: "liver",
    5: "stomach",
    6: "spleen",
    7: "aorta",
    8: "vertebrae",
    9: "ribs",
    10: "sternum",
}
RIGHT_LUNG, LEFT_LUNG, HEART, LIVER, STOMACH, SPLEEN, AORTA, VERTEBRAE, RIBS, STERNUM = range(1, 11)

CHEST_TISSUES = TISSUES | {  # Hounsfield units: mean over subjects and standard deviation between subjects
    "lung": (-828.0, 12.0),  # at end expiration
    "cartilage": (115.0, 12.0),
    "blood": (110.0, 30.0),
    "myocardium": (85.0, 10.0),
    "liver": (80.0, 12.0),
    "spleen": (75.0, 10.0),
}
MIDLINE = -3.0  # x in mm, where the lungs meet behind the sternum


@dataclass(frozen=True)
class Chest:
    """What differs from subject to subject, at rest.

    Attributes:
        tissue: Hounsfield unit of each tissue.
        fat: thickness of the fat under the skin in mm.
        domes: heights of the right and the left dome of the diaphragm over its middle in mm.
        heart: center x, y, z and radii in mm.
        arteries: pulmonary arteries of the right and of the left lung.
        veins: pulmonary veins of the right and of the left lung.
    """

    tissue: dict[str, float]
    fat: float
    domes: tuple[float, float]
    heart: tuple[float, float, float, float, float, float]
    arteries: Sequence[VesselTree] = ()
    veins: Sequence[VesselTree] = ()


def draw_anatomy(rng: np.random.Generator) -> Chest:
    """Draw the chest of one subject at random."""
    tissue = {name: float(rng.normal(mean, deviation)) for name, (mean, deviation) in CHEST_TISSUES.items()}
    fat, domes = float(rng.uniform(4.0, 12.0)), (float(rng.normal(27.0, 3.0)), float(rng.normal(17.0, 3.0)))
    size, (aside, forward) = rng.uniform(0.92, 1.06), rng.normal(0.0, 2.0, 2)
    heart = (-14.0 + aside, 24.0 + forward, -4.0 + 40.0 * (size - 1.0), 51.0 * size, 37.0 * size, 40.0 * size)
    chest = Chest(tissue, fat, domes, heart)
    arteries = [_lung_vessels(rng, chest, (side * 35.0, -9.0, 32.0), 6.5) for side in (1.0, -1.0)]
    veins = [_lung_vessels(rng, chest, (side * 31.0, -9.0, 8.0), 5.5) for side in (1.0, -1.0)]
    return replace(chest, arteries=arteries, veins=veins)


def _lung_vessels(
    rng: np.random.Generator, chest: Chest, hilum: tuple[float, float, float], radius: float
) -> VesselTree:
    """Vessels that spread from a hilum over the whole of its lung."""
    side = np.sign(hilum[0])
    places = rng.uniform((4.0, -62.0, -105.0), (102.0, 70.0, 102.0), (4200, 3)) * (side, 1.0, 1.0)
    places = places[lung_distance(places.T, chest) < -3.0]
    return grow_lung_tree(rng, hilum + rng.normal(0.0, 1.5, 3), np.array([side, -0.15, -0.2]), radius, places)


def chest_at_rest(points: Array, chest: Chest, edge: float, density: float | Array = 1.0) -> tuple[Array, Array]:
    """Intensities and labels of a chest at rest.

    Args:
        points: positions at rest in mm, shape (3, N), float32.
        chest: the subject.
        edge: width of soft edges in mm, about one voxel.
        density: of the lung's tissue, relative to rest, one number or one per point; it falls as the lung fills.

    Returns:
        Hounsfield units (N,) float32 and labels (N,) uint8 as in :data:`THORAX_LABELS`.
    """
    whole = Canvas(points, chest.tissue["air"], edge)
    outline = body_outline(points, chest.fat)
    body = np.flatnonzero(outline < edge / 2)
    wall = chest_wall(points[:, body])
    fine, coarse = ripple(points[:, body], 14.0, 3), ripple(points[:, body], 40.0, 4)
    density = np.broadcast_to(np.asarray(density, dtype=np.float32), whole.image.shape)[body]
    canvas = Canvas(points[:, body], chest.tissue["air"], edge)
    paint_chest_wall(canvas, chest.tissue, outline[body], wall, fine, chest.fat)
    _paint_within(canvas, wall, chest, fine, coarse, density)
    spine = (np.abs(canvas.points[0]) < 32.0) & (canvas.points[1] < -10.0)
    _paint_part(canvas, spine, lambda part, here: paint_thoracic_spine(part, chest.tissue, fine[here], VERTEBRAE))
    _paint_part(
        canvas,
        (wall > 0.0) & (wall < 40.0),
        lambda part, here: paint_chest_bones(part, chest.tissue, wall[here], fine[here], RIBS, STERNUM),
    )
    whole.image[body], whole.label[body] = canvas.image, canvas.label
    return whole.image, whole.label


def _paint_part(
    canvas: Canvas, chosen: npt.NDArray[np.bool_], paint: Callable[[Canvas, npt.NDArray[np.intp]], None]
) -> None:
    """Paint on some points of a canvas only, which saves the time of the others."""
    here = np.flatnonzero(chosen)
    part = Canvas(canvas.points[:, here], 0.0, canvas.edge)
    part.image, part.label = canvas.image[here], canvas.label[here]
    paint(part, here)
    canvas.image[here], canvas.label[here] = part.image, part.label


def _paint_within(canvas: Canvas, wall: Array, chest: Chest, fine: Array, coarse: Array, density: Array) -> None:
    """What lies within the chest wall: fat, the organs under the diaphragm, lungs, heart and great vessels."""
    edge = canvas.edge

    def paint(part: Canvas, here: npt.NDArray[np.intp]) -> None:
        part.paint(everywhere(lambda _: wall[here] + 0.5), chest.tissue["fat"] + 12.0 * fine[here])
        above = _above_diaphragm(part.points, chest)
        part.paint(everywhere(lambda _: np.maximum(np.abs(above + 2.0) - 1.5, wall[here])), chest.tissue["muscle"])
        _paint_part(part, above < edge, lambda below, to: _paint_below(below, chest, fine[here][to], coarse[here][to]))
        lung = lung_distance(part.points, chest, wall[here], above)
        _paint_middle(part, chest, fine[here])
        texture = density[here] * (1.0 + 0.10 * fine[here] + 0.07 * coarse[here])
        _paint_part(part, lung < edge, lambda lungs, to: _paint_lungs(lungs, chest, lung[to], texture[to]))

    _paint_part(canvas, wall < edge, paint)


def _above_diaphragm(p: Array, chest: Chest) -> Array:
    """Distance above the diaphragm: two domes that fall off towards the wall, most at the back."""
    wide, middle, deep = cavity_section(p[2])
    u, v = p[0] / wide, (p[1] - middle) / deep
    out = u * u + v * v
    right = np.exp(-(((u - 0.46) / 0.42) ** 2) - ((v + 0.02) / 0.62) ** 2)
    left = np.exp(-(((u + 0.54) / 0.38) ** 2) - ((v + 0.02) / 0.62) ** 2)
    fall = 38.0 - 16.0 * v
    height = -58.0 + chest.domes[0] * right + chest.domes[1] * left - fall * np.minimum(out, 1.3) ** 5
    return np.asarray((p[2] - height) / np.sqrt(1.0 + 30.0 * np.minimum(out, 1.1) ** 9))


def _mediastinum(p: Array) -> Array:
    """Distance to the space between the lungs: thin in front, wide around the great vessels."""
    half = 6.0 + 20.0 * np.exp(-(((p[1] + 12.0) / 32.0) ** 2))
    return np.asarray(np.abs(p[0] - MIDLINE) - half)


def _heart(chest: Chest) -> Shape:
    """The whole heart, its tip to the left, forward and down."""
    return ellipsoid(chest.heart[:3], chest.heart[3:], (0.0, -28.0, -35.0))


def lung_distance(p: Array, chest: Chest, wall: Array | None = None, above: Array | None = None) -> Array:
    """Distance to both lungs.

    Args:
        p: positions at rest in mm, (3, N).
        chest: the subject.
        wall: distance of the points to the chest wall, where it is known already.
        above: their distance above the diaphragm, likewise.
    """
    cavity = chest_cavity(p) if wall is None else np.maximum(wall, chest_cavity(p))
    cap = (p[2] - 105.0 + 0.017 * ((np.abs(p[0] - MIDLINE) - 32.0) ** 2 + (p[1] + 12.0) ** 2)) / 1.4
    inner = smooth_max(cavity + 1.5, cap, 16.0)
    inner = smooth_max(inner, -_mediastinum(p), 6.0)
    inner = smooth_max(inner, 3.0 - _heart(chest).distance(p), 6.0)
    return smooth_max(inner, -(_above_diaphragm(p, chest) if above is None else above), 3.0)


def _paint_lungs(canvas: Canvas, chest: Chest, lung: Array, density: Array) -> None:
    """Parenchyma, heavier at the back of a lying person, fissures between the lobes, vessels and bronchi."""
    x, y, z = canvas.points
    tissue = (chest.tissue["lung"] - chest.tissue["air"]) * density * (1.0 - 0.0035 * y)
    right = x > MIDLINE
    canvas.paint(everywhere(lambda _: lung), chest.tissue["air"] + tissue, LEFT_LUNG)
    canvas.label[(lung < 0) & right] = RIGHT_LUNG
    oblique = (z + 8.0 + 0.95 * y + 5.0 * np.sin(x / 17.0)) / 1.4
    horizontal = np.where(right, np.maximum(np.abs(z - 8.0 - 3.0 * np.sin(y / 15.0)), 0.5 - oblique), 1e3)
    fissure = np.maximum(np.minimum(np.abs(oblique), horizontal) - 0.3, lung)
    canvas.paint(everywhere(lambda _: fissure), -660.0, None)
    places = cKDTree(canvas.points.T, balanced_tree=False, compact_nodes=False)
    for trees in (chest.veins, chest.arteries):
        for tree in trees:
            _blend(canvas, places, tree, chest.tissue["blood"])
    for tree in chest.arteries:
        airways = main_airways(tree, 2.0, np.array([0.0, -1.5, -0.9]))
        walls = airways._replace(radii=airways.radii + 1.0)
        _blend(canvas, places, walls, chest.tissue["muscle"] - 60.0)
        _blend(canvas, places, airways, chest.tissue["air"] + 40.0)


def _blend(canvas: Canvas, places: cKDTree, tree: VesselTree, value: float) -> None:
    touched, part = cover(places, tree, canvas.edge)
    canvas.image[touched] += (part * (value - canvas.image[touched])).astype(canvas.image.dtype)


def _paint_middle(canvas: Canvas, chest: Chest, fine: Array) -> None:
    """Heart, great vessels, trachea with the main bronchi, and esophagus."""
    t, blood = chest.tissue, chest.tissue["blood"]
    heart = cut(_heart(chest), lambda p: 2.0 - _above_diaphragm(p, chest), lambda p: chest_wall(p) + 3.0)
    x, y, z = chest.heart[:3]
    canvas.paint(heart, t["myocardium"] + 4.0 * fine, HEART)
    canvas.paint(ellipsoid((x - 12, y + 1, z - 6), (31, 21, 23), (0, -28, -35)), blood, None)
    canvas.paint(cut(ellipsoid((x + 20, y + 10, z + 4), (20, 24, 30)), heart.distance), 0.95 * blood, None)
    canvas.paint(ellipsoid((x + 14, y - 34, z + 14), (27, 15, 17)), blood, HEART)
    for knots in _VESSELS:
        canvas.paint(tube(knots), blood)
    canvas.paint(tube(_AORTA), blood, AORTA)
    canvas.paint(tube(_ESOPHAGUS), t["esophagus"])
    for knots in _AIRWAYS:
        canvas.paint(tube(knots), t["muscle"])
    for knots in _AIRWAYS:
        canvas.paint(tube([(x, y, z, radius - 1.8) for x, y, z, radius in knots]), t["air"] + 20.0)


def _paint_below(canvas: Canvas, chest: Chest, fine: Array, coarse: Array) -> None:
    """Liver, spleen, and the stomach with its bubble of gas."""
    t = chest.tissue

    def bed(p: Array) -> Array:
        return smooth_max(chest_cavity(p) + 2.5, _above_diaphragm(p, chest) + 3.5, 4.0)

    def liver(p: Array) -> Array:
        x, y, z = p
        lower = (-98.0 - 0.8 * x - 0.25 * y - z) / 1.3
        return smooth_max(smooth_max(lower, -58.0 - x, 16.0), bed(p), 4.0)

    canvas.paint(everywhere(liver), t["liver"] + 5.0 * coarse + 3.0 * fine, LIVER)
    stomach = cut(ellipsoid((-50, 20, -84), (32, 35, 33), (20, 0, 0)), bed, lambda p: 4.0 - liver(p))
    bubble = np.clip((canvas.points[1] - 28.0) / canvas.edge + 0.5, 0.0, 1.0)
    canvas.paint(stomach, t["bowel wall"], STOMACH, 4.0, t["stomach"] + bubble * (t["gas"] - t["stomach"]))
    spleen = cut(ellipsoid((-70, -30, -92), (24, 32, 38), (0, -8, 20)), bed, lambda p: 3.0 - stomach.distance(p))
    canvas.paint(spleen, t["spleen"] + 4.0 * coarse, SPLEEN)


_AORTA: Knots = [(2, 20, 12, 13), (8, 14, 42, 13), (4, 4, 62, 12.5), (-10, -14, 68, 12), (-22, -26, 52, 10.5),
                 (-23, -28, 10, 10), (-19, -28, -50, 9.5), (-10, -24, -100, 9), (-4, -20, -150, 9)]  # fmt: skip
_ESOPHAGUS: Knots = [(-2, -20, 135, 6), (-3, -24, 60, 6), (-4, -24, 10, 6), (-10, -16, -45, 6.5), (-24, -6, -72, 7)]
_VESSELS: list[Knots] = [
    [(-20, 34, 22, 12), (-17, 20, 40, 12), (-6, 4, 42, 10), (14, -5, 36, 9), (37, -9, 32, 7)],  # right artery
    [(-17, 20, 40, 12), (-24, 2, 45, 10), (-37, -9, 34, 7.5)],  # left artery
    [(14, -10, 10, 8), (33, -9, 8, 6)],  # veins
    [(-14, -10, 10, 8), (-33, -9, 8, 6)],
    [(20, 14, 100, 7), (23, 8, 60, 8.5), (25, 6, 20, 9)],  # superior vena cava
    [(-26, 10, 98, 6), (-8, 22, 82, 6.5), (20, 14, 72, 7)],  # brachiocephalic vein
    [(22, -6, -40, 9.5), (20, -10, -70, 9.5), (18, -16, -150, 9.5)],  # inferior vena cava
    [(0, -2, 72, 5), (10, -4, 100, 5), (16, -6, 130, 4.5)],  # branches of the arch
    [(-14, -14, 72, 4.5), (-18, -12, 100, 4.5), (-22, -8, 130, 4)],
]
_AIRWAYS: list[Knots] = [
    [(0, -8, 140, 9.5), (1, -12, 90, 9.5), (2, -15, 50, 10)],
    [(2, -15, 50, 8.5), (20, -19, 37, 8), (37, -19, 26, 7)],
    [(2, -15, 50, 8), (-20, -20, 38, 7.5), (-38, -20, 28, 6.5)],
]
