"""Separable linear maps of an image, as matrix products along each axis."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch.nn import functional

__all__ = ["along_axes", "box_matrix", "gaussian_matrix", "interpolation_matrix", "used_columns"]

LONG, BLOCK = 128, 64  # entries of an axis: those above the first are computed in blocks of rows
CUTOFF = 4.0  # standard deviations, beyond which a Gaussian is 0


def along_axes(values: torch.Tensor, matrices: Sequence[torch.Tensor]) -> torch.Tensor:
    """Apply a matrix along each spatial axis; the gradient is the product with the transposed matrices.

    Products need no transposed copies of the image and no graph beside their inputs, and are deterministic on GPUs. On
    a CPU long axes are computed block by block, with those columns alone that a block of rows has: of sums over windows
    and of interpolation these are few.

    Args:
        values: ``(B, C, *spatial)``.
        matrices: one for each spatial axis, of shape (new, old).

    Returns:
        ``(B, C, *new)``.

    Example:
        >>> along_axes(torch.ones(1, 1, 4, 3), [torch.ones(1, 4), torch.eye(3)])
        tensor([[[[4., 4., 4.]]]])
    """
    for axis, matrix in enumerate(matrices, start=2):
        if min(matrix.shape) > LONG and values.device.type == "cpu":
            values = _by_blocks(values, matrix, axis)
        else:
            values = _product(values, matrix, axis)
    return values


def _by_blocks(values: torch.Tensor, matrix: torch.Tensor, axis: int) -> torch.Tensor:
    """Apply a matrix along an axis, some rows after the other."""
    parts = []
    for rows in matrix.split(BLOCK):
        near = used_columns(rows)
        parts.append(_product(values.narrow(axis, near.start, near.stop - near.start), rows[:, near], axis))
    return torch.cat(parts, dim=axis)


def used_columns(rows: torch.Tensor) -> slice:
    """Return the columns from the first to the last one in which some rows of a matrix are not 0; the first of none.

    Example:
        >>> used_columns(box_matrix(8, 3, 1, torch.ones(()))[3:5])
        slice(2, 6, None)
    """
    used = rows.any(dim=0).nonzero()
    return slice(int(used[0]), int(used[-1]) + 1) if len(used) else slice(0, 1)


def _product(values: torch.Tensor, matrix: torch.Tensor, axis: int) -> torch.Tensor:
    """Apply a matrix along an axis."""
    shape = [*values.shape[:axis], len(matrix), *values.shape[axis + 1 :]]
    if axis == values.ndim - 1:
        return (values.reshape(-1, matrix.shape[1]) @ matrix.T).reshape(shape)
    planes = values.reshape(-1, matrix.shape[1], math.prod(shape[axis + 1 :]))
    return torch.matmul(matrix, planes).reshape(shape)


def box_matrix(size: int, window: int, stride: int, like: torch.Tensor) -> torch.Tensor:
    """Sums over the window around every ``stride``-th voxel of an axis, cut at its ends, ``(windows, size)``.

    The first window is around voxel ``(stride - 1) // 2``; an even one reaches one voxel further on the high side.

    Args:
        size: voxels of the axis.
        window: length of the window in voxels.
        stride: distance between window centers in voxels.
        like: tensor of the wanted type and device.

    Example:
        >>> box_matrix(4, 3, 2, torch.ones(()))
        tensor([[1., 1., 0., 0.],
                [0., 1., 1., 1.]])
    """
    voxels = torch.arange(size, device=like.device)
    offsets = voxels - voxels[(stride - 1) // 2 :: stride, None] if size > (stride - 1) // 2 else voxels[None]
    return ((offsets >= -((window - 1) // 2)) & (offsets <= window // 2)).to(like.dtype)


def gaussian_matrix(size: int, sigma: float, like: torch.Tensor) -> torch.Tensor:
    """Means by a Gaussian along an axis, ``(size, size)``; its ends are mirrored, and each row sums to 1.

    Args:
        size: nodes of the axis.
        sigma: standard deviation, nodes; 0 for the identity.
        like: tensor of the wanted type and device.

    Example:
        >>> gaussian_matrix(3, 1.0, torch.ones(())).sum(dim=1)
        tensor([1., 1., 1.])
    """
    if sigma == 0:
        return torch.eye(size, dtype=like.dtype, device=like.device)
    nodes = torch.arange(size, dtype=torch.float64)  # on the CPU: not every device has this type
    images = math.ceil(CUTOFF * sigma / size)  # mirror images on each side that are near enough to count
    weights = torch.zeros(size, size, dtype=torch.float64)
    for image in range(-images, images + 1):
        mirrored = nodes if image % 2 == 0 else size - 1 - nodes
        distance = (nodes[:, None] - mirrored - image * size) / sigma
        weights += torch.where(distance.abs() <= CUTOFF, torch.exp(-distance.square() / 2), 0)
    return (weights / weights.sum(dim=1, keepdim=True)).to(like.device, like.dtype)


def interpolation_matrix(voxels: int, nodes: int, like: torch.Tensor) -> torch.Tensor:
    """Linear interpolation from nodes to voxels that cover the same length of an axis, ``(voxels, nodes)``.

    Args:
        voxels: voxels of the axis.
        nodes: nodes of the axis.
        like: tensor of the wanted type and device.

    Example:
        >>> interpolation_matrix(4, 2, torch.ones(()))[1]
        tensor([0.7500, 0.2500])
    """
    one_hot = torch.eye(nodes, dtype=like.dtype, device=like.device)[None]
    return functional.interpolate(one_hot, size=voxels, mode="linear", align_corners=False)[0].T.contiguous()
