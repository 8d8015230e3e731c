r"""Where two images may fit, looked for at all places and many rotations, before any descent.

At a coarse resolution and for each of a set of rotations, the normalized correlation of the two images at **every**
translation follows from a few Fourier transforms, with masks and over the common part alone (Padfield, "Masked Object
Registration in the Fourier Domain", IEEE Trans. Image Processing 21, 2012).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.fft import next_fast_len
from scipy.spatial.transform import Rotation

from monai_regplugins.grids import map_points, sample_affine, voxel_spacing
from monai_regplugins.transforms.alignment_scan import HALF, Scan, coarser

__all__ = ["Start", "find_starts", "rotations"]

EDGES = 16  # voxels along the longest axis of both images
TURNS = {2: 24, 3: 256}  # rotations, 15 degrees apart in 2D and about 35 degrees in 3D
BATCH = 8  # rotations at once, so that their transforms stay in the cache
SMALLEST_OVERLAP = 0.5  # of the smaller image; anything matches where hardly anything is compared
FLATTEST = 0.05  # of an image's variance, added to that of the common part, for air matches air


class Start(NamedTuple):
    """A place where the images may fit.

    Attributes:
        score: normalized correlation at the coarse resolution.
        matrix: fixed world to moving world, (d + 1, d + 1).
    """

    score: float
    matrix: torch.Tensor


class _Grid(NamedTuple):
    """A grid of cubic voxels: voxel-to-world matrix and size."""

    affine: torch.Tensor
    shape: tuple[int, ...]


def rotations(d: int) -> torch.Tensor:
    """Rotations that are spread evenly, no rotation first, shape (N, d, d), float64.

    In 3D they are the super-Fibonacci spiral (Alexa, "Super-Fibonacci Spirals: Fast, Low-Discrepancy Sampling of
    SO(3)", CVPR 2022).

    Example:
        >>> rotations(2)[6].round()  # 90 degrees
        tensor([[ 0., -1.],
                [ 1.,  0.]], dtype=torch.float64)
    """
    if d == 2:
        angles = 2 * math.pi * np.arange(TURNS[2]) / TURNS[2]
        turns = np.stack([np.cos(angles), -np.sin(angles), np.sin(angles), np.cos(angles)], axis=1).reshape(-1, 2, 2)
        return torch.from_numpy(turns)
    n = TURNS[3]
    step = np.arange(n) + 0.5
    radius, angle = np.sqrt(step / n), 2 * math.pi * step
    other = np.sqrt(1 - step / n)
    a, b = angle / math.sqrt(2), angle / 1.533751168755204288118041  # psi^4 = psi + 4
    spiral = np.stack([radius * np.sin(a), radius * np.cos(a), other * np.sin(b), other * np.cos(b)], axis=1)
    return torch.from_numpy(np.concatenate([np.eye(3)[None], Rotation.from_quat(spiral).as_matrix()]))


def find_starts(fixed: Scan, moving: Scan) -> list[Start]:
    """Return the best translation of each rotation, best first.

    Args:
        fixed: the fixed image.
        moving: the moving image.
    """
    d = fixed.image.ndim - 1
    edge = max(float(_extent(scan).max()) for scan in (fixed, moving)) / EDGES
    turns = rotations(d)
    axes = fixed.affine[:d, :d] / voxel_spacing(fixed.affine, d)
    fixed_grid = _cubic_grid(fixed, axes, edge, _extent(fixed))
    longest = torch.full((d,), float(_extent(moving).max()), dtype=torch.float64)
    moving_grids = [_cubic_grid(moving, turn @ axes, edge, longest) for turn in turns]
    fixed_values = _on_grid(coarser(fixed, edge), fixed_grid)
    source = coarser(moving, edge)
    starts = []
    for begin in range(0, len(turns), BATCH):
        grids = moving_grids[begin : begin + BATCH]
        scores = _correlations(fixed_values, [_on_grid(source, grid) for grid in grids])
        starts += [
            Start(score, _matrix(fixed_grid, grid, shift)) for grid, (score, shift) in zip(grids, scores, strict=True)
        ]
    return sorted(starts, key=lambda start: -start.score)


def _extent(scan: Scan) -> torch.Tensor:
    """Lengths of the axes, mm."""
    shape = scan.image.shape[1:]
    return voxel_spacing(scan.affine, len(shape)).double() * torch.tensor(shape, dtype=torch.float64)


def _cubic_grid(scan: Scan, axes: torch.Tensor, edge: float, extent: torch.Tensor) -> _Grid:
    """Voxels of one ``edge`` along ``axes`` about the middle of an image."""
    d = len(axes)
    shape = [max(1, math.ceil(float(length) / edge - 1e-6)) for length in extent]
    middle = map_points((torch.tensor([scan.image.shape[1:]], dtype=torch.float64) - 1) / 2, scan.affine)[0]
    affine = torch.eye(d + 1, dtype=torch.float64)
    affine[:d, :d] = axes * edge
    affine[:d, d] = middle - affine[:d, :d] @ ((torch.tensor(shape, dtype=torch.float64) - 1) / 2)
    return _Grid(affine, tuple(shape))


def _on_grid(scan: Scan, grid: _Grid) -> torch.Tensor:
    """Values and 0 or 1 for what counts, ``(2, *shape)``, of an image that ends at its border."""
    both = torch.cat([scan.image * scan.weight, scan.weight])
    matrix = torch.linalg.inv(scan.affine) @ grid.affine
    weighted, weight = sample_affine(both, matrix, grid.shape, "linear", 0.0)
    counts = weight > HALF
    return torch.stack([torch.where(counts, weighted / weight.clamp(min=HALF), 0.0), counts.float()])


def _correlations(fixed: torch.Tensor, moving: Sequence[torch.Tensor]) -> Iterator[tuple[float, torch.Tensor]]:
    """The highest correlation with each moving image, and at which translation in voxels."""
    d = fixed.ndim - 1
    sizes = [fixed.shape[1:], moving[0].shape[1:]]
    padded = [next_fast_len(n + m - 1, real=True) for n, m in zip(*sizes, strict=True)]
    first, second = _transformed(fixed[None], padded).conj(), _transformed(torch.stack(list(moving)), padded)
    pairs = ((0, 0), (1, 0), (2, 0), (0, 1), (0, 2), (1, 1))  # powers of the fixed and of the moving intensities
    sums = [torch.fft.irfftn(first[:, i] * second[:, j], s=padded, dim=list(range(-d, 0))) for i, j in pairs]
    scores = _score(sums, fixed, torch.stack(list(moving)))
    best, place = scores.flatten(1).max(dim=1)
    for score, index in zip(best.tolist(), place.tolist(), strict=True):
        shift = torch.tensor(np.unravel_index(index, padded), dtype=torch.float64)
        yield score, torch.where(shift >= torch.tensor(sizes[1]), shift - torch.tensor(padded), shift)


def _transformed(images: torch.Tensor, padded: Sequence[int]) -> torch.Tensor:
    """Fourier transforms (B, 3, ...) of mask, intensities and their squares, about their mean."""
    values, counts = images.unbind(dim=1)
    dims = list(range(1, values.ndim))
    mean = values.sum(dim=dims, keepdim=True) / counts.sum(dim=dims, keepdim=True).clamp(min=1)
    centered = (values - mean) * counts
    powers = torch.stack([counts, centered, centered**2], dim=1)
    transformed: torch.Tensor = torch.fft.rfftn(powers, s=list(padded), dim=[d + 1 for d in dims])
    return transformed


def _score(sums: Sequence[torch.Tensor], fixed: torch.Tensor, moving: torch.Tensor) -> torch.Tensor:
    """Normalized correlation over the common part, -1 where that is small."""
    n, f, ff, m, mm, fm = sums
    count = n.clamp(min=1.0)
    spread = [_variance(fixed[None]), _variance(moving)]
    floors = [FLATTEST * value.reshape(-1, *[1] * (n.ndim - 1)) * count for value in spread]
    square = ((ff - f * f / count).clamp(min=0) + floors[0]) * ((mm - m * m / count).clamp(min=0) + floors[1])
    score = (fm - f * m / count) / square.clamp(min=torch.finfo(n.dtype).tiny).sqrt()
    smaller = torch.minimum(fixed[1].sum(), moving[:, 1].flatten(1).sum(dim=1).max())
    return torch.where(n >= SMALLEST_OVERLAP * smaller, score, -1.0)


def _variance(images: torch.Tensor) -> torch.Tensor:
    """Variance of the intensities that count, (B,)."""
    values, counts = images.flatten(2).unbind(dim=1)
    number = counts.sum(dim=1).clamp(min=1)
    mean = values.sum(dim=1) / number
    return ((values - mean[:, None]) ** 2 * counts).sum(dim=1) / number


def _matrix(fixed: _Grid, moving: _Grid, shift: torch.Tensor) -> torch.Tensor:
    """The map that carries fixed voxel i to moving voxel i + shift of the turned grid."""
    moved = torch.eye(len(shift) + 1, dtype=torch.float64)
    moved[:-1, -1] = shift
    matrix: torch.Tensor = moving.affine @ moved @ torch.linalg.inv(fixed.affine)
    return matrix
