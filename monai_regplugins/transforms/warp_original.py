r"""Warp the original moving images by the total map from fixed to moving world, in one interpolation.

With the fixed grid's affine ``A``, the network's field ``u`` (voxels) and an initial alignment ``T`` (fixed world to
moving world, RAS mm), the fixed point ``p = A x`` corresponds to the moving point

.. math:: p + D(p) = T(p + A_{lin} u(x)).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import Transform

from monai_regplugins import fields
from monai_regplugins.checks import InputError, check_choice, check_same_size
from monai_regplugins.grids import (
    affine_field,
    as_meta_tensor,
    map_points,
    sample_affine,
    world_affine,
)
from monai_regplugins.inversion import inverse_at
from monai_regplugins.transforms.measured import COVERED

__all__ = [
    "WarpOriginald",
    "field_of_total",
    "inverse_displacement",
    "map_to_moving",
    "resample_aligned",
    "resample_original",
    "solved_inverse",
    "total_displacement",
]


def total_displacement(
    ddf: torch.Tensor, fixed_affine: torch.Tensor, initial_alignment_matrix: torch.Tensor | None = None
) -> torch.Tensor:
    r"""Displacement from fixed to moving world, initial alignment included: ``D(p) = T(p + A u) - p``, ``p = A x``.

    Args:
        ddf: field on the fixed grid, shape ``(d, *spatial)``, voxels.
        fixed_affine: voxel-to-RAS matrix of the fixed grid, shape (d + 1, d + 1) or (4, 4).
        initial_alignment_matrix: ``T``, fixed world to moving world, shape (d + 1, d + 1), RAS mm; None for identity.

    Returns:
        ``D`` at the voxels of the fixed grid, shape ``(d, *spatial)``, RAS mm, float32 or better.

    Raises:
        InputError: When the affine is sheared, singular, or does not fit the field.

    Example:
        >>> total_displacement(torch.ones(2, 4, 4), torch.diag(torch.tensor([2.0, 3.0, 1.0])))[:, 0, 0]  # mm
        tensor([2., 3.])
    """
    u = _upcast(ddf)
    d = u.shape[0]
    affine = world_affine(fixed_affine, d, "fixed image")
    identity = torch.eye(d + 1, dtype=torch.float64)
    matrix = identity if initial_alignment_matrix is None else _plain(initial_alignment_matrix).double().cpu()
    if matrix.shape != affine.shape:
        raise InputError(
            f"initial_alignment_matrix has shape {tuple(matrix.shape)}, expected {tuple(affine.shape)} for {d}D "
            "images; take the one that ResampleToFixedd gave."
        )
    # T(p + A u) - p = (T - 1) A x + T_lin A_lin u: no large world coordinates are added and subtracted again
    return _affine_of_grid_and_field(matrix @ affine - affine, (matrix @ affine)[:d, :d], u)


def field_of_total(
    displacement: torch.Tensor, fixed_affine: torch.Tensor, initial_alignment_matrix: torch.Tensor
) -> torch.Tensor:
    r"""The field whose :func:`total_displacement` is given: ``u = A_lin^-1 (T^-1(p + D(p)) - p)``, ``p = A x``.

    Args:
        displacement: ``D`` at the voxels of the fixed grid, shape ``(d, *spatial)``, RAS mm.
        fixed_affine: voxel-to-RAS matrix of the fixed grid, shape (d + 1, d + 1) or (4, 4).
        initial_alignment_matrix: ``T``, fixed world to moving world, shape (d + 1, d + 1), RAS mm.

    Returns:
        u, shape ``(d, *spatial)``, voxels, float32 or better.

    Example:
        >>> field_of_total(torch.ones(2, 4, 4), torch.diag(torch.tensor([2.0, 4.0, 1.0])), torch.eye(3))[:, 0, 0]
        tensor([0.5000, 0.2500])
    """
    given = _upcast(displacement)
    d = given.shape[0]
    affine = world_affine(fixed_affine, d, "fixed image")
    back = torch.linalg.inv(_plain(initial_alignment_matrix).double().cpu() @ affine)
    return _affine_of_grid_and_field(back @ affine - torch.eye(d + 1, dtype=torch.float64), back[:d, :d], given)


def inverse_displacement(
    ddf: torch.Tensor,
    fixed_affine: torch.Tensor,
    moving_affine: torch.Tensor,
    moving_shape: Sequence[int],
    initial_alignment_matrix: torch.Tensor | None = None,
) -> torch.Tensor:
    """The displacement of :func:`solved_inverse`, which takes the same arguments, without its residual."""
    return solved_inverse(ddf, fixed_affine, moving_affine, moving_shape, initial_alignment_matrix)[0]


def solved_inverse(
    ddf: torch.Tensor,
    fixed_affine: torch.Tensor,
    moving_affine: torch.Tensor,
    moving_shape: Sequence[int],
    initial_alignment_matrix: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    r"""Displacement from the moving to the fixed world, on the moving grid: it undoes :func:`total_displacement`.

    With a moving voxel :math:`y` and the point :math:`z` that u has to reach,

    .. math:: q + D^{-1}(q) = A (z + v(z)), \qquad q = A_m y, \qquad z = (T A)^{-1} q, \qquad v(z) + u(z + v(z)) = 0,

    solved for each moving voxel by itself, see :func:`~monai_regplugins.inversion.inverse_at`. Beyond the fixed grid u
    continues as at its edge.

    Args:
        ddf: field on the fixed grid, shape ``(d, *spatial)``, voxels.
        fixed_affine: voxel-to-RAS matrix of the fixed grid, shape (d + 1, d + 1) or (4, 4).
        moving_affine: that of the moving grid.
        moving_shape: number of its voxels along each axis.
        initial_alignment_matrix: ``T``, fixed world to moving world, shape (d + 1, d + 1), RAS mm; None for identity.

    Returns:
        The displacement at the voxels of the moving grid, shape ``(d, *moving_shape)``, RAS mm, float32 or better; and
        the distance, in voxels of the fixed grid, between z and where u takes the point that was found, shape
        ``moving_shape``: above 0.001 where no inverse was found, as where the field folds.

    Raises:
        InputError: When an affine is sheared, singular, or does not fit the field.
    """
    u = _upcast(ddf)
    d = u.shape[0]
    fixed, moving = world_affine(fixed_affine, d, "fixed image"), world_affine(moving_affine, d, "moving image")
    identity = torch.eye(d + 1, dtype=torch.float64)
    matrix = identity if initial_alignment_matrix is None else _plain(initial_alignment_matrix).double().cpu()
    to_fixed = torch.linalg.inv(matrix @ fixed) @ moving
    undone, left, shape = u.new_empty(d, *moving_shape), u.new_empty(*moving_shape), tuple(moving_shape)
    for slab in fields.slabs(shape):
        z = affine_field(to_fixed, shape, u.dtype, slab).to(u.device)
        v, missed = inverse_at(u[None], z.flatten(1).T)
        back = affine_field(fixed @ to_fixed - moving, shape, u.dtype, slab).to(u.device)
        undone[:, slab] = back + torch.einsum("kj,j...->k...", fixed[:d, :d].to(u), v.T.view_as(z))
        left[slab] = missed.view_as(z[0])
    return undone, left


def map_to_moving(
    points: torch.Tensor, displacement_ras: torch.Tensor, fixed_affine: torch.Tensor, moving_affine: torch.Tensor
) -> torch.Tensor:
    """Carry points of the fixed image to the moving image.

    Args:
        points: voxels of the fixed grid, shape (N, d).
        displacement_ras: total displacement on the fixed grid, shape ``(d, *spatial)``, RAS mm.
        fixed_affine: voxel-to-RAS matrix of the fixed grid.
        moving_affine: that of the moving grid.

    Returns:
        Voxels of the moving grid, shape (N, d), float64.

    Raises:
        InputError: When an affine is sheared, singular, or does not fit the field.
    """
    d = displacement_ras.shape[0]
    fixed, moving = world_affine(fixed_affine, d, "fixed image"), world_affine(moving_affine, d, "moving image")
    x = points.to(torch.float64)
    world = map_points(x, fixed) + fields.sample_at(_plain(displacement_ras)[None].cpu(), x[None])[0]
    return map_points(world, torch.linalg.inv(moving))


def resample_original(
    moving: torch.Tensor,
    moving_affine: torch.Tensor,
    fixed_affine: torch.Tensor,
    displacement_ras: torch.Tensor,
    mode: str = "linear",
    padding_value: float | None = None,
) -> torch.Tensor:
    """Sample the original moving data once, at each fixed world point plus its displacement.

    The fixed grid is worked on in slabs: beyond what is given and returned, little memory is needed.

    Args:
        moving: data on the moving grid, shape ``(C, *spatial_m)``.
        moving_affine: voxel-to-RAS matrix of the moving grid, shape (d + 1, d + 1) or (4, 4).
        fixed_affine: the same of the fixed grid.
        displacement_ras: on the fixed grid, shape ``(d, *spatial_f)``, RAS mm.
        mode: ``"linear"``, or ``"nearest"`` for labels.
        padding_value: value outside the moving field of view; None for the minimum of ``moving`` (``"nearest"``: 0).

    Returns:
        Data on the fixed grid, shape ``(C, *spatial_f)``, dtype of ``moving``.

    Raises:
        InputError: When an affine is sheared or singular, or ``mode`` is another one.
    """
    check_choice(mode, ("linear", "nearest"), "mode")
    image, displacement = _plain(moving), _upcast(displacement_ras)
    d = displacement.shape[0]
    to_voxel = torch.linalg.inv(world_affine(moving_affine, d, "moving image"))
    matrix = to_voxel @ world_affine(fixed_affine, d, "fixed image")
    if padding_value is None:
        padding_value = _outside(image, mode)
    return sample_affine(image, matrix, displacement.shape[1:], mode, padding_value, to_voxel[:d, :d], displacement)


def resample_aligned(
    moving: MetaTensor, fixed: MetaTensor, alignment: torch.Tensor, mode: str, outside: float | None = None
) -> MetaTensor:
    """Sample the original moving data once, at each fixed world point mapped by a matrix alone.

    Args:
        moving: data on the moving grid, shape ``(C, *spatial_m)``.
        fixed: an image on the fixed grid, shape ``(C, *spatial_f)``.
        alignment: ``T``, fixed world to moving world, shape (d + 1, d + 1), RAS mm.
        mode: ``"linear"``, or ``"nearest"`` for labels.
        outside: what lies beyond the moving field of view; None for the minimum, or label 0.

    Returns:
        Data on the fixed grid, shape ``(C, *spatial_f)``, dtype of ``moving``.

    Raises:
        InputError: When an affine is sheared or singular.
    """
    d = fixed.ndim - 1
    to_voxel = torch.linalg.inv(world_affine(moving.affine, d, "moving image"))
    matrix = to_voxel @ alignment.double() @ world_affine(fixed.affine, d, "fixed image")
    image = _plain(moving)
    beyond = _outside(image, mode) if outside is None else outside
    moved = sample_affine(image, matrix, fixed.shape[1:], mode, beyond)
    return as_meta_tensor(moved, fixed.affine, moving.meta)


def _outside(image: torch.Tensor, mode: str) -> float:
    """What lies beyond the moving field of view."""
    return 0.0 if mode == "nearest" else float(image.min())


class WarpOriginald(Transform):
    """Warp the original moving image (and label) onto the fixed grid, by field and initial alignment, in one sampling.

    Needs ``ddf`` ``(d, *spatial)`` on the grid of ``fixed``, ``moving_original`` and ``initial_alignment_matrix`` as
    :class:`~monai_regplugins.transforms.prepare.ResampleToFixedd` leaves them, and takes ``moving_label_original``
    where there is one. Adds :class:`~monai.data.MetaTensor` entries with the fixed affine: ``displacement``
    ``(d, *spatial, RAS mm)``, ``warped`` and ``warped_label``; and, where not all of the moving image counts (there is
    a ``moving_mask``), ``warped_mask``, boolean, the voxels of ``warped`` that hold nothing else than what counts.

    Example:
        >>> pair = {key: MetaTensor(torch.rand(1, 8, 8)) for key in ("fixed", "moving_original")}
        >>> pair |= {"ddf": torch.zeros(2, 8, 8), "initial_alignment_matrix": torch.eye(3)}
        >>> WarpOriginald()(pair)["warped"].shape
        torch.Size([1, 8, 8])
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Warp the originals of one pair.

        Args:
            data: one item (no batch axis).

        Raises:
            InputError: When the field is not on the fixed grid, or an affine does not fit.
        """
        pair: dict[Hashable, Any] = dict(data)
        fixed, moving = pair["fixed"], pair["moving_original"]
        check_same_size(pair["ddf"].shape[1:], fixed.shape[1:], "the field", "the fixed image")
        displacement = total_displacement(pair["ddf"], fixed.affine, pair["initial_alignment_matrix"])

        def warp(image: MetaTensor, mode: str) -> MetaTensor:
            warped = resample_original(image, image.affine, fixed.affine, displacement, mode)
            return as_meta_tensor(warped, fixed.affine, image.meta)

        pair["displacement"] = as_meta_tensor(displacement, fixed.affine, fixed.meta)
        pair["warped"] = warp(moving, "linear")
        if "moving_label_original" in pair:
            pair["warped_label"] = warp(pair["moving_label_original"], "nearest")
        if "moving_mask" in pair:
            grids = moving.affine, fixed.affine, displacement
            if "moving_mask_original" in pair:
                shares = _plain(pair["moving_mask_original"]).float()
                counts = resample_original(shares, *grids, padding_value=0.0) > COVERED
            else:  # the field of view alone; one number for all voxels
                counts = resample_original(torch.tensor(True).expand(moving.shape), *grids, "nearest")
            pair["warped_mask"] = as_meta_tensor(counts, fixed.affine, moving.meta)
        return pair


def _affine_of_grid_and_field(matrix: torch.Tensor, linear: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """``M x + L u(x)`` at every voxel x of a field ``(d, *spatial)``, slab by slab."""
    values, weights = torch.empty_like(u), linear.to(u)
    for slab in fields.slabs(u.shape[1:]):
        grid = affine_field(matrix, u.shape[1:], u.dtype, slab).to(u.device)
        values[:, slab] = grid.add_(torch.einsum("kj,j...->k...", weights, u[:, slab]))
    return values


def _plain(data: torch.Tensor) -> torch.Tensor:
    """The tensor without metadata."""
    return data.as_tensor() if isinstance(data, MetaTensor) else data


def _upcast(field: torch.Tensor) -> torch.Tensor:
    """A field without metadata, in float32 at least."""
    plain = _plain(field)
    return plain.to(torch.promote_types(plain.dtype, torch.float32))
