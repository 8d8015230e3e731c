r"""Random smooth noise, and random motion with a known displacement: smooth on several scales, affine, and sliding.

Noise is a sum of Gaussians on a coarse grid of nodes p, with weights of unit sum of squares so that its variance is one
everywhere:

.. math::
    n(x) = \sum_p a_p \prod_k w_k(x_k, p_k), \qquad w_k(x, p) \propto e^{-(x - p)^2 / 2 \sigma_k^2},
    \qquad a_p \sim N(0, 1).

Its autocorrelation is close to :math:`e^{-|d|^2 / 4 \sigma^2}`. As the weights separate it costs three small matrix
products. Multi-scale fields of this kind are those of SynthMorph (Hoffmann et al. 2022, IEEE TMI 41(3), 543).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from monai_regplugins import fields
from monai_regplugins.checks import InputError
from monai_regplugins.synthesis.ran_fields import affine_displacement, image_center

__all__ = ["Motion", "RandomMotion", "smooth_noise"]

LEAST_DETERMINANT = 0.1  # of the smooth part


class Motion(NamedTuple):
    r"""A motion whose displacement is known.

    Attributes:
        ddf: displacement of the fixed grid, ``(d, *spatial)`` voxels.
        region: which part of the moving space slides, boolean, on the grid with the margin; all False if nothing does.
    """

    ddf: torch.Tensor
    region: torch.Tensor


@dataclass(frozen=True)
class RandomMotion:
    r"""Draws motions :math:`T(x) = S(x + s(x))`, the known displacement of which is :math:`u(x) = T(x) - x`.

    The smooth part s is a random mixture of an affine displacement and noise on two scales, scaled to a peak and then
    down until the determinant of its Jacobian is at least 0.1 everywhere. The sliding part

    .. math::
        S(y) = y + h \, (\tfrac{1}{2} - [y \in R]) \, e_k

    moves a region R of the moving space along axis k against the rest. R is a cylinder along k, so the motion is
    tangential to its surface: nothing tears, nothing overlaps, and R is the same region after the slide.

    The peak is log-uniform, so that small motions are as frequent as large ones.

    Args:
        largest: longest displacement, a share of the shortest axis, at most a half.
        octaves: how many halvings below it the smallest peak lies.
        still: probability of no motion at all.
        sliding: probability of a slide.

    Raises:
        InputError: A number is out of its range.

    Example:
        >>> motion = RandomMotion()(np.random.default_rng(0), (16, 16, 16), margin=4)
        >>> motion.ddf.shape, motion.region.shape
        (torch.Size([3, 16, 16, 16]), torch.Size([24, 24, 24]))
    """

    largest: float = 1 / 3
    octaves: float = 6.0
    still: float = 0.1
    sliding: float = 0.3

    def __post_init__(self) -> None:
        """Check the numbers."""
        if not 0 < self.largest <= 0.5:
            raise InputError(f"largest is {self.largest}, expected a share above 0, at most 0.5.")
        if not self.octaves >= 0:
            raise InputError(f"octaves is {self.octaves}, expected 0 or more.")
        for name, value in {"still": self.still, "sliding": self.sliding}.items():
            if not 0 <= value <= 1:
                raise InputError(f"{name} is {value}, expected a probability from 0 to 1.")

    def __call__(self, rng: np.random.Generator, shape: Sequence[int], margin: int) -> Motion:
        """Draw a motion of a grid of ``shape`` voxels; the moving space reaches ``margin`` voxels further."""
        canvas = [n + 2 * margin for n in shape]
        if rng.random() < self.still:
            return Motion(torch.zeros(len(shape), *shape), torch.zeros(canvas, dtype=torch.bool))
        peak = self.largest * min(shape) * 2.0 ** -rng.uniform(0, self.octaves)
        if rng.random() >= self.sliding:
            return Motion(smooth_displacement(rng, shape, peak), torch.zeros(canvas, dtype=torch.bool))
        height = peak * rng.uniform(0.2, 1.0)
        ddf = smooth_displacement(rng, shape, peak - height / 2)
        axis = int(rng.integers(len(shape)))
        wall = _wall(rng, canvas, axis)
        reached = fields.warp(wall[None, None], (ddf + margin)[None], padding="border")[0, 0] > 0
        ddf[axis] += height * (0.5 - reached.float()) * rng.choice((-1.0, 1.0))
        return Motion(ddf, wall > 0)


def smooth_noise(
    rng: np.random.Generator, shape: Sequence[int], sigma: float | Sequence[float], channels: int = 1
) -> torch.Tensor:
    """Draw Gaussian noise of mean zero and variance one, ``(channels, *shape)``, see the module.

    Args:
        rng: source of the random numbers.
        shape: voxels along each axis.
        sigma: standard deviation of the Gaussians in voxels, one number or one per axis; infinite for noise that does
            not depend on that axis.
        channels: so many independent ones.
    """
    weights = [_node_weights(n, float(s)) for n, s in zip(shape, np.broadcast_to(sigma, len(shape)), strict=True)]
    nodes = rng.standard_normal((channels, *(w.shape[1] for w in weights)), dtype=np.float32)
    return separable_product(torch.from_numpy(nodes), weights)


def separable_product(values: torch.Tensor, matrices: Sequence[torch.Tensor]) -> torch.Tensor:
    """Multiply ``(C, *sizes)`` by one matrix ``(new, size)`` along each axis: ``(C, *news)``."""
    values = values @ matrices[-1].T
    for k, matrix in enumerate(matrices[:-1], start=1):  # products of large matrices, without a permutation
        rows, rest = values.shape[:k], values.shape[k + 1 :]
        values = (matrix @ values.reshape(*rows, matrix.shape[1], math.prod(rest))).view(*rows, -1, *rest)
    return values


def smooth_displacement(rng: np.random.Generator, shape: Sequence[int], peak: float) -> torch.Tensor:
    """Draw a smooth displacement without folding, its longest vector at most ``peak``, ``(d, *shape)`` voxels."""
    size = float(min(shape))
    parts = [_affine(rng, shape), *(smooth_noise(rng, shape, size / rng.uniform(*r), len(shape)) for r in SCALES)]
    shares = rng.dirichlet(np.ones(len(parts)))
    field = torch.stack([share * part / _longest(part) for share, part in zip(shares.tolist(), parts, strict=True)])
    ddf = field.sum(0)
    ddf *= peak / _longest(ddf)
    while fields.jacobian_determinant(ddf[None]).min() < LEAST_DETERMINANT:
        ddf *= 0.85
    return ddf


SCALES = ((2.0, 4.0), (4.0, 9.0))  # the shortest axis divided by the noise's sigma


def _affine(rng: np.random.Generator, shape: Sequence[int]) -> torch.Tensor:
    """An affine displacement of any size: mostly rotation and translation."""
    d = len(shape)
    matrix = rng.standard_normal((d, d))
    matrix = (matrix - matrix.T) + 0.3 * (matrix + matrix.T)
    linear = torch.eye(d) + torch.from_numpy(matrix).float() / min(shape)
    shift = torch.from_numpy(rng.standard_normal(d)).float()
    return affine_displacement(fields.identity_grid(tuple(shape)), linear, image_center(shape), shift)


def _wall(rng: np.random.Generator, canvas: Sequence[int], axis: int) -> torch.Tensor:
    """A function that is positive in a random cylinder along an axis."""
    sigma = [min(canvas) / rng.uniform(4, 8)] * len(canvas)
    sigma[axis] = math.inf
    return smooth_noise(rng, canvas, sigma)[0] + rng.uniform(-0.5, 0.5)


def _node_weights(n: int, sigma: float) -> torch.Tensor:
    """Weights of nodes at most ``sigma`` apart, ``(n, nodes)``, of unit sum of squares for each voxel."""
    if math.isinf(sigma):
        return torch.ones(n, 1)
    nodes = torch.linspace(-2 * sigma, n - 1 + 2 * sigma, math.ceil((n - 1) / sigma) + 5)
    weights = torch.exp(-0.5 * ((torch.arange(n)[:, None] - nodes) / sigma) ** 2)
    normalized: torch.Tensor = weights / torch.linalg.vector_norm(weights, dim=1, keepdim=True)
    return normalized


def _longest(ddf: torch.Tensor) -> float:
    return max(math.sqrt(float(ddf.square().sum(dim=0).max())), 1e-6)
