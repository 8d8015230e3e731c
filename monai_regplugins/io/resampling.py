r"""Images and points through a chain of transforms, each image sampled once.

The value at a voxel x of the target grid, of affine ``A``, is that of the moving image at :math:`T(A x)`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.data import MetaTensor
from scipy import ndimage

from monai_regplugins import fields
from monai_regplugins.checks import InputError, check_choice
from monai_regplugins.grids import (
    LPS_TO_RAS,
    affine_field,
    as_meta_tensor,
    map_points,
    same_affine,
    sample_affine,
    sample_with_offset,
    world_affine,
)
from monai_regplugins.io.point_map import Chain, FieldMap
from monai_regplugins.readers.image_grid import ImageGrid, grid_of
from monai_regplugins.readers.points import PointFile, points_in_world

__all__ = ["INTERPOLATIONS", "apply_to_image", "apply_to_points", "displacement_on"]

logger = logging.getLogger(__name__)

INTERPOLATIONS = ("linear", "nearest", "cubic", "labels")
SIGMA = 1.0  # voxels, of the Gaussian that labels are smoothed with
REACH = 4  # standard deviations, beyond which the Gaussian counts as zero


def apply_to_image(
    chain: Chain,
    image: MetaTensor,
    like: ImageGrid,
    interpolation: str = "linear",
    padding_value: float | None = None,
) -> MetaTensor:
    """Bring a moving image onto the fixed grid, or any other: ``warped(p) = moving(T(p))``, in one sampling.

    Args:
        chain: ``T``, from the fixed image's world to the moving one's, as
            :func:`~monai_regplugins.io.transform_files.load_transform` gives it.
        image: the moving image, ``(C, *spatial_m)``, of any type; channels, such as times, are sampled one by one.
        like: the grid of the result.
        interpolation: ``linear``, ``nearest``, ``cubic`` (B-spline), or ``labels``: the label whose mask, smoothed by a
            Gaussian of one voxel, is largest, which leaves no steps. Labels keep their numbers in ``nearest`` and
            ``labels``.
        padding_value: value outside of the moving image; None for its minimum, and 0 for labels.

    Returns:
        ``(C, *like.shape)`` of the type of ``image``, float32 for ``linear`` and ``cubic``, with the affine of
        ``like``.

    Raises:
        InputError: When dimensions do not fit, or the chain misses the image.

    Example:
        >>> from monai_regplugins.io.point_map import LinearMap
        >>> shift = np.eye(4)
        >>> shift[0, 3] = 1
        >>> image = MetaTensor(torch.arange(3.0).expand(1, 2, 2, 3).transpose(1, 3).contiguous())
        >>> apply_to_image(Chain([LinearMap(shift)]), image, ImageGrid(np.eye(4), (3, 2, 2)))[0, :, 0, 0].tolist()
        [1.0, 2.0, 0.0]
    """
    check_choice(interpolation, INTERPOLATIONS, "interpolation")
    grid = grid_of(image)
    d = len(grid.shape)
    if len(like.shape) != d:
        raise InputError(
            f"the image has {d} axes and the grid {len(like.shape)}, expected the same; give images alike."
        )
    values = image.as_tensor()
    if interpolation in ("linear", "cubic"):
        values = values.to(
            torch.promote_types(values.dtype, torch.float32) if values.is_floating_point() else torch.float32
        )
    labels = interpolation in ("nearest", "labels")
    outside = (0.0 if labels else float(values.min())) if padding_value is None else padding_value
    whole = chain.in_worlds(like.itk, grid.itk)
    if (field := _field_on(whole, like)) is not None and interpolation in ("linear", "nearest"):
        to_voxel = torch.linalg.inv(world_affine(image.affine, d, "image"))
        matrix = to_voxel @ world_affine(torch.from_numpy(np.ascontiguousarray(like.affine)), d, "grid")
        u = torch.from_numpy(field)
        warped = sample_affine(values, matrix, u.shape[1:], interpolation, outside, to_voxel[:d, :d], u)
    else:
        warped = _sampled(whole, values, grid, like, interpolation, outside)
    return as_meta_tensor(warped, torch.from_numpy(np.ascontiguousarray(like.affine)), image.meta)


def apply_to_points(chain: Chain, found: PointFile, fixed: ImageGrid | None, moving: ImageGrid | None) -> PointFile:
    """Carry points of the fixed image to the moving image: the direction of the transform itself.

    Points of the moving image go the other way, through the inverse.

    Args:
        chain: ``T``, from the fixed image's world to the moving one's.
        found: points of the fixed image.
        fixed: grid of the fixed image; points in voxels need it.
        moving: the same of the moving image.

    Returns:
        the points in the moving image, of the same kind and in the same space as the given ones.

    Raises:
        InputError: When points in voxels come without the image that they count voxels of, or lie far outside of it or
            of the field.

    Example:
        >>> from monai_regplugins.io.point_map import LinearMap
        >>> half = Chain([LinearMap(np.diag([0.5, 0.5, 0.5, 1]))])
        >>> apply_to_points(half, PointFile(np.array([[2.0, 4.0, 6.0]]), "lps", "ants"), None, None).points.tolist()
        [[1.0, 2.0, 3.0]]
    """
    if found.space == "voxel" and (fixed is None or moving is None):
        raise InputError(
            "points in voxels need both images, expected the fixed one, whose voxels they are, and the moving one, "
            "whose they become; give both, or points in mm (points_space ras or lps)."
        )
    d = _dimension(chain, fixed, found)
    plain = np.eye(d + 1)
    fixed_affine = plain if fixed is None else _in_d(fixed, d)
    points = points_in_world(found, fixed_affine, None if fixed is None else fixed.itk)
    _check_near(points, chain, fixed)
    whole = chain.in_worlds(None if fixed is None else fixed.itk, None if moving is None else moving.itk)
    moved = whole.move(torch.from_numpy(np.ascontiguousarray(points))).numpy()
    return found._replace(points=_as_before(moved, found, moving, d))


def displacement_on(chain: Chain, like: ImageGrid) -> FieldMap:
    """Make one displacement field of a chain: ``D(p) = T(p) - p`` at the voxels of a grid.

    Args:
        chain: ``T``, in this package's worlds, see :meth:`~monai_regplugins.io.point_map.Chain.in_worlds`.
        like: the grid.
    """
    d, shape = len(like.shape), like.shape
    matrix = world_affine(torch.from_numpy(np.ascontiguousarray(like.affine)), d, "the grid")
    displacement = np.empty((d, *shape), np.float32)
    for slab in fields.slabs(shape):
        points = affine_field(matrix, shape, torch.float64, slab).flatten(1).T
        displacement[:, slab] = (chain.move(points) - points).T.reshape(d, -1, *shape[1:]).numpy()
    return FieldMap(displacement, np.asarray(like.affine, np.float64))


def _field_on(chain: Chain, like: ImageGrid) -> npt.NDArray[Any] | None:
    """The displacement of a chain of one field that lies on this grid, which then needs no interpolation."""
    field = chain.grid if len(chain.maps) == 1 else None
    if field is None or field.shape != like.shape:
        return None
    ours, theirs = (torch.from_numpy(np.ascontiguousarray(one, np.float64)) for one in (like.affine, field.affine))
    return field.displacement if same_affine(ours, theirs, like.shape) else None


def _sampled(
    chain: Chain, values: torch.Tensor, grid: ImageGrid, like: ImageGrid, interpolation: str, outside: float
) -> torch.Tensor:
    """Values ``(C, *like.shape)`` at the points of a chain, slab by slab."""
    d, shape = len(grid.shape), like.shape
    to_world = world_affine(torch.from_numpy(np.ascontiguousarray(like.affine)), d, "the grid of the result")
    to_voxel = torch.linalg.inv(world_affine(torch.from_numpy(np.ascontiguousarray(grid.affine)), d, "the image"))
    sample = _sampler(values, interpolation, outside)
    warped = torch.empty(len(values), *shape, dtype=values.dtype)
    beyond, missed = 0, True
    for slab in fields.slabs(shape):
        points = affine_field(to_world, shape, torch.float64, slab).flatten(1).T
        if (field := chain.grid) is not None:
            beyond += int((~field.covers(points)).sum())
        where = map_points(chain.move(points), to_voxel).T.reshape(d, -1, *shape[1:])
        missed = missed and not bool(_inside(where, grid.shape).any())
        warped[:, slab] = sample(where)
    if missed:
        raise InputError(
            "the transform leads nowhere into the moving image, expected points of it; check that image and transform "
            "belong together, and the direction and the format of the transform."
        )
    if beyond:
        logger.warning("%d voxels of the result lie beyond the field, which goes on with its border there.", beyond)
    return warped


def _inside(where: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Which voxel coordinates ``(d, *slab)`` lie in an image, whose border is half a voxel beyond the last centers."""
    last = torch.tensor(shape, dtype=where.dtype).reshape(-1, *[1] * (where.ndim - 1)) - 0.5
    return torch.all((where >= -0.5) & (where <= last), dim=0)


def _sampler(values: torch.Tensor, interpolation: str, outside: float) -> Callable[[torch.Tensor], torch.Tensor]:
    """What reads values ``(C, *slab)`` at voxel coordinates ``(d, *slab)``."""
    shape = tuple(values.shape[1:])
    if interpolation in ("linear", "nearest"):

        def sample(where: torch.Tensor) -> torch.Tensor:
            offset = where - fields.identity_grid(where.shape[1:], dtype=where.dtype)
            kept = offset if interpolation == "nearest" else offset.float()
            return sample_with_offset(values, kept, interpolation, outside)

        return sample
    read = _cubic(values) if interpolation == "cubic" else _smoothest_label(values)
    return lambda where: torch.where(_inside(where, shape), read(where), torch.tensor(outside).to(values.dtype))


def _cubic(values: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """Interpolation by cubic B-splines, mirrored at the borders as in ITK."""
    coefficients = [ndimage.spline_filter(one.numpy(), 3, np.float32, mode="mirror") for one in values]

    def read(where: torch.Tensor) -> torch.Tensor:
        at = where.numpy()
        parts = [ndimage.map_coordinates(one, at, order=3, mode="mirror", prefilter=False) for one in coefficients]
        return torch.from_numpy(np.stack(parts)).to(values.dtype)

    return read


def _smoothest_label(values: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """At each point the label whose smoothed mask is largest there."""
    masks = [_smoothed_masks(one) for one in values]
    return lambda where: torch.stack([_label_at(one, where) for one in masks]).to(values.dtype)


def _smoothed_masks(label: torch.Tensor) -> list[tuple[int, torch.Tensor, tuple[int, ...]]]:
    """Each label, its smoothed mask as far as that is not zero, and where that begins."""
    array, margin = label.numpy(), int(np.ceil(REACH * SIGMA)) + 1
    numbers, compact = np.unique(array, return_inverse=True)
    masks = []
    compact = compact.reshape(array.shape)
    for number, box in zip(numbers, ndimage.find_objects(compact + 1), strict=True):
        cut = tuple(
            slice(max(part.start - margin, 0), min(part.stop + margin, n))
            for part, n in zip(box, array.shape, strict=True)
        )
        mask = (array[cut] == number).astype(np.float32)
        smooth = ndimage.gaussian_filter(mask, SIGMA, mode="nearest", truncate=REACH)
        masks.append((number.item(), torch.from_numpy(smooth), tuple(part.start for part in cut)))
    return masks


def _label_at(masks: list[tuple[int, torch.Tensor, tuple[int, ...]]], where: torch.Tensor) -> torch.Tensor:
    """The label whose mask is largest at each point."""
    points = where.flatten(1).T
    best = torch.zeros(len(points), dtype=torch.float64)
    found = torch.zeros(len(points), dtype=torch.int64)
    for number, mask, start in masks:
        local = points - torch.tensor(start, dtype=points.dtype)
        near = torch.all((local >= -0.5) & (local <= torch.tensor(mask.shape) - 0.5), dim=1).nonzero()[:, 0]
        if len(near):
            value = fields.sample_at(mask[None, None], local[near][None])[0, :, 0]
            better = value > best[near]
            best[near[better]], found[near[better]] = value[better], int(number)
    return found.reshape(where.shape[1:])


def _dimension(chain: Chain, fixed: ImageGrid | None, found: PointFile) -> int:
    """How many dimensions images and transforms have."""
    if fixed is not None:
        return len(fixed.shape)
    return len(chain.fields[0].displacement) if chain.fields else found.points.shape[1]


def _in_d(grid: ImageGrid, d: int) -> npt.NDArray[Any]:
    """The affine of a grid with d world axes."""
    matrix: npt.NDArray[Any] = world_affine(torch.from_numpy(np.ascontiguousarray(grid.affine)), d, "the image").numpy()
    return matrix


def _as_before(moved: npt.NDArray[Any], found: PointFile, moving: ImageGrid | None, d: int) -> npt.NDArray[Any]:
    """Points of the moving world in the space of those that were given."""
    if found.space == "voxel" and moving is not None:
        to_voxel = torch.linalg.inv(torch.from_numpy(_in_d(moving, d)))
        voxels: npt.NDArray[Any] = map_points(torch.from_numpy(moved), to_voxel).numpy()
        return voxels
    if moving is not None and moving.itk is not None and found.kind != "table":
        moved = moved @ moving.itk[:d, :d].T + moving.itk[:d, 3]
    moved = moved * np.diag(LPS_TO_RAS)[:d] if found.space == "lps" else moved
    rest = found.points[:, d:]
    return np.concatenate([moved, rest], axis=1)


def _check_near(points: npt.NDArray[Any], chain: Chain, fixed: ImageGrid | None) -> None:
    """Points in mm that are read as voxels, or in another frame, lie far from what they belong to."""
    field = chain.grid
    if fixed is not None:
        shape, matrix = fixed.shape, _in_d(fixed, len(fixed.shape))
    elif field is not None:
        shape, matrix = field.shape, _in_d(ImageGrid(field.affine, field.shape), len(field.shape))
    else:
        return
    where = map_points(torch.from_numpy(np.ascontiguousarray(points)), torch.linalg.inv(torch.from_numpy(matrix)))
    size = torch.tensor(shape)
    far = torch.any((where < -0.5 - 0.1 * size) | (where > 1.1 * size - 0.5), dim=1)
    if bool(far.any()):
        first = [round(float(number), 2) for number in where[far][0]]
        raise InputError(
            f"{int(far.sum())} of {len(points)} points lie far outside of the fixed image, such as voxel {first} of "
            f"{' x '.join(map(str, shape))}, expected points of the fixed image; say what the numbers are "
            "(points_space voxel, ras or lps), or give the inverse transform for points of the moving image."
        )
