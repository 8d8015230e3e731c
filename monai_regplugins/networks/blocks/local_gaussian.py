"""Local transformations, Gaussian displacements whose sum is the field of R2N2 (Sandkühler et al. 2019, Eq. 7-9).

Everything here is in normalized coordinates, x first: component 0 runs along the LAST array axis, then y, then z.
Without a spacing each axis reaches from -1 to 1 between its outer voxel centers, as in the paper. With one, in
array-axis order, all axes share one unit, half of the longest side: a circle is a circle whatever the voxels are like.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch

from monai_regplugins.networks.blocks.sample_norm import widened

__all__ = [
    "LocalTransforms",
    "displace_points",
    "evaluate",
    "field",
    "fold_free",
    "from_json",
    "grid_axes",
    "jacobian_of",
    "localization_variance",
    "rotation_matrix",
    "to_json",
    "voxels_per_unit",
]


# types as values: TorchScript does not find those of a class body by their names (pytorch #95858)
_LocalTransforms = NamedTuple(  # noqa: UP014
    "_LocalTransforms",
    [("position", torch.Tensor), ("sigma", torch.Tensor), ("rotation", torch.Tensor), ("vector", torch.Tensor)],
)


class LocalTransforms(_LocalTransforms):
    """T local transformations ``l(x) = v exp(-1/2 (x - p)^T S^-1 (x - p))`` per sample (Eq. 8), normalized, x first.

    ``S = R diag(sigma^2) R^T``: sigma is a standard deviation, as in the authors' code. Eq. 9 prints it as a variance.

    Attributes:
        position: p, ``(B, T, d)``.
        sigma: standard deviations, ``(B, T, d)``.
        rotation: angle ``(B, T, 1)`` in 2D, unit quaternion w, x, y, z ``(B, T, 4)`` in 3D.
        vector: v, ``(B, T, d)``.

    Example:
        >>> one = LocalTransforms(torch.zeros(1, 1, 2), torch.ones(1, 1, 2), torch.zeros(1, 1, 1), torch.ones(1, 1, 2))
        >>> evaluate(one, torch.zeros(1, 1, 2))  # at its center
        tensor([[[1., 1.]]])
    """

    __slots__ = ()


def voxels_per_unit(spatial_shape: list[int], spacing: list[float] | None = None) -> list[float]:
    """Length of the normalized unit in voxels, per array axis: where normalized and voxel coordinates are converted.

    Args:
        spatial_shape: number of voxels along each axis. An axis of one voxel counts as two voxels long.
        spacing: size of a voxel along each array axis, in any unit; None gives every axis a unit of its own.

    Returns:
        ``(n_k - 1) / 2``, or ``r / spacing_k`` with ``r = max_k (n_k - 1) spacing_k / 2``.
    """
    halves = [max(n - 1, 1) / 2.0 for n in spatial_shape]
    if spacing is None:
        return halves
    longest = max([half * spacing[k] for k, half in enumerate(halves)])  # TorchScript knows no generators
    return [longest / s for s in spacing]


def grid_axes(
    size: list[int], spatial_shape: list[int], spacing: list[float] | None, stride: int, like: torch.Tensor
) -> list[torch.Tensor]:
    """Normalized coordinates of a grid over the image, one vector per array axis.

    Args:
        size: number of grid points along each axis.
        spatial_shape: number of voxels of the image along each axis.
        spacing: as in :func:`voxels_per_unit`.
        stride: distance of neighbors in voxels, the first at the first voxel; 0 spreads the points from the first to
            the last voxel center of the image.
        like: tensor that lends its type and device.

    Returns:
        d vectors, ``(size_k,)``.
    """
    units = voxels_per_unit(spatial_shape, spacing)
    axes: list[torch.Tensor] = []
    for k, n in enumerate(size):
        index = torch.arange(n, dtype=like.dtype, device=like.device)
        last = float(spatial_shape[k] - 1)
        step, middle = float(stride), last / 2.0
        if stride == 0:
            step, middle = last / max(n - 1, 1), (n - 1) / 2.0 * (last / max(n - 1, 1))
        axes.append((index * step - middle) / units[k])
    return axes


def rotation_matrix(rotation: torch.Tensor) -> torch.Tensor:
    """Rotation R of Eq. 9, and of a unit quaternion in 3D.

    Args:
        rotation: angle ``(..., 1)`` from x towards y, or quaternion w, x, y, z ``(..., 4)``.

    Returns:
        ``(..., 2, 2)`` or ``(..., 3, 3)``, x first.
    """
    if rotation.shape[-1] == 1:
        c, s = torch.cos(rotation[..., 0]), torch.sin(rotation[..., 0])
        return torch.stack([torch.stack([c, -s], -1), torch.stack([s, c], -1)], -2)
    w, x, y, z = rotation.unbind(-1)
    rows = [
        torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], -1),
        torch.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], -1),
        torch.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], -1),
    ]
    return torch.stack(rows, -2)


def evaluate(transforms: LocalTransforms, points: torch.Tensor) -> torch.Tensor:
    """Displacement at arbitrary points, the sum over all steps (Eq. 7-9), without a grid.

    Args:
        transforms: T steps of B samples.
        points: ``(B, N, d)``, normalized, x first.

    Returns:
        ``(B, N, d)``, normalized, x first.
    """
    g, _ = _bells_at(transforms, points)
    return (g.unsqueeze(-1) * widened(transforms.vector).unsqueeze(2)).sum(1)


def jacobian_of(transforms: LocalTransforms, points: torch.Tensor) -> torch.Tensor:
    r"""Jacobian of x + f(x) at arbitrary points, in closed form.

    .. math::
        I - \sum_t v_t \, g_t(x) \, (\Sigma_t^{-1} (x - \tilde x_t))^T

    Its determinant is that in voxels too, since units cancel.

    Args:
        transforms: T steps of B samples.
        points: ``(B, N, d)``, normalized, x first.

    Returns:
        ``(B, N, d, d)``, entry ``[..., i, j]`` the derivative of component i along coordinate j, x first.
    """
    g, u = _bells_at(transforms, points)
    precise = (u.unsqueeze(-1) * _whitening(transforms.sigma, transforms.rotation).unsqueeze(2)).sum(-2)  # S^-1 (x - p)
    v = widened(transforms.vector)[:, :, None, :, None]
    gradient = (v * (g.unsqueeze(-1) * precise).unsqueeze(-2)).sum(1)
    return torch.eye(u.shape[-1], dtype=u.dtype, device=u.device) - gradient


def field(
    transforms: LocalTransforms, spatial_shape: list[int], spacing: list[float] | None = None, cumulative: bool = False
) -> torch.Tensor:
    """Dense field of the sum of all local transformations, on a grid of any size.

    Args:
        transforms: T steps of B samples.
        spatial_shape: size of the grid.
        spacing: as in :func:`voxels_per_unit`.
        cumulative: whether to return the fields after each step, f_1 to f_T (Eq. 7), not only the last.

    Returns:
        ``(B, d, *spatial)``, or ``(B, T, d, *spatial)``, in voxels, component k along array axis k.
    """
    position, vector = widened(transforms.position), widened(transforms.vector)
    W = _whitening(transforms.sigma, transforms.rotation)
    axes = grid_axes(spatial_shape, spatial_shape, spacing, 0, position)
    units = voxels_per_unit(spatial_shape, spacing)
    d = len(spatial_shape)
    shape = [position.shape[0], d]
    shape.extend(spatial_shape)
    total = position.new_zeros(shape)
    partial_sums: list[torch.Tensor] = []
    for t in range(position.shape[1]):
        g = _bell(W[:, t], position[:, t], axes)
        total = total + torch.stack([g * _column(units[k] * vector[:, t, d - 1 - k], d) for k in range(d)], 1)
        if cumulative:
            partial_sums.append(total)
    return torch.stack(partial_sums, 1) if cumulative else total


def localization_variance(
    transforms: LocalTransforms,
    covariances: torch.Tensor,
    spatial_shape: list[int],
    spacing: list[float] | None = None,
) -> torch.Tensor:
    r"""Variance of the field that comes from not knowing where the local transformations belong, to first order.

    The derivative of a local transformation with respect to its position is :math:`v g (\Sigma^{-1} (x - p))^T`. With
    positions of covariance :math:`P_t`, independent of each other, component k has the variance

    .. math::
        \sum_t v_{t,k}^2 \, g_t(x)^2 \, (x - p_t)^T \Sigma_t^{-1} P_t \Sigma_t^{-1} (x - p_t).

    Args:
        transforms: T steps of B samples.
        covariances: of the positions, ``(B, T, d, d)``, normalized units squared, x first; see
            :func:`.position_net.localization_covariance`.
        spatial_shape: size of the grid.
        spacing: as in :func:`voxels_per_unit`.

    Returns:
        ``(B, d, *spatial)`` in voxels squared, component k along array axis k; the sum over k is the total variance.
    """
    position, vector = widened(transforms.position), widened(transforms.vector)
    W = _whitening(transforms.sigma, transforms.rotation)
    axes = grid_axes(spatial_shape, spatial_shape, spacing, 0, position)
    units = voxels_per_unit(spatial_shape, spacing)
    d = len(spatial_shape)
    total = position.new_zeros([position.shape[0], d, *spatial_shape])
    for t in range(position.shape[1]):
        u = _whitened_offsets(W[:, t], position[:, t], axes)
        s = (_matrix(W[:, t], d) * u.unsqueeze(2)).sum(1)  # S^-1 (x - p), and no matrix product for autocast to cut
        P = _matrix(widened(covariances[:, t]), d)
        spread = torch.exp(-u.square().sum(1)) * (P * s.unsqueeze(1) * s.unsqueeze(2)).sum([1, 2]).clamp_min(0)
        squares = [(units[k] * vector[:, t, d - 1 - k]) ** 2 for k in range(d)]
        total = total + torch.stack([spread * _column(square, d) for square in squares], 1)
    return total


def displace_points(
    transforms: LocalTransforms, points: torch.Tensor, spatial_shape: list[int], spacing: list[float] | None = None
) -> torch.Tensor:
    """Move points of the fixed image to where they are in the moving one, exactly: x + f(x) without interpolation.

    Args:
        transforms: T steps of B samples.
        points: ``(B, N, d)``, voxels of the fixed grid in array-axis order.
        spatial_shape: size of the fixed grid.
        spacing: as in :func:`voxels_per_unit`.

    Returns:
        ``(B, N, d)``, voxels in array-axis order.
    """
    x = widened(points)
    units = torch.tensor(voxels_per_unit(spatial_shape, spacing), dtype=x.dtype, device=x.device)
    middle = torch.tensor([(n - 1) / 2.0 for n in spatial_shape], dtype=x.dtype, device=x.device)
    return x + evaluate(transforms, ((x - middle) / units).flip(-1)).flip(-1) * units


def fold_free(vector: torch.Tensor, sigma: torch.Tensor, rotation: torch.Tensor, kappa: float) -> torch.Tensor:
    r"""Shorten displacements so that no single step folds.

    The smallest determinant of one step, :math:`1 - e^{-1/2} \sqrt{v^T \Sigma^{-1} v}`, becomes at least
    :math:`1 - \kappa`. A sum of such steps may still fold.

    Args:
        vector: v, ``(..., d)``.
        sigma: standard deviations, ``(..., d)``.
        rotation: angle ``(..., 1)`` or quaternion ``(..., 4)``.
        kappa: below 1 for no fold.

    Returns:
        ``v min(1, kappa sqrt(e) / sqrt(v^T S^-1 v))``.
    """
    longest = kappa * math.sqrt(math.e)
    u = (_whitening(sigma, rotation) * widened(vector).unsqueeze(-2)).sum(-1)
    length = u.square().sum(-1, keepdim=True).clamp_min(longest * longest).sqrt()  # no root of zero
    return vector * (longest / length)


def to_json(transforms: LocalTransforms, sample: int = 0) -> list[dict[str, list[float]]]:
    """Write one sample as plain numbers: one dictionary per step, keys as in :class:`LocalTransforms`."""
    rows = {name: values[sample].detach().cpu().tolist() for name, values in transforms._asdict().items()}
    return [dict(zip(rows, step, strict=True)) for step in zip(*rows.values(), strict=True)]


def from_json(steps: list[dict[str, Any]]) -> LocalTransforms:
    """Undo :func:`to_json`: the steps as a batch of one sample, in float32."""
    return LocalTransforms(*(torch.tensor([[step[name] for step in steps]]) for name in LocalTransforms._fields))


def _whitening(sigma: torch.Tensor, rotation: torch.Tensor) -> torch.Tensor:
    """Matrix W = diag(1 / sigma) R^T with S^-1 = W^T W, ``(..., d, d)``; squares of W x cannot turn negative."""
    return rotation_matrix(widened(rotation)).transpose(-1, -2) / widened(sigma).unsqueeze(-1)


def _bells_at(transforms: LocalTransforms, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Gaussians ``(B, T, N)`` and whitened offsets ``u = W (x - p)``, ``(B, T, N, d)``, at points ``(B, N, d)``."""
    W = _whitening(transforms.sigma, transforms.rotation)
    offset = widened(points).unsqueeze(1) - widened(transforms.position).unsqueeze(2)
    u = (W.unsqueeze(2) * offset.unsqueeze(-2)).sum(-1)
    return torch.exp(-0.5 * u.square().sum(-1)), u


def _bell(W: torch.Tensor, position: torch.Tensor, axes: list[torch.Tensor]) -> torch.Tensor:
    """Gaussian of each sample on a grid, ``(B, *spatial)``."""
    return torch.exp(-0.5 * _whitened_offsets(W, position, axes).square().sum(1))


def _whitened_offsets(W: torch.Tensor, position: torch.Tensor, axes: list[torch.Tensor]) -> torch.Tensor:
    """Whitened offsets u of each sample on a grid, ``(B, d, *spatial)``: a sum of one vector per axis, broadcast."""
    d = len(axes)
    u = torch.zeros([1] * (d + 2), dtype=W.dtype, device=W.device)
    for k, axis in enumerate(axes):
        c = d - 1 - k
        line = W[:, :, c : c + 1] * (axis - position[:, c : c + 1]).unsqueeze(1)
        shape = [line.shape[0], d] + [1] * d
        shape[k + 2] = -1
        u = u + line.view(shape)
    return u


def _column(values: torch.Tensor, d: int) -> torch.Tensor:
    """One number per sample, ``(B,)``, ready to be multiplied with ``(B, *spatial)``."""
    return values.view([-1] + [1] * d)


def _matrix(values: torch.Tensor, d: int) -> torch.Tensor:
    """One matrix per sample, ``(B, d, d)``, ready to be multiplied with ``(B, d, d, *spatial)``."""
    return values.view([-1, d, d] + [1] * d)
