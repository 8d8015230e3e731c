r"""Slices that lie unevenly or aslant, brought onto a grid of right angles.

Slice ``k`` lies at ``(c_k, r_k)`` mm within its plane and ``p_k`` along the normal. A gantry that is tilted moves the
origin of each slice within the plane, so the stack is sheared. Here every slice is shifted to where its origin says
(linear, in a frame that holds all of them), and between two neighbors values are linear in ``p``:

.. math:: I(x, y, p) = (1 - w) I_k(x - c_k, y - r_k) + w I_{k+1}(x - c_{k+1}, y - r_{k+1}),
    \quad w = (p - p_k) / (p_{k+1} - p_k)
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

__all__ = ["SliceGrid", "resample_upright", "upright_grid"]

Array = npt.NDArray[Any]
NOTHING = 1e-3  # of a pixel; a shorter way is none


class SliceGrid(NamedTuple):
    """A grid of right angles for slices, in mm within their plane and along their normal.

    Attributes:
        origin: of the grid, (3,).
        shape: voxels along columns, rows and slices.
        spacing: (3,), mm.
    """

    origin: Array
    shape: tuple[int, int, int]
    spacing: Array


def upright_grid(origins: Array, size: tuple[int, int], spacing: Array, even: bool, upright: bool) -> SliceGrid:
    """The grid that holds all slices.

    Args:
        origins: of the slices, sorted along their normal, (n, 3): columns, rows, normal, mm.
        size: pixels of a slice along columns and rows.
        spacing: of its pixels, (2,), mm.
        even: whether the slices lie evenly. Else the new ones are as far apart as the nearest two, but no nearer than
            half the usual distance.
        upright: whether they lie straight above each other. Else the grid is widened to hold them all.
    """
    gaps = np.diff(origins[:, 2])
    length = float(origins[-1, 2] - origins[0, 2])
    distance = length / len(gaps) if even else max(float(gaps.min()), float(np.median(gaps)) / 2)
    count = round(length / distance) + 1
    low, high = origins[:, :2].min(axis=0), origins[:, :2].max(axis=0)
    start = origins[0, :2] if upright else low
    wider = np.zeros(2, int) if upright else np.ceil((high - low) / spacing - NOTHING).astype(int)
    shape = (size[0] + int(wider[0]), size[1] + int(wider[1]), count)
    return SliceGrid(np.array([*start, origins[0, 2]]), shape, np.array([*spacing, length / (count - 1)]))


def resample_upright(values: Array, origins: Array, grid: SliceGrid, upright: bool) -> npt.NDArray[np.float32]:
    """Sample a stack of slices on a grid of right angles.

    Args:
        values: (columns, rows, slices), sorted along the normal.
        origins: as in :func:`upright_grid`.
        grid: what that returned.
        upright: whether slices stay where they are within their plane.

    Returns:
        The values, ``grid.shape``, float32; where no slice has been, the least value of the stack.
    """
    placed = values if upright else _placed(values, origins, grid)
    at = grid.origin[2] + grid.spacing[2] * np.arange(grid.shape[2])
    below = np.clip(np.searchsorted(origins[:, 2], at, side="right") - 1, 0, len(origins) - 2)
    weight = np.clip((at - origins[below, 2]) / np.diff(origins[:, 2])[below], 0, 1)
    sampled = np.empty(grid.shape, np.float32)
    for k, (first, share) in enumerate(zip(below, weight, strict=True)):
        sampled[..., k] = (1 - share) * placed[..., first] + share * placed[..., first + 1]
    return sampled


def _placed(values: Array, origins: Array, grid: SliceGrid) -> Array:
    """Each slice shifted within its plane to where it lies, on the grid's pixels."""
    air = float(values.min())
    frame = np.full((*grid.shape[:2], values.shape[2]), air, np.float32)
    frame[: values.shape[0], : values.shape[1]] = values
    for k, shift in enumerate((origins[:, :2] - grid.origin[:2]) / grid.spacing[:2]):
        frame[..., k] = ndimage.shift(frame[..., k], shift, order=1, mode="constant", cval=air)
    return frame
