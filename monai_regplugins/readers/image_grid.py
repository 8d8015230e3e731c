"""The grid of an image file: voxels along each axis and where they lie, by its header where that states it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from monai.data import MetaTensor

from monai_regplugins.checks import InputError, check_affine
from monai_regplugins.readers.dicom_series import series_of
from monai_regplugins.readers.images import read_scan, scan_shape
from monai_regplugins.readers.itk_headers import millimeters
from monai_regplugins.readers.itk_world import itk_affine, itk_world_of, note_itk_world
from monai_regplugins.readers.nifti import NIFTI_SUFFIXES, nifti_header, nifti_place, report_place

__all__ = ["ImageGrid", "grid_of", "read_image_grid"]

Array = npt.NDArray[Any]

ITK_SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd")


class ImageGrid(NamedTuple):
    """A voxel grid in the world.

    Attributes:
        affine: voxels to RAS mm, (4, 4), where this package places the image.
        shape: voxels along each axis, d of them.
        itk: the map from this package's world to the one in which ITK places the file, (4, 4), RAS mm, see
            :mod:`~monai_regplugins.readers.itk_world`; None where they are one.
        frame: DICOM's UID of the frame of reference, empty for other files.
    """

    affine: Array
    shape: tuple[int, ...]
    itk: Array | None = None
    frame: str = ""

    @property
    def by_itk(self) -> Array:
        """Voxels to RAS mm, (4, 4), where ITK places the image."""
        return self.affine if self.itk is None else self.itk @ self.affine


def grid_of(image: MetaTensor) -> ImageGrid:
    """The grid of a loaded image ``(C, *spatial)``.

    Example:
        >>> import torch
        >>> grid_of(MetaTensor(torch.zeros(1, 4, 5, 6))).shape
        (4, 5, 6)
    """
    shape, frame = tuple(int(n) for n in image.shape[1:]), (series_of(image) or {}).get("FrameOfReferenceUID", "")
    return ImageGrid(image.affine.double().numpy(), shape, itk_world_of(image), frame)


def read_image_grid(path: str | Path, what: str) -> ImageGrid:
    """Read the grid of an image; of a NIfTI, NRRD or MetaImage file the header alone.

    Args:
        path: the image; a fourth axis, such as time, does not count.
        what: what the image is, e.g. ``"fixed image"``.

    Raises:
        InputError: When the image cannot be read, or its affine is sheared or singular.
    """
    shape = scan_shape(path, what)[:3]
    file = Path(path)
    if shape and file.name.lower().endswith(NIFTI_SUFFIXES):
        grid = _nifti_grid(file, shape, what)
    elif shape and file.suffix.lower() in ITK_SUFFIXES and (affine := itk_affine(file)) is not None:
        itk, unit = np.array(affine), np.diag([*[millimeters(file, f"{what} '{path}'")] * 3, 1.0])
        grid = ImageGrid(unit @ itk, shape, None if unit[0, 0] == 1 else np.linalg.inv(unit))
    else:
        scan = read_scan(path, what)
        grid = grid_of(MetaTensor(scan.values[None], affine=scan.affine, meta=scan.meta))
    check_affine(grid.affine, f"{what} '{path}'")
    while len(grid.shape) > 2 and grid.shape[-1] == 1:
        grid = grid._replace(shape=grid.shape[:-1])
    if len(grid.shape) not in (2, 3):
        raise InputError(f"{what} '{path}' has {len(grid.shape)} axes, expected 2 or 3; give an image or a volume.")
    return grid


def _nifti_grid(file: Path, shape: tuple[int, ...], what: str) -> ImageGrid:
    """The grid of a NIfTI file by its header."""
    place = nifti_place(nifti_header(file))
    report_place(place, f"{what} '{file}'")
    note = note_itk_world(place.affine, None if place.certain else itk_affine(file), shape)
    world = itk_world_of(MetaTensor(np.zeros((1, 1, 1, 1), np.float32), meta=note)) if note else None
    return ImageGrid(np.asarray(place.affine), shape, world)
