"""Remove the folds of a field: smooth it where it folds, and nowhere else."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from monai_regplugins.inferers.gaussian import gaussian_mean
from monai_regplugins.metrics.regularity import folds_strict

__all__ = ["unfold", "unfolded_field"]

Box: TypeAlias = tuple[slice, ...]

ROUNDS = 50  # of smoothing, at most
TILE = 64  # voxels along a side of the parts that are smoothed at once
SIGMA = 0.75  # nodes, or voxels, of a round


def unfold(ddf: Tensor, sigma: float = SIGMA) -> None:
    """Smooth a field in place around its folds, round by round, until there are none, or for 50 rounds.

    Folds are those of :func:`~monai_regplugins.metrics.folding_strict`. A Gaussian smooths the voxels that fold and
    their neighbors; all others stay as they are. Only boxes around the folds are looked at, tile by tile.

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
        tiles = list(_tiles(folds, around))
        if not tiles:
            return
        for box, marked in tiles:
            within: tuple[Any, ...] = (0, slice(None), *box)
            part = ddf[within][None]
            near = _dilated(marked[None, None].float(), list(marked.shape))
            part.copy_(torch.where(near, gaussian_mean(part, sigma), part))
        for box, _ in tiles:
            within = (0, slice(None), *box)
            inner, kept = _inner(box, folds.shape)
            folds[inner] = folds_strict(ddf[within])[kept]


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


def _tiles(folds: Tensor, around: int) -> Iterator[tuple[Box, Tensor]]:
    """The box of the folds in each tile of 64 voxels a side, and so many voxels around them; the tile's folds in it."""
    for corner in itertools.product(*(range(0, n, TILE) for n in folds.shape)):
        tile = folds[tuple(slice(start, start + TILE) for start in corner)]
        if not bool(tile.any()):
            continue
        places = tile.nonzero() + torch.tensor(corner, device=tile.device)
        ends = zip(places.amin(dim=0).tolist(), places.amax(dim=0).tolist(), folds.shape, strict=True)
        box: Box = tuple(slice(max(0, low - around), min(n, high + around + 1)) for low, high, n in ends)
        marked = torch.zeros_like(folds[box])
        marked[tuple((places - torch.tensor([side.start for side in box], device=tile.device)).unbind(dim=1))] = True
        yield box, marked


def _inner(box: Box, shape: Sequence[int]) -> tuple[Box, Box]:
    """A box without its outermost voxels, whose determinants need the next ones, except at the ends of the grid.

    Returns:
        It, on the grid and within the box.
    """
    first = [int(side.start > 0) for side in box]
    size = [side.stop - side.start - int(side.stop < n) for side, n in zip(box, shape, strict=True)]
    sides = list(zip(box, first, size, strict=True))
    return tuple(slice(s.start + f, s.start + n) for s, f, n in sides), tuple(slice(f, n) for _, f, n in sides)


def _dilated(marked: Tensor, size: list[int]) -> Tensor:
    """At another size, where anything is marked or a neighbor is."""
    d = len(size)
    pool = (functional.adaptive_max_pool2d, functional.adaptive_max_pool3d)[d - 2]
    widen = (functional.max_pool2d, functional.max_pool3d)[d - 2]
    return widen(pool(marked, size), 3, 1, 1) > 0
