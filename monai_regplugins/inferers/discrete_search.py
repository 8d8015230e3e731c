"""A field from nothing: coupled convex optimization over a set of displacements of a coarse grid."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from monai_regplugins import fields
from monai_regplugins.losses.axis_products import along_axes, box_matrix, interpolation_matrix
from monai_regplugins.losses.descriptors import mind_ssc
from monai_regplugins.losses.instance import WeightedImage

__all__ = ["discrete_field"]

COUPLINGS = (0.015, 0.05, 0.15, 0.5, 1.5, 5.0)  # deviations of the costs per variance of the displacements
MOST_DENSE = 13**3  # displacements
SYMMETRIC_STEPS = 15
LEAST_SHARE = 0.1  # of the voxels of a node that has to be compared


def discrete_field(moving: WeightedImage, fixed: WeightedImage, reach: int, spacing: int = 2) -> Tensor:
    r"""Search displacements of up to some voxels along each axis, and couple them to a smooth field.

    With the distance of MIND descriptors c at the nodes x of a coarse grid,

    .. math::
        d_k(x) = \arg\min_d \; c(x, d) + \theta_k \, |d - u_{k-1}(x)|^2, \qquad u_k = S d_k,

    for growing :math:`\theta` and a smoothing S, see Heinrich et al. 2014 (MICCAI, LNCS 8674, 731) and Siebert et al.
    2021 (ConvexAdam). The fields of both directions are made inverse to each other. Costs are kept at the nodes only:
    ``(2 * reach + 1) ** d`` of them each. Where these are many, in 3D beyond a reach of six voxels, only every second
    displacement along each axis is tried, in an eighth of the time, and the field is off by up to a voxel.

    Args:
        moving: the moving image, at the size of the search.
        fixed: the fixed image, on the same grid.
        reach: largest displacement along each axis, voxels.
        spacing: voxels from node to node.

    Returns:
        The field ``(1, d, *spatial)`` in voxels.

    Example:
        >>> image = torch.rand(1, 1, 24, 24)
        >>> pair = WeightedImage(image.roll(5, 2)), WeightedImage(image)
        >>> discrete_field(*pair, reach=6)[0, 0, 8:16].round().median()
        tensor(5.)
    """
    sizes = fixed.image.shape[2:]
    of_fixed, of_moving = mind_ssc(*fixed), mind_ssc(*moving)
    matrices = [interpolation_matrix(n, -(-n // spacing), fixed.image) for n in sizes]
    step = 1 if (2 * reach + 1) ** len(sizes) <= MOST_DENSE else 2
    reach = step * -(-reach // step)
    steps = range(-reach, reach + 1, step)
    space = torch.tensor(list(itertools.product(steps, repeat=len(sizes)))).to(fixed.image)
    forward = _coupled(_costs(of_fixed, of_moving, space, reach, matrices), space)
    backward = _coupled(_costs(of_moving, of_fixed, space, reach, matrices), space)
    scale = fixed.image.new_tensor([n / m.shape[1] for n, m in zip(sizes, matrices, strict=True)])
    return along_axes(_symmetric(forward, backward, scale.view(1, -1, *[1] * len(sizes))), matrices)


def _costs(
    fixed: tuple[Tensor, Tensor], moving: tuple[Tensor, Tensor], space: Tensor, reach: int, matrices: list[Tensor]
) -> Tensor:
    """The mean squared difference at each node under each displacement, ``(displacements, *nodes)``."""
    (f, w), (m, seen), back = fixed, moving, [matrix.T for matrix in matrices]
    around = [reach] * (2 * len(matrices))
    m, seen = functional.pad(m, around, mode="replicate"), functional.pad(seen, around)
    whole = along_axes(torch.ones_like(w), back)
    costs = []
    for step in space.long().tolist():
        at: tuple[Any, ...] = (..., *(slice(reach + s, reach + s + n) for s, n in zip(step, f.shape[2:], strict=True)))
        weights = w * seen[at]
        distance = (f - m[at]).square_().mean(dim=1, keepdim=True).mul_(weights)
        total, extent = along_axes(distance, back), along_axes(weights, back)
        costs.append(torch.where(extent > LEAST_SHARE * whole, total / extent.clamp_min(1e-6), torch.inf)[0, 0])
    found = torch.stack(costs)
    unknown = found.isinf()
    known = found.masked_fill(unknown, 0).sum(dim=0) / (~unknown).sum(dim=0).clamp_min(1)
    return torch.where(unknown, known, found)  # what was not compared is neither good nor bad


def _coupled(costs: Tensor, space: Tensor) -> Tensor:
    """The smooth field on the nodes, ``(1, d, *nodes)``."""
    boxes = [box_matrix(n, 3, 1, costs) for n in costs.shape[1:]]
    boxes = [box / box.sum(dim=1, keepdim=True) for box in boxes]
    u = _smoothed(_displacements(along_axes(costs[None], boxes)[0].argmin(dim=0), space), boxes)
    scale = costs.std() / space.var(dim=0).sum()  # one coupling for descriptors of any contrast and any reach
    squares = space.square().sum(dim=1).view(-1, *[1] * (costs.ndim - 1))
    for coupling in COUPLINGS:
        products = torch.einsum("kd,d...->k...", space, u[0])
        away = squares - 2 * products  # and |u|^2, the same for all displacements
        chosen = torch.add(costs, away, alpha=float(coupling * scale)).argmin(dim=0)
        u = _smoothed(_displacements(chosen, space), boxes)
    return u


def _displacements(chosen: Tensor, space: Tensor) -> Tensor:
    """The field of the displacements of these numbers."""
    return space[chosen].movedim(-1, 0)[None]


def _smoothed(u: Tensor, boxes: list[Tensor]) -> Tensor:
    """Three box filters in a row, which are nearly a Gaussian."""
    for _ in range(3):
        u = along_axes(u, boxes)
    return u


def _symmetric(forward: Tensor, backward: Tensor, scale: Tensor) -> Tensor:
    """The forward field, made the inverse of the backward one; ``scale`` is voxels from node to node."""
    forward, backward = forward / scale, backward / scale
    for _ in range(SYMMETRIC_STEPS):
        there = fields.warp(backward, forward, padding="border")
        back = fields.warp(forward, backward, padding="border")
        forward, backward = (forward - there) / 2, (backward - back) / 2
    return forward * scale
