"""A CT-like abdomen in canonical coordinates, described by formulas.

Coordinates are mm, x to the patient's right, y to the front, z to the head, with the origin in the middle of the body
at the height of the first lumbar vertebra. Values are Hounsfield units of a portal-venous scan; labels are those of the
Beyond the Cranial Vault / Learn2Reg AbdomenCTCT sets (without the adrenal glands).
"""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from monai_regplugins.phantoms.body import (
    paint_chest,
    paint_ribs_and_pelvis,
    paint_spine,
    paint_wall,
    ripple,
)
from monai_regplugins.phantoms.organs import paint_bowel, paint_organs, paint_vessels
from monai_regplugins.phantoms.shapes import Canvas

__all__ = ["ABDOMEN_LABELS", "ABDOMEN_LANDMARKS", "TISSUES", "abdomen"]

Array = npt.NDArray[Any]

ABDOMEN_LABELS = {
    0: "background",
    1: "spleen",
    2: "right kidney",
    3: "left kidney",
    4: "gallbladder",
    5: "esophagus",
    6: "liver",
    7: "stomach",
    8: "aorta",
    9: "inferior vena cava",
    10: "portal and splenic vein",
    11: "pancreas",
}

TISSUES = {  # Hounsfield units: mean over subjects and standard deviation between subjects
    "air": (-1000.0, 0.0),
    "gas": (-900.0, 0.0),
    "lung": (-840.0, 25.0),
    "fat": (-102.0, 5.0),
    "skin": (20.0, 5.0),
    "muscle": (55.0, 5.0),
    "heart": (140.0, 15.0),
    "bone": (175.0, 20.0),
    "cortical bone": (520.0, 50.0),
    "disc": (85.0, 6.0),
    "canal": (25.0, 4.0),
    "bowel wall": (75.0, 8.0),
    "bowel content": (22.0, 10.0),
    "liver": (108.0, 9.0),
    "spleen": (122.0, 9.0),
    "kidney": (185.0, 15.0),
    "medulla": (140.0, 15.0),
    "gallbladder": (8.0, 4.0),
    "esophagus": (42.0, 5.0),
    "stomach": (18.0, 12.0),
    "aorta": (190.0, 20.0),
    "cava": (150.0, 12.0),
    "portal": (172.0, 12.0),
    "pancreas": (88.0, 7.0),
}

ABDOMEN_LANDMARKS = {  # name: canonical position in mm
    "vertebra -2": (0.0, -50.0, -72.0),
    "vertebra -1": (0.0, -50.0, -36.0),
    "vertebra 0": (0.0, -50.0, 0.0),
    "vertebra 1": (0.0, -50.0, 36.0),
    "vertebra 2": (0.0, -50.0, 72.0),
    "spleen": (-84.0, -24.0, 30.0),
    "right kidney": (62.0, -38.0, -22.0),
    "left kidney": (-60.0, -38.0, -4.0),
    "gallbladder": (42.0, 36.0, -18.0),
    "liver dome": (55.0, 5.0, 90.0),
    "liver": (68.0, 0.0, 25.0),
    "gastric body": (-60.0, 20.0, 38.0),
    "pylorus": (18.0, 36.0, -4.0),
    "portal confluence": (12.0, 8.0, 4.0),
    "portal bifurcation": (36.0, 6.0, 36.0),
    "splenic hilum": (-66.0, -18.0, 34.0),
    "hepatic vein confluence": (22.0, -14.0, 76.0),
    "aortic bifurcation": (-4.0, -26.0, -90.0),
    "cava bifurcation": (10.0, -27.0, -92.0),
    "hepatic flexure": (82.0, 22.0, -36.0),
}


def abdomen(points: Array, tissue: dict[str, float], edge: float, texture: float = 1.0) -> tuple[Array, Array]:
    """Intensities and labels of the canonical abdomen.

    Args:
        points: canonical positions in mm, shape (3, N), float32.
        tissue: Hounsfield unit of each of :data:`TISSUES`.
        edge: width of soft edges in mm, about one voxel.
        texture: gain of the textures inside organs.

    Returns:
        Hounsfield units (N,) float32 and labels (N,) uint8 as in :data:`ABDOMEN_LABELS`.
    """
    canvas = Canvas(points, tissue["air"], edge)
    fine, coarse = texture * ripple(points, 17.0, 1), texture * ripple(points, 42.0, 2)
    paint_wall(canvas, tissue, fine, coarse)
    paint_spine(canvas, tissue, fine)
    paint_chest(canvas, tissue, fine)
    paint_bowel(canvas, tissue, fine, coarse)
    paint_organs(canvas, tissue, fine, coarse)
    paint_vessels(canvas, tissue, fine)
    paint_ribs_and_pelvis(canvas, tissue)
    return canvas.image, canvas.label
