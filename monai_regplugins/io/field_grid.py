"""Common parts of all field files: world displacement, grid, and conversion between RAS and LPS."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from monai_regplugins import fields
from monai_regplugins.checks import InputError, check_affine
from monai_regplugins.grids import affine_field, world_affine

__all__ = [
    "Displacement",
    "GridAffine",
    "check_field",
    "check_plane",
    "ddf_of_displacement",
    "displacement_of_ddf",
    "frame_signs",
    "in_other_worlds",
    "plus_map",
    "swap_frame",
    "translation",
    "volume_change",
]

Displacement: TypeAlias = npt.NDArray[np.float32]  # (3, X, Y, Z) or (2, X, Y), mm
GridAffine: TypeAlias = npt.NDArray[np.float64]  # (4, 4), voxels to RAS mm, in 2D too

SAMPLES = 12  # along each axis, of a field that a linear map is fitted to
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


def plus_map(
    values: npt.NDArray[np.floating],
    matrix: npt.NDArray[np.floating],
    linear: npt.NDArray[np.floating] | None = None,
) -> Displacement:
    """``L v(x) + M x`` at every voxel ``x``: positions of displacements, or the other way round.

    Args:
        values: ``v``, (3, X, Y, Z).
        matrix: ``M``, (4, 4), of which the last row does not count.
        linear: ``L``, (3, 3); None for identity.

    Example:
        >>> plus_map(np.zeros((3, 1, 1, 2)), np.diag([1.0, 1, 2, 1]))[2, 0, 0].tolist()
        [0.0, 2.0]
    """
    shape, moved = values.shape[1:], np.empty(values.shape, np.float32)
    M = torch.from_numpy(np.ascontiguousarray(matrix, np.float64))
    for slab in fields.slabs(shape):
        part = values[:, slab] if linear is None else np.tensordot(linear, values[:, slab], 1)
        moved[:, slab] = part + affine_field(M, shape, torch.float64, slab).numpy()
    return moved


def volume_change(displacement: Displacement, affine: GridAffine) -> float:
    """By which factor a field changes the volume of its grid as a whole: that of the closest linear map.

    Args:
        displacement: (3, X, Y, Z) or (2, X, Y), mm, components in RAS.
        affine: voxel-to-RAS matrix of its grid, (4, 4).

    Returns:
        the factor; 1 where an axis has one voxel and so states nothing.

    Example:
        >>> x = np.stack(np.meshgrid(*[np.arange(4.0)] * 3, indexing="ij"))
        >>> round(volume_change(x, np.eye(4)), 6)  # each point is moved to double its distance
        8.0
    """
    d, shape = len(displacement), displacement.shape[1:]
    if min(shape) < 2:
        return 1.0
    chosen = np.ix_(*[np.unique(np.linspace(0, n - 1, SAMPLES).round().astype(int)) for n in shape])
    index = np.stack(np.broadcast_arrays(*chosen)).reshape(d, -1).T
    points = index @ affine[:d, :d].T
    moved = points + np.stack([part[chosen] for part in displacement]).reshape(d, -1).T
    fitted = np.linalg.lstsq(points - points.mean(0), moved - moved.mean(0), rcond=None)[0]
    return float(np.linalg.det(fitted))


def translation(matrix: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """The constant part of an affine map, (4, 4), without the rest."""
    constant = np.zeros((4, 4))
    constant[:, 3] = matrix[:, 3]
    return constant


def in_other_worlds(
    displacement_ras: Displacement,
    affine: GridAffine,
    fixed_map: npt.ArrayLike | None,
    moving_map: npt.ArrayLike | None,
) -> tuple[Displacement, GridAffine]:
    r"""Express a displacement for a program that places the two images elsewhere.

    The point :math:`A x` of the fixed grid goes to :math:`A x + D(x)`. The program sees them at :math:`W_f A x` and
    :math:`W_m (A x + D(x))`, so :math:`D'(x) = (W_m - W_f) A x + W_m D(x)` on the grid :math:`W_f A`, where of the last
    :math:`W_m` only the linear part acts.

    Args:
        displacement_ras: ``(d, *spatial)``, mm, components in RAS.
        affine: ``A``, voxels to RAS mm, (4, 4), in 2D too.
        fixed_map: ``W_f``, this package's RAS mm to the program's, (4, 4); None for identity.
        moving_map: ``W_m``, the same in the moving image's world.

    Returns:
        The displacement and the grid in the program's worlds.

    Example:
        >>> to_the_left = np.diag([-1.0, 1.0, 1.0, 1.0])
        >>> field, affine = in_other_worlds(np.ones((3, 1, 1, 2), np.float32), np.eye(4), to_the_left, to_the_left)
        >>> field[:, 0, 0, 0].tolist(), affine[0, 0].item()
        ([-1.0, 1.0, 1.0], -1.0)
    """
    if fixed_map is None and moving_map is None:
        return displacement_ras, affine
    fixed, moving = (np.eye(4) if one is None else np.asarray(one, np.float64) for one in (fixed_map, moving_map))
    d, shape = len(displacement_ras), displacement_ras.shape[1:]
    kept = [*range(d), 3]  # a slice is at z = 0 of its grid
    difference = np.vstack([((moving - fixed) @ affine)[:d][:, kept], np.zeros(d + 1)])
    moved = torch.empty(d, *shape)
    for slab in fields.slabs(shape):
        part = affine_field(torch.from_numpy(difference), shape, torch.float64, slab)
        moved[:, slab] = part + torch.from_numpy(np.tensordot(moving[:d, :d], displacement_ras[:, slab], 1))
    result: Displacement = moved.numpy()
    return result, fixed @ affine


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
