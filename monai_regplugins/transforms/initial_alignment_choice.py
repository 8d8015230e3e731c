"""Which initial alignment two scans get: the one that was asked for if it is worth it, or what their content needs."""

from __future__ import annotations

from functools import partial

import torch

from monai_regplugins.transforms.alignment_descent import CORRELATION
from monai_regplugins.transforms.initial_alignment import Alignment, linear_alignment
from monai_regplugins.transforms.pair_log import pair_logger

__all__ = ["auto_matrix", "initial_matrix", "verdict"]

logger = pair_logger(__name__)

STRETCH = 1.5  # anatomy does not stretch more along any direction; a map that does has lost its way
WORTH = 0.3  # of what stays unexplained, that an alignment has to explain to be taken
WORTH_IN_ONE_FRAME = 0.6  # the same where the scanner has aligned the images
MORE_INFORMATION = (1.1, 1.5)  # times the mutual information, that an alignment has to reach, likewise


def initial_matrix(
    kind: str,
    fixed: torch.Tensor,
    fixed_affine: torch.Tensor,
    moving: torch.Tensor,
    moving_affine: torch.Tensor,
    same_frame: bool = False,
    fixed_mask: torch.Tensor | None = None,
    moving_mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the initial alignment of a kind, and log what is to be thought of it.

    Args:
        kind: one of :data:`~monai_regplugins.transforms.initial_alignment.INITIAL_ALIGNMENTS`.
        fixed: intensities, shape ``(1, *spatial)``.
        fixed_affine: voxel-to-world matrix, shape (d + 1, d + 1).
        moving: intensities, shape ``(1, *spatial_m)``.
        moving_affine: voxel-to-world matrix, shape (d + 1, d + 1).
        same_frame: whether both scans have one DICOM frame of reference, for ``auto``.
        fixed_mask: voxels of the fixed image that count, shape ``(1, *spatial)``; all by default.
        moving_mask: the same of the moving image.

    Returns:
        Fixed world to moving world, (d + 1, d + 1), float64, RAS mm.

    Raises:
        InputError: When a mask is empty or not on the grid of its image.
    """
    if kind == "none":
        return torch.eye(fixed_affine.shape[0], dtype=torch.float64)
    images = (fixed, fixed_affine, moving, moving_affine)
    if kind == "auto":
        return auto_matrix(*images, same_frame, fixed_mask, moving_mask)
    found = linear_alignment(*images, kind, fixed_mask, moving_mask)
    logger.info("initial alignment '%s': %s %.3f, before %.3f.", kind, found.metric, found.after, found.before)
    return verdict(found, kind)


def verdict(found: Alignment, kind: str) -> torch.Tensor:
    """Return the matrix of an alignment, or its start where that matches as well; a line of the log says so.

    Args:
        found: the alignment.
        kind: its name, for the log.
    """
    if found.after <= found.before:
        logger.warning(
            "initial alignment '%s' is not used: the %s is %.3f with it and %.3f %s%s.",
            kind,
            found.metric,
            found.after,
            found.before,
            found.start_name,
            f" ({found.doubt})" if found.doubt else "",
        )
        return found.start
    if found.doubt:
        logger.warning("initial alignment '%s' may be wrong: %s; look at the result.", kind, found.doubt)
    return found.matrix


def auto_matrix(
    fixed: torch.Tensor,
    fixed_affine: torch.Tensor,
    moving: torch.Tensor,
    moving_affine: torch.Tensor,
    same_frame: bool = False,
    fixed_mask: torch.Tensor | None = None,
    moving_mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """The alignment that the content of the images needs, and a line of the log that says why.

    An affine map is taken if the images match clearly better with it: if the correlation is nearer to 1 by 30 %, or the
    mutual information is higher by 10 %; of images in one frame of reference, which the scanner has aligned, by 60 %
    and 50 %. Else they stay as they lie. A map that stretches by more than 1.5 gives way to a rigid one. Arguments as
    :func:`initial_matrix`.
    """
    align = partial(linear_alignment, fixed, fixed_affine, moving, moving_affine)
    kind, found = "affine", align("affine", fixed_mask, moving_mask)
    stretch = torch.linalg.svdvals(found.matrix[:-1, :-1])
    if STRETCH * stretch.min() < 1 or stretch.max() > STRETCH:
        kind, found = "rigid", align("rigid", fixed_mask, moving_mask)
    frame = "one frame of reference" if same_frame else "no common frame of reference"
    reported = f"{found.metric} {found.before:.3f} {found.start_name}, {found.after:.3f} with '{kind}', {frame}"
    if found.lies_apart or _is_worth_it(found, same_frame):
        logger.info("initial alignment 'auto' takes '%s': %s.", kind, reported)
        return verdict(found, kind)
    logger.info("initial alignment 'auto' takes 'none': %s.", reported)
    return torch.eye(fixed_affine.shape[0], dtype=torch.float64)


def _is_worth_it(found: Alignment, same_frame: bool) -> bool:
    """Whether the images match clearly better than as they lie."""
    if found.metric == CORRELATION:
        share = WORTH_IN_ONE_FRAME if same_frame else WORTH
        return 1 - found.after < (1 - share) * (1 - found.before)
    return found.after > MORE_INFORMATION[same_frame] * found.before
