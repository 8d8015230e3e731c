"""Displacement fields in closed form: affine, thin-plate spline, Gaussian bumps.

Fields are ``(d, *spatial)`` in voxels, pull-back: warped(x) = image(x + u(x)). They are the parts of the synthetic
fields of the RAN paper (Zheng et al. 2022, supplement).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from monai_regplugins.checks import InputError
from monai_regplugins.fields import identity_grid

__all__ = [
    "affine_displacement",
    "gaussian_seed_field",
    "image_center",
    "rotation_matrix",
    "separable_sum",
    "thin_plate_spline_field",
]


def rotation_matrix(axis: Sequence[float] | torch.Tensor | None, angle: float) -> torch.Tensor:
    """Return the rotation by ``angle`` radians, ``(3, 3)`` about ``axis`` (Rodrigues), or ``(2, 2)`` without an axis.

    A positive angle turns the first array axis towards the second in 2D and follows the right hand in 3D.

    Raises:
        InputError: the axis is not a 3-vector of positive length.
    """
    cos, sin = math.cos(angle), math.sin(angle)
    if axis is None:
        return torch.tensor([[cos, -sin], [sin, cos]])
    direction = torch.as_tensor(axis, dtype=torch.float64)
    if direction.shape != (3,) or not direction.norm() > 0:
        raise InputError(f"axis is {axis}, expected three numbers that are not all zero; in 2D give None.")
    x, y, z = (direction / direction.norm()).tolist()
    cross = torch.tensor([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]], dtype=torch.float64)
    return (torch.eye(3, dtype=torch.float64) + sin * cross + (1 - cos) * cross @ cross).to(torch.float32)


def affine_displacement(
    positions: torch.Tensor, matrix: torch.Tensor, center: torch.Tensor, translation: torch.Tensor | float = 0.0
) -> torch.Tensor:
    """Return the displacement ``A(x - c) + c + t - x`` at the positions x, ``(d, *spatial)`` voxels, the same shape."""
    linear = matrix.to(positions) - torch.eye(len(matrix)).to(positions)
    offset = torch.as_tensor(translation).to(positions) - linear @ center.to(positions)
    moved = linear @ positions.flatten(1) + offset.expand(len(matrix))[:, None]
    return moved.view_as(positions)


def thin_plate_spline_field(
    shape: Sequence[int],
    control_points: torch.Tensor,
    displacements: torch.Tensor,
    fix_corners: bool = False,
    step: int = 4,
) -> torch.Tensor:
    """Return the thin-plate spline through displacements given at control points.

    The spline is ``a + B x + sum_j w_j U(|x - c_j|)`` with U(r) = r^2 log r in 2D and U(r) = r in 3D (Bookstein 1989):
    of all fields through the given displacements the one of least bending energy. It is evaluated at every ``step``-th
    voxel and linear in between, exact at these nodes.

    Args:
        shape: spatial shape, d sizes.
        control_points: ``(N, d)`` voxels, distinct and not all on one line (2D) or plane (3D).
        displacements: ``(N, d)`` voxels.
        fix_corners: add the corners of the image as control points that do not move.
        step: distance of the nodes in voxels, 1 for the exact spline everywhere.

    Returns:
        The field, ``(d, *shape)`` voxels, float32.

    Raises:
        InputError: the points determine no spline.
    """
    points, values = control_points.to(torch.float64), displacements.to(torch.float64)
    if fix_corners:
        corners = torch.cartesian_prod(*(torch.tensor([0.0, size - 1.0], dtype=torch.float64) for size in shape))
        points, values = torch.cat([points, corners]), torch.cat([values, torch.zeros_like(corners)])
    weights, affine = _fit_spline(points, values)
    nodes = [max(math.ceil((size - 1) / step), 1) + 1 for size in shape]
    positions = (identity_grid(tuple(nodes), torch.float64) * step).flatten(1).T
    # Not by the matrix product that is the default: it loses half of the digits of a small distance.
    distances = torch.cdist(positions, points, compute_mode="donot_use_mm_for_euclid_dist")
    coarse = _spline_kernel(distances, len(shape)) @ weights + positions @ affine[1:] + affine[0]
    return _refine(coarse.T.reshape(-1, *nodes), shape, step)


def gaussian_seed_field(
    shape: Sequence[int],
    seeds: torch.Tensor,
    vectors: torch.Tensor,
    sigma: float,
    amplitude: float | None = None,
) -> torch.Tensor:
    """Return the sum of Gaussian bumps ``v_j exp(-|x - s_j|^2 / (2 sigma^2))`` at the seeds.

    The sum is scaled such that its longest vector on the grid has the length ``amplitude``; a filtered impulse keeps
    nothing of its height otherwise.

    Args:
        shape: spatial shape, d sizes.
        seeds: s, ``(N, d)`` voxels.
        vectors: v, ``(N, d)`` voxels.
        sigma: standard deviation in voxels, along the spatial axes only.
        amplitude: peak length of the field in voxels; None leaves each bump at the length of its vector.

    Returns:
        The field, ``(d, *shape)`` voxels, float32.
    """
    profiles = [
        torch.exp(-0.5 * ((torch.arange(size) - seeds[:, k : k + 1]) / sigma) ** 2) for k, size in enumerate(shape)
    ]
    field = separable_sum(profiles, vectors).to(torch.float32)
    if amplitude is None:
        return field
    peak: torch.Tensor = torch.linalg.vector_norm(field, dim=0).max().clamp_min(torch.finfo(field.dtype).tiny)
    return field * (peak.reciprocal() * amplitude)


def separable_sum(profiles: Sequence[torch.Tensor], vectors: torch.Tensor) -> torch.Tensor:
    r"""Return :math:`\sum_j v_j \prod_k f_{jk}(x_k)` on a grid, as one matrix product over j instead of N full volumes.

    Args:
        profiles: f along each of the 2 or 3 axes of the grid, ``(N, length)``; those of a Gaussian make it up.
        vectors: v, ``(N, C)``.

    Returns:
        ``(C, *lengths)``.
    """
    lengths = [profile.shape[1] for profile in profiles]
    first = (vectors.T[:, None, :] * profiles[0].T).flatten(0, 1)
    rest = profiles[1] if len(profiles) == 2 else (profiles[1][:, :, None] * profiles[2][:, None, :]).flatten(1)
    return (first @ rest).view(vectors.shape[1], *lengths)


def image_center(shape: Sequence[int]) -> torch.Tensor:
    """Return the center of an image in voxels, ``(size - 1) / 2`` along each axis."""
    return (torch.tensor(list(shape), dtype=torch.float32) - 1) / 2


def _fit_spline(points: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the weights ``(N, d)`` and the affine part ``(1 + d, d)``, offset first, of the spline."""
    count, dims = points.shape
    polynomial = torch.cat([torch.ones(count, 1).to(points), points], dim=1)
    distances = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    apart = bool((distances + torch.eye(count).to(points) > 1e-6).all())
    if not apart or int(torch.linalg.matrix_rank(polynomial)) < dims + 1:
        raise InputError(
            f"the {count} control points determine no spline: expected at least {dims + 1} distinct ones that do not "
            f"all lie on one {'line' if dims == 2 else 'plane'}; move them or set fix_corners."
        )
    system = torch.zeros(count + dims + 1, count + dims + 1, dtype=points.dtype)
    system[:count, :count] = _spline_kernel(distances, dims)
    system[:count, count:], system[count:, :count] = polynomial, polynomial.T
    solution = torch.linalg.solve(system, F.pad(values, (0, 0, 0, dims + 1)))
    return solution[:count], solution[count:]


def _spline_kernel(distance: torch.Tensor, dims: int) -> torch.Tensor:
    """Return U(r), the Green's function of the squared Laplacian up to a factor."""
    return distance if dims == 3 else distance.square() * distance.clamp_min(1e-12).log()


def _refine(coarse: torch.Tensor, shape: Sequence[int], step: int) -> torch.Tensor:
    """Interpolate a field given at every ``step``-th voxel linearly to all voxels of ``shape``."""
    fine = [(size - 1) * step + 1 for size in coarse.shape[1:]]
    mode = "bilinear" if len(shape) == 2 else "trilinear"
    values = F.interpolate(coarse[None].to(torch.float32), size=fine, mode=mode, align_corners=True)[0]
    for axis, size in enumerate(shape, start=1):
        values = values.narrow(axis, 0, size)
    return values.contiguous()
