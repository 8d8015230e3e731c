"""Remove the folds of a field: smooth it where it folds, and nowhere else."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from monai_regplugins.inferers.observed_pair import gaussian_mean
from monai_regplugins.metrics.regularity import folds_strict

__all__ = ["unfold", "unfolded_field"]

ROUNDS = 50  # of smoothing, at most
SIGMA = 0.75  # nodes, or voxels, of a round


def unfold(ddf: Tensor, sigma: float = SIGMA) -> None:
    """Smooth a field in place around its folds, round by round, until there are none, or for 50 rounds.

    Folds are those of :func:`~monai_regplugins.metrics.folding_strict`. A Gaussian smooths the voxels that fold and
    their neighbors; all others stay as they are. After the first round only the box around the folds is looked at.

    Args:
        ddf: the field, ``(1, d, *spatial)`` in voxels.
        sigma: standard deviation of the Gaussian, voxels.

    Example:
        >>> ddf = torch.zeros(1, 2, 12, 12)
        >>> ddf[:, 0, 6] = -3.0  # a row that changes places with others
        >>> unfold(ddf)
        >>> bool(folds_strict(ddf[0]).any()), ddf[0, 0, 0, 0]
        (False, tensor(0.))
    """
    around = math.ceil(4 * sigma) + 3  # what a smoothed voxel and the determinants next to it depend on
    folds = folds_strict(ddf[0])
    for _ in range(ROUNDS):
        if not bool(folds.any()):
            return
        box = _box(folds, around)
        within: tuple[Any, ...] = (0, slice(None), *box)
        part, marked = ddf[within][None], folds[box]
        near = _dilated(marked[None, None].float(), list(marked.shape))
        part.copy_(torch.where(near, gaussian_mean(part, sigma), part))
        folds[box] = folds_strict(part[0])


def unfolded_field(velocity: Tensor, field_of: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the field of a velocity that is smoothed at the nodes around its folds, as :func:`unfold` does.

    The exponential of a smooth velocity does not fold. That of a rough one may, as far as the grid does not resolve it.

    Args:
        velocity: ``(1, d, *nodes)``.
        field_of: returns the field ``(1, d, *spatial)`` of a velocity.

    Returns:
        The field, ``(1, d, *spatial)`` in voxels.

    Example:
        >>> from monai_regplugins import fields
        >>> unfolded_field(torch.full((1, 2, 8, 8), 0.5), fields.exponential).unique()
        tensor([0.5000])
    """
    ddf = field_of(velocity)
    for _ in range(ROUNDS):
        folds = folds_strict(ddf[0])
        if not bool(folds.any()):
            break
        near = _dilated(folds[None, None].float(), list(velocity.shape[2:]))
        velocity = torch.where(near, gaussian_mean(velocity, SIGMA), velocity)
        ddf = field_of(velocity)
    return ddf


def _box(marked: Tensor, around: int) -> tuple[slice, ...]:
    """The box of all marked voxels ``(*spatial)`` and so many around it."""
    found = []
    for axis in range(marked.ndim):
        lines = marked.movedim(axis, 0).flatten(1).any(dim=1).nonzero()
        found.append(slice(max(0, int(lines[0]) - around), int(lines[-1]) + around + 1))
    return tuple(found)


def _dilated(marked: Tensor, size: list[int]) -> Tensor:
    """At another size, where anything is marked or a neighbor is."""
    d = len(size)
    pool = (functional.adaptive_max_pool2d, functional.adaptive_max_pool3d)[d - 2]
    widen = (functional.max_pool2d, functional.max_pool3d)[d - 2]
    return widen(pool(marked, size), 3, 1, 1) > 0
