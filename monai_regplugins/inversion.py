"""Inverses of maps, point by point."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from monai_regplugins import fields

__all__ = ["inverse_at", "solve"]

STEPS = 120  # at most; few points need more than 20
UPDATE = 1e-2  # of the length of a step: what a change has to state for an update of the inverse Jacobian


def solve(
    forward: Callable[[Tensor], Tensor], points: Tensor, start: Tensor, inverse_jacobian: Tensor, tolerance: float
) -> tuple[Tensor, Tensor]:
    r"""Solve :math:`T(x) = y` for each point y by itself.

    x moves by :math:`s B (y - T(x))`. ``B`` learns the inverse Jacobian from each step (Broyden 1965, Math. Comp. 19,
    577, in the format of Sherman and Morrison); ``s`` is halved where a step leads astray. This converges for large
    rotations and where ``T`` stretches or shears by more than a factor of two, where the plain fixed point does not.

    Args:
        forward: T, of points (N, d).
        points: y, (N, d).
        start: where x begins, (N, d).
        inverse_jacobian: what ``B`` begins as, (d, d), for column vectors.
        tolerance: distance at which a point is solved, in the unit of y.

    Returns:
        x, (N, d), and the distances between T(x) and y, (N,): the least that were met.

    Example:
        >>> x, left = solve(lambda x: x + 0.5 * x.sin(), torch.ones(1, 2), torch.ones(1, 2), torch.eye(2), 1e-4)
        >>> bool(left < 1e-4), round(float((x + 0.5 * x.sin())[0, 0]), 3)
        (True, 1.0)
    """
    found, left = start.clone(), points - forward(start)
    B = inverse_jacobian.expand(len(points), *inverse_jacobian.shape).clone()
    step = points.new_ones(len(points), 1)
    for _ in range(STEPS):
        active = (left.norm(dim=1) > tolerance).nonzero()[:, 0]
        if not len(active):
            break
        move = step[active] * torch.einsum("nij,nj->ni", B[active], left[active])
        still = points[active] - forward(found[active] + move)
        B[active] = _updated(B[active], move, left[active] - still)
        better = (still.norm(dim=1) < left[active].norm(dim=1))[:, None]
        found[active] += torch.where(better, move, 0.0)
        left[active] = torch.where(better, still, left[active])
        step[active] = torch.where(better, (2 * step[active]).clamp(max=1.0), step[active] / 2)
    return found, left.norm(dim=1)


@torch.no_grad()
def inverse_at(ddf: Tensor, points: Tensor, tolerance: float = 1e-3) -> tuple[Tensor, Tensor]:
    """Invert a displacement field at points: ``v(y)`` with ``y + v + u(y + v) = y``, u continued beyond its border.

    Args:
        ddf: field u, ``(1, d, *spatial)`` in voxels.
        points: y, (N, d), voxel coordinates of ``ddf``.
        tolerance: distance at which a point is solved, voxels.

    Returns:
        v, (N, d), and by how far ``v(y) + u(y + v(y))`` misses zero, (N,), voxels; see :func:`solve`.

    Raises:
        InputError: When shapes do not fit.

    Example:
        >>> v, left = inverse_at(torch.full((1, 2, 8, 8), 0.5), torch.tensor([[3.0, 4.0]]))
        >>> v, left
        (tensor([[-0.5000, -0.5000]]), tensor([0.]))
    """

    def forward(x: Tensor) -> Tensor:
        moved: Tensor = x + fields.sample_at(ddf, x[None])[0]
        return moved

    d = points.shape[1]
    first = points - fields.sample_at(ddf, points[None])[0]
    x, left = solve(forward, points, first, torch.eye(d, dtype=points.dtype, device=points.device), tolerance)
    return x - points, left


def _updated(B: Tensor, move: Tensor, change: Tensor) -> Tensor:
    """Broyden's update of inverse Jacobians (N, d, d): afterwards they take ``change`` of the values to ``move``."""
    row = torch.einsum("ni,nij->nj", move, B)
    scale = (row * change).sum(dim=1)
    wrong = move - torch.einsum("nij,nj->ni", B, change)
    update = torch.einsum("ni,nj->nij", wrong, row) / scale[:, None, None]
    sound = scale.abs() > UPDATE * move.square().sum(dim=1)
    return torch.where(sound[:, None, None], B + update, B)
