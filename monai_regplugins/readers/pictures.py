"""Read PNG, JPEG and BMP pictures as gray images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from monai_regplugins.checks import InputError
from monai_regplugins.grids import LPS_TO_RAS
from monai_regplugins.readers.itk_world import itk_affine

__all__ = ["PICTURE_FORMATS", "PICTURE_SUFFIXES", "itk_affine_of_picture", "read_picture"]

Array = npt.NDArray[Any]

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
PICTURE_FORMATS = ("PNG", "JPEG", "BMP")  # Pillow would take any other that it knows by its content
GRAY = ("1", "L", "I", "I;16", "I;16B", "I;16L")
COLORS = {"RGB": 3, "RGBA": 3, "LA": 1}  # modes with more than one channel, and how many are color; the rest is alpha
PALETTE = "P"


def read_picture(file: Path, name: str, indices: bool = False) -> Array:
    """Read a picture as one gray value per pixel, axes (x, y).

    Args:
        file: a PNG, JPEG or BMP file.
        name: of the image, for messages.
        indices: take the numbers of the colors in a palette, as label maps mean them, and not the colors.

    Raises:
        InputError: When it is a color picture, or of a mode whose numbers are no gray values.
        Exception: Whatever Pillow raises on a damaged file.
    """
    with Image.open(file, formats=PICTURE_FORMATS) as picture:
        if picture.mode == PALETTE and not indices:
            return _gray(np.asarray(picture.convert("RGB")), name)
        if picture.mode in (*GRAY, PALETTE):
            values: Array = np.asarray(picture).T
            return values
        if picture.mode in COLORS:
            return _gray(np.asarray(picture)[..., : COLORS[picture.mode]], name)
        raise InputError(
            f"{name} is a picture of mode {picture.mode}, expected gray values; convert it to grayscale, as PNG."
        )


def itk_affine_of_picture(file: Path) -> Array | None:
    """Voxel-to-RAS matrix by ITK: pixels of 1 mm in LPS; for JPEG the density of its header, if there is one."""
    return LPS_TO_RAS if file.suffix.lower() in (".png", ".bmp") else itk_affine(file)


def _gray(colors: Array, name: str) -> Array:
    """Reduce equal color channels, (rows, columns, channels), to one, (x, y)."""
    if not (colors == colors[..., :1]).all():
        raise InputError(f"{name} is a color picture, expected gray values; convert it to grayscale.")
    gray: Array = colors[..., 0].T
    return gray
