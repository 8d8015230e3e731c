"""The frame of the thorax phantom: skin, fat and muscles, ribs with their cartilage, sternum, spine and shoulders.

Coordinates as in :mod:`monai_regplugins.phantoms.ventilation`; a distance is in mm and negative inside.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from monai_regplugins.phantoms.body import paint_spine, ripple
from monai_regplugins.phantoms.shapes import (
    Canvas,
    ellipsoid,
    everywhere,
    smooth_max,
    tube,
)
from monai_regplugins.phantoms.ventilation import MEAN_WIDE, cavity_section, oval_distance

__all__ = ["body_outline", "paint_chest_bones", "paint_chest_wall", "paint_thoracic_spine"]

Array = npt.NDArray[Any]

VERTEBRA, ABDOMINAL_VERTEBRA = 20.0, 36.0  # mm from one to the next, here and in body.paint_spine
SPINE_SIZE = 0.72  # of a thoracic vertebra across, relative to body.paint_spine
RIB, FIRST_RIB = 20.0, 112.0  # mm from one to the next, and z of the first at the spine
RIB_ENDS = (*(3.05,) * 7, 2.75, 2.62, 2.5, 1.7, 1.1)  # rad from the spine
CARTILAGE = 2.3  # rad from the spine, where bone turns into cartilage and the rib begins to rise


def body_outline(p: Array, fat: float) -> Array:
    """Distance to the skin of a body with ``fat`` mm under it."""
    _, middle, deep = cavity_section(p[2])
    half = 0.7 * deep + 36.0 + fat
    groove = 6.0 * np.exp(-((p[0] / 14.0) ** 2)) * (p[1] < 0)
    waist = 5.0 * np.exp(-(((p[2] + 110.0) / 50.0) ** 2))
    return np.asarray(oval_distance(p[0], p[1] - 0.7 * middle - 1.0, 120.0 + fat, half) + groove + waist)


def paint_chest_wall(canvas: Canvas, t: dict[str, float], outline: Array, wall: Array, fine: Array, fat: float) -> None:
    """Skin and fat, and the muscles of chest, back and shoulders with fat between them."""
    y = canvas.points[1]
    canvas.paint(everywhere(lambda _: outline), t["skin"], rim=2.0, content=t["fat"] + 6.0 * fine)
    gaps = 7.0 * (ripple(canvas.points, 60.0, 7) - 0.75) - 1.5 * np.maximum(13.0 - wall, 0.0)
    front = np.where(y > 0, 0.35 * np.maximum(-40.0 - canvas.points[2], 0.0), 0.0)  # the pectorals end above
    muscle = np.minimum(smooth_max(outline + fat + front, gaps, 4.0), wall - 11.5)
    canvas.paint(everywhere(lambda _: muscle), t["muscle"] + 6.0 * fine)


def paint_thoracic_spine(canvas: Canvas, t: dict[str, float], fine: Array, label: int) -> None:
    """The spine of the abdomen phantom, smaller, narrower towards the head, and bent along the back wall."""
    x, y, z = canvas.points
    wide, middle, deep = cavity_section(z)
    center = middle - deep + 25.0
    bent = np.stack(
        [x * np.sqrt(MEAN_WIDE / wide), y - center, z * (SPINE_SIZE * ABDOMINAL_VERTEBRA / VERTEBRA)]
    ) / np.float32(SPINE_SIZE)
    bent[1] -= 50.0
    part = Canvas(bent, 0.0, canvas.edge / SPINE_SIZE)
    part.image, part.label[:] = canvas.image, 255
    paint_spine(part, t, fine)
    canvas.label[part.label == 0] = label


def paint_chest_bones(canvas: Canvas, t: dict[str, float], wall: Array, fine: Array, ribs: int, sternum: int) -> None:
    """Ribs, sternum, shoulder blades and collar bones; ``wall`` is the distance of the points to the chest wall."""
    x, y, z = canvas.points
    wide, middle, deep = cavity_section(z)
    way = np.arctan2((y - middle) / deep, np.abs(x) / wide) + np.float32(np.pi / 2)  # rad from the spine
    marrow = t["bone"] + 40.0 + 25.0 * fine
    rib = _ribs(x, z, way, wall)
    canvas.paint(everywhere(lambda _: np.maximum(rib, 40.0 * (way - CARTILAGE))), t["cortical bone"], ribs, 2.0, marrow)
    canvas.paint(everywhere(lambda _: np.maximum(rib, 40.0 * (CARTILAGE - way))), t["cartilage"], ribs)
    half = 14.0 + 8.0 / (1.0 + np.exp((44.0 - z) / 3.0))  # the manubrium is wider
    plate = np.where(y > 0, oval_distance(x, wall - 6.0, half, 4.8), 1e3)
    body = smooth_max(plate, np.abs(z + 5.0) - 67.0, 8.0)
    canvas.paint(everywhere(lambda _: body), t["cortical bone"] - 150.0, sternum, 2.2, marrow - 60.0)
    blade = np.maximum.reduce([np.abs(wall - 19.0) - 2.0, 60.0 * (0.52 - way), 60.0 * (way - 0.56 - (z - 12.0) / 95.0)])
    canvas.paint(everywhere(lambda _: np.maximum(blade, z - 100.0)), t["bone"] + 80.0)
    for side in (-1.0, 1.0):
        collar = tube([(side * 17, 52, 64, 4.5), (side * 50, 46, 78, 4.5), (side * 100, 6, 104, 5)])
        canvas.paint(collar, t["cortical bone"], 0, 2.2, marrow)
        canvas.paint(ellipsoid((side * 106, -10, 116), (15, 15, 17)), t["cortical bone"], 0, 2.5, marrow - 60.0)


def _ribs(x: Array, z: Array, way: Array, wall: Array) -> Array:
    """Distance to arcs within the wall that descend from the spine, and rise again where they are cartilage."""
    fall = 25.0 * np.minimum(way, CARTILAGE) - 26.0 * np.maximum(way - CARTILAGE, 0.0)
    height = (FIRST_RIB - fall - z) / RIB
    number = np.clip(np.rint(height), 0, len(RIB_ENDS) - 1)
    end = np.asarray(RIB_ENDS, dtype=np.float32)[number.astype(np.intp)]
    arc = np.hypot((wall - 6.0) / 3.6, RIB * (height - number) / 5.6)
    return np.asarray(np.maximum.reduce([3.6 * (arc - 1.0), 60.0 * (way - end), 19.0 - np.abs(x)]))
