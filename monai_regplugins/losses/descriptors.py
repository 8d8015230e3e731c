"""Descriptors of images that do not depend on their contrast: MIND, and those of a scripted module."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor
from torch.nn import functional

from monai_regplugins.checks import InputError
from monai_regplugins.losses.axis_products import along_axes, box_matrix

__all__ = ["mind_ssc", "scripted_descriptors"]

SMALLEST_SUPPORT = 1e-6  # pairs of voxels in a patch that count: less is none
RANGE = 1e3  # of the local variance about its mean


def mind_ssc(image: Tensor, weights: Tensor | None = None, radius: int = 1, dilation: int = 1) -> tuple[Tensor, Tensor]:
    r"""Self-similarity context of each voxel (MIND-SSC, Heinrich et al. 2013, MICCAI, LNCS 8149, 187).

    .. math::
        D_{ij}(x) = \frac{\sum_p w(x_i + p) \, w(x_j + p) \, (I(x_i + p) - I(x_j + p))^2}
        {\sum_p w(x_i + p) \, w(x_j + p)}, \qquad
        M_{ij} = \exp\Big(-\frac{D_{ij} - \min D}{V}\Big),

    where :math:`x_i` and :math:`x_j` are two face neighbors of x that lie diagonally to each other, p runs through a
    patch, and V is the mean of all D of the voxel, kept within a factor of 1000 of its mean over the image. 3D has 12
    such pairs among 6 neighbors, 2D 4 among 4. Gain, offset and sign of the intensities do not matter, nor does any
    map of them that keeps apart what was apart.

    Args:
        image: I, ``(1, 1, *spatial)``, 2D or 3D; its border voxels continue beyond it. Of C channels, each has its
            descriptors.
        weights: w, how far each voxel counts, ``(1, 1, *spatial)``; None counts all.
        radius: of the patch, voxels; its edges have ``2 * radius + 1``.
        dilation: distance of the neighbors, voxels.

    Returns:
        Descriptors ``(1, 12, *spatial)``, in 2D ``(1, 4, *spatial)``, from 0 to 1, and the weights of their voxels
        ``(1, 1, *spatial)``: w, but 0 where a patch has no voxel that counts.

    Example:
        >>> image = torch.rand(1, 1, 8, 8, 8)
        >>> descriptors, _ = mind_ssc(image)
        >>> descriptors.shape, torch.allclose(descriptors, mind_ssc(2 - 3 * image)[0], atol=1e-3)
        (torch.Size([1, 12, 8, 8, 8]), True)
    """
    if image.shape[1] > 1:
        of_channels = [mind_ssc(channel, weights, radius, dilation) for channel in image.split(1, dim=1)]
        return torch.cat([descriptors for descriptors, _ in of_channels], dim=1), of_channels[0][1]
    w = torch.ones_like(image) if weights is None else weights.to(image.dtype)
    boxes = [box_matrix(n, 2 * radius + 1, 1, image) for n in image.shape[2:]]
    padded = [functional.pad(part, [dilation] * 2 * len(boxes), mode="replicate") for part in (image, w)]
    distances, supports = list[Tensor](), list[Tensor]()
    for first, second in _diagonal_pairs(len(boxes)):
        a, b, w_a, w_b = (_shifted(part, shift, dilation) for part in padded for shift in (first, second))
        both = w_a * w_b
        support = along_axes(both, boxes)
        distances.append(along_axes((a - b).square_().mul_(both), boxes).div_(support.clamp_min(SMALLEST_SUPPORT)))
        supports.append(support)
    seen = w * (torch.cat(supports, dim=1).amin(dim=1, keepdim=True) > SMALLEST_SUPPORT)
    return _of_distances(torch.cat(distances, dim=1), seen), seen


def scripted_descriptors(module: torch.jit.ScriptModule, image: Tensor) -> Tensor:
    """Descriptors by a TorchScript module, divided by their standard deviation over the image, ``(1, C, *spatial)``.

    Args:
        module: maps the image to ``(1, C, *spatial)``.
        image: ``(1, 1, *spatial)``, or of several channels.

    Raises:
        InputError: the module returns something else, or values that are not finite.

    Example:
        >>> scripted_descriptors(torch.jit.script(torch.nn.Identity()), torch.rand(1, 1, 8, 8)).shape
        torch.Size([1, 1, 8, 8])
    """
    with torch.no_grad():
        found = module.to(image.device)(image)
    if not isinstance(found, Tensor) or found.shape[:1] + found.shape[2:] != image.shape[:1] + image.shape[2:]:
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise InputError(
            f"the module of features returns {shape} for an image {tuple(image.shape)}, expected channels of the same "
            "size; give another module."
        )
    if not bool(torch.isfinite(found).all()):
        raise InputError("the module of features returns NaN or infinity, expected finite values; give another module.")
    found = found.to(image.dtype)
    return found / found.std(correction=0).clamp_min(torch.finfo(found.dtype).eps)


def _diagonal_pairs(d: int) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Pairs of face neighbors along different axes."""
    steps = [tuple(sign * (k == axis) for k in range(d)) for axis in range(d) for sign in (-1, 1)]
    return [(a, b) for a, b in itertools.combinations(steps, 2) if sum(x * y for x, y in zip(a, b, strict=True)) == 0]


def _shifted(padded: Tensor, step: tuple[int, ...], dilation: int) -> Tensor:
    """The values of the neighbors in one direction."""
    for axis, s in enumerate(step, start=2):
        padded = padded.narrow(axis, dilation * (1 + s), padded.shape[axis] - 2 * dilation)
    return padded


def _of_distances(distances: Tensor, seen: Tensor) -> Tensor:
    """Descriptors from the distances of patches."""
    distances -= distances.amin(dim=1, keepdim=True)
    variance = distances.mean(dim=1, keepdim=True)
    mean = (variance * seen).sum() / seen.sum().clamp_min(SMALLEST_SUPPORT)
    least = max(float(mean) / RANGE, torch.finfo(distances.dtype).tiny)
    return distances.div_(variance.clamp_(least, max(float(mean) * RANGE, least))).neg_().exp_()
