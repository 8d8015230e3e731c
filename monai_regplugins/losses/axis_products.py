"""Separable linear maps of an image, as matrix products along each axis."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch.nn import functional

__all__ = ["along_axes", "box_matrix", "interpolation_matrix"]


def along_axes(values: torch.Tensor, matrices: Sequence[torch.Tensor]) -> torch.Tensor:
    """Apply a matrix along each spatial axis; the gradient is the product with the transposed matrices.

    Products need no transposed copies of the image and no graph beside their inputs, and are deterministic on GPUs.

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
        shape = [*values.shape[:axis], len(matrix), *values.shape[axis + 1 :]]
        if axis == values.ndim - 1:
            values = (values.reshape(-1, matrix.shape[1]) @ matrix.T).reshape(shape)
        else:
            planes = values.reshape(-1, matrix.shape[1], math.prod(shape[axis + 1 :]))
            values = torch.matmul(matrix, planes).reshape(shape)
    return values


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
