r"""Voxel grids in the world: affines, the maps between them, and sampling through such a map.

A grid has an affine ``A`` (homogeneous, voxels to RAS mm). Everything here is exact up to rounding: affine maps are
multiplied in float64 and applied to the voxel grid once.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.data.utils import to_affine_nd
from monai.utils import SpaceKeys

from monai_regplugins import fields
from monai_regplugins.checks import InputError, check_affine
from monai_regplugins.keys import KEPT_META

__all__ = [
    "LPS_TO_RAS",
    "above_zero",
    "affine_field",
    "as_meta_tensor",
    "grid_distance",
    "grids_overlap",
    "inside_mask",
    "linear_kind",
    "map_points",
    "offset_field",
    "plane_axis",
    "ras_affine",
    "rescaled_affine",
    "same_affine",
    "sample_affine",
    "sample_with_offset",
    "shifted_affine",
    "voxel_spacing",
    "world_affine",
]

SAME_GRID_TOLERANCE = 1e-2  # voxels; headers in float32 or written as text round below this
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # its own inverse
ROUNDING = 1e-6  # of a matrix: what is nearer to a rotation is one
PLANE_TOLERANCE = 1e-3  # sine of the angle by which a 2D slice may leave its world plane


def world_affine(affine: torch.Tensor, spatial_dims: int, name: str) -> torch.Tensor:
    """Return the voxel-to-world matrix of a grid with as many world axes as voxel axes.

    Volumes keep their 4 x 4 matrix. A slice with a 4 x 4 matrix lives in an axial, coronal or sagittal plane; the world
    axis along its normal is left out.

    Args:
        affine: homogeneous matrix, shape (d + 1, d + 1) or (4, 4), voxels to RAS mm.
        spatial_dims: ``d``, 2 or 3.
        name: what the affine belongs to, e.g. ``"fixed image"``.

    Returns:
        Matrix of shape (d + 1, d + 1), float64.

    Raises:
        InputError: When the matrix is sheared, singular, of another shape, or a slice is oblique to the world axes.
    """
    matrix = torch.as_tensor(affine).detach().cpu().to(torch.float64)
    check_affine(matrix, name)
    if spatial_dims == 2 and matrix.shape[0] == 4:
        axis = plane_axis(matrix, name)
        rows = [k for k in range(4) if k != axis]
        matrix = matrix[rows][:, [0, 1, 3]]
    if matrix.shape[0] != spatial_dims + 1:
        raise InputError(
            f"affine of {name} has shape {tuple(matrix.shape)}, expected {(spatial_dims + 1,) * 2} for "
            f"{spatial_dims}D images; save the image again."
        )
    return matrix


def plane_axis(affine: torch.Tensor, name: str) -> int:
    """Return the world axis (0, 1 or 2) that is normal to a slice with a 4 x 4 affine.

    Raises:
        InputError: When the slice is oblique to the world axes.
    """
    normal = torch.linalg.cross(affine[:3, 0], affine[:3, 1])
    normal = (normal / normal.norm()).abs()
    axis = int(normal.argmax())
    if float(normal.norm() ** 2 - normal[axis] ** 2) > PLANE_TOLERANCE**2:
        raise InputError(
            f"{name} is an oblique slice (normal {[round(float(n), 3) for n in normal]}), expected an axial, coronal "
            "or sagittal one; reset the orientation in its header."
        )
    return axis


def linear_kind(matrix: torch.Tensor) -> str:
    """What a map of the world does: ``none``, ``translation``, ``rigid``, ``similarity`` or ``affine``.

    Args:
        matrix: (d + 1, d + 1), mm.

    Example:
        >>> linear_kind(torch.diag(torch.tensor([2.0, 2.0, 1.0])))
        'similarity'
    """
    matrix = matrix.double()
    part, identity = matrix[:-1, :-1], torch.eye(len(matrix) - 1, dtype=torch.float64)
    product = part.T @ part
    scale = product.trace() / len(part)
    if torch.equal(matrix, torch.eye(len(matrix), dtype=torch.float64)):
        return "none"
    if torch.allclose(part, identity, atol=ROUNDING):
        return "translation"
    if torch.det(part) <= 0 or not torch.allclose(product, scale * identity, atol=ROUNDING * float(scale)):
        return "affine"
    return "rigid" if abs(float(scale) - 1) < ROUNDING else "similarity"


def voxel_spacing(affine: torch.Tensor, spatial_dims: int) -> torch.Tensor:
    """Return the voxel size along each array axis, shape (d,), float32, mm."""
    columns = affine[:-1, :spatial_dims].to(torch.float64)
    return columns.square().sum(dim=0).sqrt().to(torch.float32)


def ras_affine(image: MetaTensor) -> torch.Tensor:
    """Return the voxel-to-RAS matrix of an image, (4, 4), float64; its metadata may say that its own is in LPS.

    Raises:
        InputError: When its ``space`` is neither RAS nor LPS.

    Example:
        >>> ras_affine(MetaTensor(torch.zeros(1, 2, 2, 2), meta={"space": SpaceKeys.LPS})).diag().tolist()
        [-1.0, -1.0, 1.0, 1.0]
    """
    affine = torch.as_tensor(to_affine_nd(3, image.affine.detach().cpu().double()))
    space = str(image.meta.get("space", SpaceKeys.RAS))
    if space not in (SpaceKeys.RAS, SpaceKeys.LPS):
        raise InputError(f"the space of the image is '{space}', expected RAS or LPS; change its affine and its meta.")
    return torch.from_numpy(LPS_TO_RAS) @ affine if space == SpaceKeys.LPS else affine


def grid_distance(a: torch.Tensor, b: torch.Tensor, spatial_shape: Sequence[int]) -> float:
    """Return the largest distance between the places that two affines give a voxel, in voxels of the first.

    It is that of a corner of the grid, as the distance is convex.

    Args:
        a: homogeneous matrix, shape (d + 1, d + 1), or (4, 4) for slices too.
        b: matrix of the same shape.
        spatial_shape: number of voxels along each axis.

    Returns:
        The distance; infinity where ``a`` has no inverse.

    Example:
        >>> grid_distance(torch.eye(4), torch.diag(torch.tensor([1.0, 1.5, 1.0, 1.0])), (5, 11, 7))
        5.0
    """
    missing = [1] * (len(a) - 1 - len(spatial_shape))
    ends = [(0.0, n - 1.0) for n in (*spatial_shape, *missing)]
    corners = torch.tensor([[*corner, 1.0] for corner in itertools.product(*ends)], dtype=torch.float64)
    inverse, failed = torch.linalg.inv_ex(a.double())
    if failed:
        return float("inf")
    moved = (inverse @ b.double() - torch.eye(len(a), dtype=torch.float64)) @ corners.T
    return float(moved[:-1].norm(dim=0).max())


def same_affine(a: torch.Tensor, b: torch.Tensor, spatial_shape: Sequence[int]) -> bool:
    """Whether two affines give each voxel of a grid one place, to a hundredth of a voxel."""
    return a.shape == b.shape and grid_distance(a, b, spatial_shape) <= SAME_GRID_TOLERANCE


def map_points(points: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """Apply a homogeneous matrix, shape (d + 1, d + 1), to points of shape (N, d); the dtype of the points is kept."""
    matrix = matrix.to(torch.float64)
    return (points.to(torch.float64) @ matrix[:-1, :-1].T + matrix[:-1, -1]).to(points.dtype)


def offset_field(
    matrix: torch.Tensor,
    spatial_shape: Sequence[int],
    dtype: torch.dtype = torch.float32,
    slab: slice | None = None,
) -> torch.Tensor:
    """Displacement field of an affine map of the voxel grid: ``M x - x`` at every voxel ``x``.

    Args:
        matrix: homogeneous matrix ``M``, shape (d + 1, d + 1).
        spatial_shape: number of voxels along each axis.
        dtype: of the result.
        slab: the indices along the first axis to return, see :func:`~monai_regplugins.fields.slabs`; None for all.

    Returns:
        Field of shape ``(d, *spatial)``, in the unit that ``M`` maps to.
    """
    difference = matrix.to(torch.float64) - torch.eye(matrix.shape[0], dtype=torch.float64)
    return affine_field(difference, spatial_shape, dtype, slab)


def affine_field(
    matrix: torch.Tensor,
    spatial_shape: Sequence[int],
    dtype: torch.dtype = torch.float32,
    slab: slice | None = None,
) -> torch.Tensor:
    """Values of an affine function ``M x`` at every voxel ``x``, shape ``(d, *spatial)``, or in one slab."""
    rows = slice(0, spatial_shape[0]) if slab is None else slab
    grid = fields.identity_grid((rows.stop - rows.start, *spatial_shape[1:]), dtype=dtype)
    grid[0] += rows.start
    linear = torch.einsum("kj,j...->k...", matrix[:-1, :-1].to(dtype), grid)
    return linear.add_(matrix[:-1, -1].to(dtype).reshape(-1, *[1] * len(spatial_shape)))


def sample_with_offset(
    image: torch.Tensor, offset: torch.Tensor, mode: str, padding_value: float | None, start: int = 0
) -> torch.Tensor:
    """Sample ``image`` at ``x + offset(x)``; positions outside its field of view get ``padding_value``.

    The field of view ends at the outer faces of the border voxels, half a voxel beyond their centers; up to there
    the border value holds, as in ITK.

    Args:
        image: shape ``(C, *spatial_m)``, any dtype.
        offset: shape ``(d, *spatial_f)``, voxels of ``image``.
        mode: ``"linear"`` or ``"nearest"``.
        padding_value: value outside; None continues the border values.
        start: index x along the first axis at which ``offset`` begins, for a slab of a larger field.

    Returns:
        Sampled image, shape ``(C, *spatial_f)``, dtype of ``image``.
    """
    values = _to_sample(image, offset, mode)
    sampled = fields.warp(values[None], offset[None], mode=mode, padding="border", start=start)[0]
    if padding_value is not None:
        sampled.masked_fill_(~inside_mask(offset, image.shape[1:], start), padding_value)
    return sampled.to(image.dtype)


def sample_affine(
    image: torch.Tensor,
    matrix: torch.Tensor,
    spatial_shape: Sequence[int],
    mode: str,
    padding_value: float | None,
    linear: torch.Tensor | None = None,
    field: torch.Tensor | None = None,
) -> torch.Tensor:
    """Sample ``image`` at ``M x + L u(x)`` for every voxel ``x`` of a grid.

    The grid is worked on in slabs: beyond what is given and returned, little memory is needed.

    Args:
        image: shape ``(C, *spatial_m)``, any dtype.
        matrix: homogeneous matrix ``M``, voxels of the grid to voxels of ``image``, shape (d + 1, d + 1).
        spatial_shape: number of voxels of the grid along each axis.
        mode: ``"linear"`` or ``"nearest"``.
        padding_value: value outside the field of view; None continues the border values.
        linear: ``L``, displacements to voxels of ``image``, shape (d, d); None without a field.
        field: displacements ``u``, shape ``(d, *spatial)``, float32 or better; None for no displacement.

    Returns:
        Sampled image, shape ``(C, *spatial)``, dtype of ``image``, on the device of ``field`` if there is one.
    """
    like = torch.empty(0, device=image.device) if field is None else field
    values = _to_sample(image.to(like.device), like, mode)
    sampled = torch.empty(len(image), *spatial_shape, dtype=image.dtype, device=like.device)
    for slab in fields.slabs(spatial_shape):
        offset = offset_field(matrix, spatial_shape, like.dtype, slab).to(like.device)
        if linear is not None and field is not None:
            part = field[:, slab].contiguous()  # the product is rounded by the order in memory
            offset += torch.einsum("kj,j...->k...", linear.to(field), part)
        sampled[:, slab] = sample_with_offset(values, offset, mode, padding_value, slab.start)
    return sampled


def _to_sample(image: torch.Tensor, offset: torch.Tensor, mode: str) -> torch.Tensor:
    """An image of the type that it is interpolated in; what is only copied stays as it is."""
    return image if mode == "nearest" else image.to(torch.promote_types(offset.dtype, image.dtype))


def grids_overlap(matrix: torch.Tensor, spatial_shape: Sequence[int], other_shape: Sequence[int]) -> bool:
    """Whether any voxel of a grid lies in an image of ``other_shape``, ``matrix`` maps to whose voxels."""
    offsets = ((offset_field(matrix, spatial_shape, slab=slab), slab.start) for slab in fields.slabs(spatial_shape))
    return any(bool(inside_mask(offset, other_shape, start).any()) for offset, start in offsets)


def above_zero(mask: torch.Tensor) -> torch.Tensor:
    """The voxels of a mask that are above zero, boolean, any shape.

    A boolean mask is returned as it is: PyTorch compares one with 0 by way of int64, eight times its size.

    Example:
        >>> above_zero(torch.tensor([0.0, 0.5])).tolist()
        [False, True]
    """
    return mask if mask.dtype == torch.bool else mask > 0


def inside_mask(offset: torch.Tensor, spatial_shape: Sequence[int], start: int = 0) -> torch.Tensor:
    """Where ``x + offset(x)`` lies in an image of ``spatial_shape``: boolean, shape ``(*spatial_f)``.

    Args:
        offset: shape ``(d, *spatial_f)``, voxels of that image.
        spatial_shape: number of its voxels along each axis.
        start: index x along the first axis at which ``offset`` begins, for a slab of a larger field.
    """
    within = torch.ones((), dtype=torch.bool, device=offset.device)
    for k, size in enumerate(spatial_shape):
        index = torch.arange(offset.shape[k + 1], dtype=offset.dtype, device=offset.device) + (start if k == 0 else 0)
        position = offset[k] + index.view([-1 if axis == k else 1 for axis in range(len(offset))])
        within = within & (position >= -0.5) & (position <= size - 0.5)
    return within


def shifted_affine(affine: torch.Tensor, offset: Sequence[float]) -> torch.Tensor:
    """Affine of a crop whose first voxel is voxel ``offset`` of the old grid."""
    return _regridded(affine, [1.0] * len(offset), offset)


def rescaled_affine(affine: torch.Tensor, old_shape: Sequence[int], new_shape: Sequence[int]) -> torch.Tensor:
    """Affine after a cell-centered change of size: old voxel = (new voxel + 0.5) * old / new - 0.5."""
    scale = [old / new for old, new in zip(old_shape, new_shape, strict=True)]
    return _regridded(affine, scale, [0.5 * factor - 0.5 for factor in scale])


def _regridded(affine: torch.Tensor, scale: Sequence[float], offset: Sequence[float]) -> torch.Tensor:
    """``A C`` with ``C``: new voxel -> old voxel = scale * new voxel + offset; axes beyond ``d`` stay as they are."""
    change = torch.eye(affine.shape[0], dtype=torch.float64)
    for axis, (factor, shift) in enumerate(zip(scale, offset, strict=True)):
        change[axis, axis] = factor
        change[axis, -1] = shift
    return affine.to(torch.float64) @ change


def as_meta_tensor(data: torch.Tensor, affine: torch.Tensor, meta: Mapping[str, Any] | None = None) -> MetaTensor:
    """Put ``data`` on the grid of ``affine``; of ``meta``, what it was made of: the file name and the DICOM series.

    Every transform makes its images here, so that none forgets where they come from. The rest of ``meta`` describes an
    older grid: MONAI's writers resample to ``original_affine`` and ``spatial_shape`` if they find them.
    """
    kept = {key: value for key, value in (meta or {}).items() if key in KEPT_META}
    return MetaTensor(data, affine=affine.clone(), meta=kept)
