"""The organs of the abdomen phantom: bowel, parenchymal organs, stomach and vessels.

Canonical coordinates as in :mod:`monai_regplugins.phantoms.anatomy`; a knot of a tube is (x, y, z, radius) in mm.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from monai_regplugins.phantoms.body import (
    below_diaphragm,
    cavity,
    ripple,
    within_cavity,
)
from monai_regplugins.phantoms.shapes import (
    Canvas,
    Shape,
    cut,
    ellipsoid,
    smooth_max,
    tube,
)

__all__ = ["paint_bowel", "paint_organs", "paint_vessels"]

Array = npt.NDArray[Any]
Knots = list[tuple[float, float, float, float]]


def paint_bowel(canvas: Canvas, t: dict[str, float], fine: Array, coarse: Array) -> None:
    """Loops of small bowel between the organs, and the frame of the colon with folds, content and gas."""

    def loops(p: Array) -> Array:
        x, y, z = 2 * np.pi / 66 * (p + 9 * np.sin(p[[1, 2, 0]] / 21))
        gyroid = np.sin(x) * np.cos(y) + np.sin(y) * np.cos(z) + np.sin(z) * np.cos(x)
        bed = smooth_max(cavity(p) + 6, 0.9 * (p[2] - 14 + 0.35 * np.abs(p[0] + 50)), 10.0)
        return smooth_max(bed, 7.5 * (0.5 + 0.22 * ripple(p, 75.0, 4) - np.abs(gyroid)), 4.0)

    low, high = (-112.0, -34.0, -np.inf), (112.0, 80.0, 40.0)
    canvas.paint(Shape(loops, low, high), t["bowel wall"], rim=3.2, content=t["bowel content"] + 14 * coarse)
    gas = cut(Shape(loops, (-112.0, 22.0, -np.inf), high), lambda p: 9 * (1.1 - ripple(p, 70.0, 5)) - 3.5, width=3)
    canvas.paint(gas, t["bowel wall"], rim=3.5, content=t["gas"])
    colon: tuple[Knots, ...] = (
        [(62, -8, -178, 22), (80, 2, -140, 24), (86, 4, -95, 21), (87, 10, -55, 19), (80, 24, -36, 17)],
        [(80, 24, -36, 17), (58, 46, -42, 17), (10, 56, -58, 16), (-40, 52, -46, 16), (-80, 34, -4, 16),
         (-92, 10, 16, 14)],
        [(-92, 10, 16, 14), (-94, -8, -40, 14), (-92, -10, -100, 13), (-80, 0, -140, 14), (-50, 8, -178, 15)],
    )  # fmt: skip
    stool = t["bowel content"] + np.clip(-260 * (fine + 0.2), -420, 25)
    filling = np.where(ripple(canvas.points, 60.0, 6) > 0.5, t["gas"], stool)
    for part in colon:
        canvas.paint(tube(part, folds=0.22), t["bowel wall"], rim=3.5, content=filling)


def _liver() -> Shape:
    """Under the right dome, a wedge that thins out towards the left in front of the stomach."""

    def liver(p: Array) -> Array:
        x, y, z = p
        back = np.clip((-8 - y) / 45, 0, 1)
        lower = (24 - 0.74 * x - 0.3 * y + 30 * back * np.clip((100 - x) / 40, 0, 1) + 5 * np.sin(x / 17) - z) / 1.3
        left = np.clip((14 - x) / 55, 0, 1.2)
        behind = (-62 + 82 * left - y) / 1.5
        fissure = 0.09 * (y - 28) - np.abs(x + 4 - 0.25 * (z - 40))
        lobes = smooth_max(smooth_max(lower, behind, 10.0), -72 - x, 20.0)
        return smooth_max(np.maximum(lobes, fissure), below_diaphragm(p), 8.0)

    return cut(Shape(liver, (-80, -75, -75), (112, 80, 112)), within_cavity, width=4)


def paint_organs(canvas: Canvas, t: dict[str, float], fine: Array, coarse: Array) -> None:
    """The parenchymal organs, stomach and gallbladder."""
    liver = _liver()
    canvas.paint(liver, t["liver"] + 6 * coarse + 4 * fine, 6)
    for knots in _HEPATIC_VEINS:
        canvas.paint(cut(tube(knots), liver.distance, width=1), t["liver"] + 55, None)
    spleen = cut(ellipsoid((-84, -26, 36), (31, 46, 52), (0, -6, 16)), within_cavity, below_diaphragm,
                 lambda p: 28 - np.sqrt((p[0] + 44) ** 2 + (p[1] - 4) ** 2 + 0.2 * (p[2] - 34) ** 2))  # fmt: skip
    canvas.paint(Shape(lambda p: spleen.distance(p) - 3, spleen.low, spleen.high), t["fat"])
    canvas.paint(spleen, t["spleen"] + 6 * coarse + 3 * fine, 1)
    for label, center, tilt in ((2, (64, -40, -22), 12.0), (3, (-62, -40, -4), -12.0)):
        _paint_kidney(canvas, t, fine, label, center, tilt)
    _paint_stomach(canvas, t, fine)
    gallbladder = ellipsoid((42, 36, -18), (14, 15, 29), (25, -12, 0))
    canvas.paint(gallbladder, t["bowel wall"], 4, rim=2, content=t["gallbladder"] + 2 * fine)
    canvas.paint(tube([(34, 10, -26, 13), (28, 14, -6, 15), (8, 20, 6, 10), (-22, 14, 16, 11), (-46, 0, 24, 11),
                       (-64, -12, 30, 8)]), t["pancreas"] + 9 * fine, 11)  # fmt: skip


def _paint_kidney(
    canvas: Canvas, t: dict[str, float], fine: Array, label: int, center: tuple[float, float, float], tilt: float
) -> None:
    """Perirenal fat, cortex, medullary pyramids, and the fat of the sinus that opens to the midline."""
    side = np.sign(center[0])
    turn = (-8.0, tilt, -side * 25.0)
    x, y, z = center
    hilum = ellipsoid((x - side * 17, y + 7, z), (15, 9, 17), turn)
    canvas.paint(cut(ellipsoid(center, (28.5, 27.5, 54.5), turn), within_cavity), t["fat"])
    outer = cut(ellipsoid(center, (26, 25, 52), turn), lambda p: -hilum.distance(p), within_cavity, width=4)
    canvas.paint(outer, t["kidney"], label)
    canvas.paint(cut(ellipsoid(center, (18, 17, 42), turn), outer.distance), t["medulla"] + 18 * fine, None)
    canvas.paint(ellipsoid((x - side * 6, y + 3, z), (11, 7, 24), turn), t["fat"] + 60, None)


def _paint_stomach(canvas: Canvas, t: dict[str, float], fine: Array) -> None:
    """Fundus under the left dome, body, antrum to the right, duodenum; fluid with a bubble of gas in front."""
    wall = cut(tube([(-40, 2, 66, 26), (-52, 14, 54, 26), (-55, 28, 30, 23), (-44, 38, 4, 20), (-16, 44, -10, 16),
                     (18, 36, -4, 12)]), within_cavity, below_diaphragm)  # fmt: skip
    canvas.paint(Shape(lambda p: wall.distance(p) - 3, wall.low, wall.high), t["fat"])
    gas = np.clip((canvas.points[1] - 30) / canvas.edge + 0.5, 0, 1)  # rises to the front of who lies on the back
    content = t["stomach"] + 10 * fine + gas * (t["gas"] - t["stomach"])
    canvas.paint(wall, t["bowel wall"], 7, rim=4.5, content=content)
    duodenum = tube([(18, 36, -4, 12), (40, 24, -14, 12), (50, 6, -40, 12), (36, -2, -62, 12), (0, 2, -66, 11)])
    canvas.paint(duodenum, t["bowel wall"], rim=4, content=t["bowel content"])


def paint_vessels(canvas: Canvas, t: dict[str, float], fine: Array) -> None:
    """Esophagus, great vessels, renal veins, and the Y of portal and splenic vein."""
    esophagus = tube([(-4, -22, 215, 10), (-4, -22, 150, 10), (-8, -18, 108, 10), (-26, -12, 76, 10)])
    canvas.paint(esophagus, t["esophagus"] + 5 * fine, 5)
    for knots in _RENAL_VEINS:
        canvas.paint(tube(knots), t["cava"])
    for shape, value, label in (
        (tube(_AORTA), t["aorta"], 8),
        (tube([(-4, -26, -90, 8), (-26, -28, -140, 7), (-48, -20, -215, 7)]), t["aorta"], 0),
        (tube([(-4, -26, -90, 8), (20, -28, -140, 7), (42, -20, -215, 7)]), t["aorta"], 0),
        (tube(_CAVA), t["cava"], 9),
        (tube([(10, -27, -92, 9), (30, -32, -140, 8), (52, -26, -215, 8)]), t["cava"] - 20, 0),
        (tube([(10, -27, -92, 9), (-16, -34, -140, 8), (-40, -28, -215, 8)]), t["cava"] - 20, 0),
        (tube([(12, 8, 4, 5), (12, 10, -30, 5), (10, 14, -80, 4)]), t["portal"], 0),
    ):
        canvas.paint(shape, value, label)
    for knots in _PORTAL:
        canvas.paint(tube(knots), t["portal"], 10)


_AORTA: Knots = [(-18, -36, 215, 12), (-16, -34, 120, 12), (-9, -25, 60, 11), (-8, -22, 0, 10), (-4, -26, -90, 9)]
_CAVA: Knots = [(22, -8, 125, 12), (22, -14, 76, 12), (20, -18, 30, 11), (16, -22, -20, 10), (10, -27, -92, 10)]
_PORTAL: list[Knots] = [
    [(-66, -18, 34, 4.5), (-40, -2, 22, 4.5), (-14, 8, 12, 5), (12, 8, 4, 6)],
    [(12, 8, 4, 7), (24, 6, 20, 7), (36, 6, 36, 6.5)],
    [(36, 6, 36, 5.5), (56, 0, 42, 4.5), (74, -6, 44, 3.5)],
    [(36, 6, 36, 5.5), (26, 18, 48, 4.5), (8, 28, 58, 3.5)],
]
_HEPATIC_VEINS: list[Knots] = [
    [(22, -14, 76, 7), (50, -16, 66, 5.5), (84, -14, 42, 3.5)],
    [(22, -14, 76, 7), (44, 12, 66, 5.5), (60, 36, 36, 3.5)],
    [(22, -14, 76, 6), (2, 10, 72, 4.5), (-24, 30, 66, 3.5)],
    [(50, -16, 66, 4), (68, -34, 50, 3)],
    [(74, -6, 44, 3.5), (84, 18, 24, 3), (90, 30, 0, 3)],
    [(74, -6, 44, 3.5), (86, -24, 26, 3), (90, -20, -4, 3)],
]
_RENAL_VEINS: list[Knots] = [
    [(17, -20, -14, 6), (34, -28, -18, 6), (48, -34, -22, 5)],
    [(15, -20, -8, 5), (-8, -8, -6, 5), (-30, -22, -4, 6), (-46, -34, -4, 5)],
]
