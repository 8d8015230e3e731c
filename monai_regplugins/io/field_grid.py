"""What all field files share: a displacement in the world, the grid it lies on, and the world's two frames."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from monai_regplugins import fields
from monai_regplugins.checks import InputError, check_affine
from monai_regplugins.grids import world_affine

__all__ = [
    "Displacement",
    "GridAffine",
    "check_field",
    "check_plane",
    "ddf_of_displacement",
    "displacement_of_ddf",
    "frame_signs",
    "swap_frame",
]

Displacement: TypeAlias = npt.NDArray[np.float32]  # (3, X, Y, Z) or (2, X, Y), mm
GridAffine: TypeAlias = npt.NDArray[np.float64]  # (4, 4), voxels to RAS mm, in 2D too

PLANE_TOLERANCE = 1e-3  # sine of the angle by which a 2D grid may leave the world's x-y plane


def check_field(displacement_ras: npt.ArrayLike, affine: npt.ArrayLike) -> tuple[Displacement, GridAffine]:
    """Check a displacement field and its grid.

    Args:
        displacement_ras: (3, X, Y, Z) or (2, X, Y), mm, components in RAS.
        affine: voxel-to-RAS matrix of the field's grid, (4, 4), in 2D too.

    Returns:
        both as arrays, float32 and float64.

    Raises:
        InputError: When the field has another shape, NaN or infinite values, or ``affine`` is not (4, 4), has no
            inverse or has shear, which no file of other tools can hold.
    """
    field, matrix = np.asarray(displacement_ras, dtype=np.float32), np.asarray(affine, dtype=np.float64)
    d = field.ndim - 1
    if d not in (2, 3) or field.shape[0] != d or 0 in field.shape:
        raise InputError(f"the field has shape {field.shape}, expected (3, X, Y, Z) or (2, X, Y); give one field.")
    if matrix.shape != (4, 4):
        raise InputError(f"affine of the field has shape {matrix.shape}, expected (4, 4); give that of its grid.")
    check_affine(matrix, "the field")
    if not np.isfinite([field.min(), field.max()]).all():  # both carry NaN, and one of them any infinity
        raise InputError(
            "the field holds NaN or infinite values, expected finite ones in mm; registering the same "
            "pair again gives the same, so check the weights and the images that it was made with."
        )
    return field, matrix


def check_plane(affine: GridAffine, d: int) -> None:
    """Check that ITK can hold a grid of ``d`` dimensions with this voxel-to-RAS matrix.

    Raises:
        InputError: When a 2D grid leaves the world's x-y plane.
    """
    along = np.linalg.norm(affine[:3, :2], axis=0).min()
    if d == 2 and np.abs([affine[2, :2], affine[:2, 2]]).max() > PLANE_TOLERANCE * along:
        raise InputError(
            "the grid of the 2D field leaves the world's x-y plane, which a 2D image of ITK cannot; save it in 3D, or "
            "give an affine that lies in that plane."
        )


def frame_signs(d: int) -> Displacement:
    """Factors between the components of RAS and of LPS, shape (d,)."""
    return np.array([-1.0, -1.0, 1.0], dtype=np.float32)[:d]


def swap_frame(displacement: Displacement) -> Displacement:
    """Turn components in RAS into LPS or back: the first two change sign; shape ``(d, *spatial)``."""
    return displacement * frame_signs(len(displacement)).reshape(-1, *[1] * (displacement.ndim - 1))


def ddf_of_displacement(displacement_ras: npt.NDArray[np.floating], affine: GridAffine) -> Displacement:
    """Express a displacement ``(d, *spatial)`` in mm of the world in voxels of its grid: ``inv(A) D``.

    Raises:
        InputError: When a 2D grid is oblique to the world axes.
    """
    return _converted(fields.ras_to_voxel, displacement_ras, affine)


def displacement_of_ddf(ddf: npt.NDArray[np.floating], affine: GridAffine) -> Displacement:
    """Undo :func:`ddf_of_displacement`: ``A u``.

    Raises:
        InputError: When a 2D grid is oblique to the world axes.
    """
    return _converted(fields.voxel_to_ras, ddf, affine)


def _converted(
    convert: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], field: npt.NDArray[np.floating], affine: GridAffine
) -> Displacement:
    """Apply a conversion of ``fields`` to one field; a 2D grid lies in an axial, coronal or sagittal plane."""
    matrix = world_affine(torch.from_numpy(affine), len(field), "the field")
    result: Displacement = convert(torch.from_numpy(np.ascontiguousarray(field))[None], matrix)[0].numpy()
    return result.astype(np.float32)
