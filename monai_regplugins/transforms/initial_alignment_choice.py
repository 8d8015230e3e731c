"""Which pre-alignment two scans need, judged by where their headers put them in the world."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch

from monai_regplugins.checks import InputError
from monai_regplugins.grids import (
    inside_mask,
    offset_field,
    rescaled_affine,
    voxel_spacing,
)
from monai_regplugins.transforms.initial_alignment import affine_matrix, moments_matrix

__all__ = ["auto_matrix", "choose_prealignment", "field_of_view_overlap"]

logger = logging.getLogger(__name__)

FAR = 0.25  # overlap of the fields of view below which their world coordinates have nothing to do with each other
NEAR = 0.9  # overlap from which on they show the same place
CLOSE = 0.1  # of the shortest edge of the fixed image, by which the centers of mass may differ there
STRETCH = 1.5  # anatomy does not stretch more along any direction; a map that does has lost its way
LATTICE = 16  # points along each axis that tell how far fields of view overlap


def field_of_view_overlap(
    fixed_shape: Sequence[int],
    fixed_affine: torch.Tensor,
    moving_shape: Sequence[int],
    moving_affine: torch.Tensor,
) -> float:
    """Share, 0 to 1, of the smaller field of view that lies in the other one, counted on 16 points along each axis.

    Fields of view end at the outer faces of their border voxels.

    Args:
        fixed_shape: voxels along each axis.
        fixed_affine: voxel-to-world matrix, shape (d + 1, d + 1).
        moving_shape: voxels along each axis of the moving image.
        moving_affine: voxel-to-world matrix of the moving image, shape (d + 1, d + 1).
    """

    def share(shape: Sequence[int], affine: torch.Tensor, other: Sequence[int], other_affine: torch.Tensor) -> float:
        lattice = [LATTICE] * len(shape)
        to_other = torch.linalg.inv(other_affine) @ rescaled_affine(affine, shape, lattice)
        return float(inside_mask(offset_field(to_other, lattice, torch.float64), other).double().mean())

    return max(
        share(fixed_shape, fixed_affine, moving_shape, moving_affine),
        share(moving_shape, moving_affine, fixed_shape, fixed_affine),
    )


def choose_prealignment(
    fixed: torch.Tensor,
    fixed_affine: torch.Tensor,
    moving: torch.Tensor,
    moving_affine: torch.Tensor,
    same_frame: bool = False,
    fixed_mask: torch.Tensor | None = None,
    moving_mask: torch.Tensor | None = None,
) -> tuple[str, str]:
    """Choose a pre-alignment by where two scans lie in the world.

    The first of these rules that holds, with the overlap of :func:`field_of_view_overlap`:

    1. overlap below 25 %: ``moments``, for the coordinates have nothing to do with each other;
    2. one frame of reference: ``none``, for the scanner has aligned the images;
    3. overlap of 90 % or more, and centers of mass no farther apart than 10 % of the fixed image's shortest edge:
       ``none``;
    4. otherwise: ``affine``, which starts at the centers of mass.

    Args:
        fixed: intensities, shape ``(1, *spatial)``.
        fixed_affine: voxel-to-world matrix, shape (d + 1, d + 1).
        moving: intensities, shape ``(1, *spatial_m)``.
        moving_affine: voxel-to-world matrix, shape (d + 1, d + 1).
        same_frame: whether both scans have one DICOM frame of reference.
        fixed_mask: voxels of the fixed image that count for its center, shape ``(1, *spatial)``; all by default.
        moving_mask: the same of the moving image.

    Returns:
        The choice and its reason, in words.
    """
    overlap = field_of_view_overlap(fixed.shape[1:], fixed_affine, moving.shape[1:], moving_affine)
    moments = moments_matrix(fixed, fixed_affine, moving, moving_affine, fixed_mask, moving_mask)
    distance = float(moments[:-1, -1].norm())
    d = fixed.ndim - 1
    edge = float((voxel_spacing(fixed_affine, d) * torch.tensor(fixed.shape[1:])).min())
    frame = "one frame of reference" if same_frame else "no common frame of reference"
    reason = f"the images' fields of view overlap by {overlap:.0%}, their centers are {distance:.0f} mm apart, {frame}"
    if overlap < FAR:
        return "moments", reason
    if same_frame or (overlap >= NEAR and distance <= CLOSE * edge):
        return "none", reason
    return "affine", reason


def auto_matrix(
    fixed: torch.Tensor,
    fixed_affine: torch.Tensor,
    moving: torch.Tensor,
    moving_affine: torch.Tensor,
    same_frame: bool = False,
    fixed_mask: torch.Tensor | None = None,
    moving_mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """The pre-alignment that :func:`choose_prealignment` takes, and a line of the log that says why.

    An affine map that fails, stretches by more than 1.5 or leaves the moving image gives way to ``moments``.
    Arguments as :func:`choose_prealignment`.
    """
    masks: dict[str, Any] = {"fixed_mask": fixed_mask, "moving_mask": moving_mask}
    choice, reason = choose_prealignment(fixed, fixed_affine, moving, moving_affine, same_frame, **masks)
    logger.info("prealign 'auto' takes '%s': %s.", choice, reason)
    if choice == "none":
        return torch.eye(fixed_affine.shape[0], dtype=torch.float64)
    if choice == "affine":
        try:
            matrix = affine_matrix(fixed, fixed_affine, moving, moving_affine, **masks)
            stretch = torch.linalg.svdvals(matrix[:-1, :-1])
            overlap = field_of_view_overlap(fixed.shape[1:], matrix @ fixed_affine, moving.shape[1:], moving_affine)
            if STRETCH * stretch.min() >= 1 and stretch.max() <= STRETCH and overlap >= FAR:
                return matrix
        except InputError:
            pass
        logger.warning("prealign 'auto' takes 'moments' after all: the affine registration found no sensible map.")
    return moments_matrix(fixed, fixed_affine, moving, moving_affine, **masks)
