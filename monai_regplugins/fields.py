"""The algebra of displacement fields, as pure functions.

A displacement field (``ddf``) is a tensor ``(B, d, *spatial)``, d = 2 or 3. Component k moves along array axis k, in
voxels of the fixed grid, and pulls back: ``warped(x) = moving(x + ddf(x))`` with voxel centers at integers. Everything
is computed in float32 at least: half and bfloat16 are widened, float64 stays. The result then has the wider type.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch.nn import functional

from monai_regplugins.checks import InputError, check_minimum_size

__all__ = [
    "InversionReport",
    "central_difference",
    "compose",
    "determinant_of",
    "exponential",
    "identity_grid",
    "invert",
    "jacobian",
    "jacobian_determinant",
    "ras_to_voxel",
    "resize",
    "sample_at",
    "slabs",
    "voxel_to_ras",
    "warp",
]

Matrix: TypeAlias = np.ndarray[Any, np.dtype[np.floating[Any]]]
Affine: TypeAlias = np.ndarray[Any, Any] | torch.Tensor

LARGEST_STEP = 1 / 8  # voxels, of scaling and squaring
SLAB_VOXELS = 2**16  # voxels that are worked on at once: a few MB, which the processor's cache holds
MOST_CHUNKS_WITH_GRADIENT = 8  # each chunk holds its own gradient of the whole image until they are added up


class InversionReport(NamedTuple):
    """How well a field was inverted; residuals are lengths of ``compose(ddf, inverse)``, in voxels.

    Example:
        >>> _, report = invert(torch.zeros(1, 2, 8, 8))
        >>> report.converged, report.max_residual
        (True, 0.0)
    """

    iterations: int
    mean_residual: float
    max_residual: float
    converged: bool


def identity_grid(
    spatial_shape: Sequence[int], dtype: torch.dtype = torch.float32, device: torch.device | str | None = None
) -> torch.Tensor:
    """Return the voxel coordinates x of a grid, made on ``device`` itself.

    Args:
        spatial_shape: number of voxels along each of d axes.
        dtype: type of the result.
        device: where to make it.

    Returns:
        ``(d, *spatial)``, component k the index along array axis k.

    Example:
        >>> identity_grid((2, 3))[1]  # the coordinate along axis 1
        tensor([[0., 1., 2.],
                [0., 1., 2.]])
    """
    axes = [torch.arange(n, dtype=dtype, device=device) for n in spatial_shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


def slabs(spatial_shape: Sequence[int], voxels: int = SLAB_VOXELS) -> Iterator[slice]:
    """Divide a grid along its first axis, so that temporary arrays stay small.

    Args:
        spatial_shape: number of voxels along each axis.
        voxels: most voxels of a slab; a slab is one index thick at least.

    Yields:
        The indices of each slab along the first axis, in order.

    Example:
        >>> list(slabs((5, 10, 10), voxels=200))
        [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    length = spatial_shape[0]
    thickness = max(1, voxels // max(1, math.prod(spatial_shape[1:])))
    for start in range(0, length, thickness):
        yield slice(start, min(start + thickness, length))


def warp(
    image: torch.Tensor, ddf: torch.Tensor, mode: str = "linear", padding: str = "zeros", start: int = 0
) -> torch.Tensor:
    """Pull an image back along a field: ``warped(x) = image(x + u(x))``.

    Works in ``torch.jit.script`` too. On a CPU, where no gradient is wanted, the field is worked on in slabs, so that
    little more than the result is held.

    Args:
        image: ``(B, C, *size)``, any size: ``x + u(x)`` are voxel coordinates of this image.
        ddf: field u, ``(B, d, *spatial)`` in voxels.
        mode: ``"linear"`` or ``"nearest"``.
        padding: value outside the image, ``"zeros"`` or ``"border"`` (that of the closest voxel).
        start: index x along the first axis at which ``ddf`` begins, for a slab of a larger field.

    Returns:
        ``(B, C, *spatial)``. Integer images, such as labels, keep their type in mode ``"nearest"``.

    Raises:
        InputError: When shapes do not fit, or ``mode`` or ``padding`` is none of the above.

    Example:
        >>> image = torch.arange(5.0).view(1, 1, 1, 5)
        >>> warp(image, torch.tensor([0.0, 1.0]).view(1, 2, 1, 1).expand(1, 2, 1, 5))  # reads one voxel to the right
        tensor([[[[1., 2., 3., 4., 0.]]]])
    """
    _check_sampling(image, ddf, 1, mode, padding)
    if torch.jit.is_scripting():
        return _warp(image, ddf, mode, padding, start)
    else:
        method = _warp_in_slabs if _fits_slabs(image, ddf) else _warp
        return method(image, ddf, mode, padding, start)


def sample_at(
    volume: torch.Tensor, points: torch.Tensor, mode: str = "linear", padding: str = "border"
) -> torch.Tensor:
    """Read a volume at arbitrary points.

    Args:
        volume: ``(B, C, *spatial)``.
        points: ``(B, N, d)``, voxel coordinates of ``volume``.
        mode: ``"linear"`` or ``"nearest"``.
        padding: value outside the volume, ``"border"`` (that of the closest voxel) or ``"zeros"``.

    Returns:
        ``(B, N, C)``. Integer volumes keep their type in mode ``"nearest"``.

    Raises:
        InputError: When shapes do not fit, or ``mode`` or ``padding`` is none of the above.

    Example:
        >>> sample_at(torch.arange(4.0).view(1, 1, 1, 4), torch.tensor([[[0.0, 1.5]]]))
        tensor([[[1.5000]]])
    """
    _check_sampling(volume, points, 2, mode, padding)
    wide = points.to(_working_type(volume, points))
    if _is_to_be_widened(volume, wide) and len(volume) == 1 and (mode, padding) == ("linear", "border"):
        return _sample_around(volume, wide)
    line = [wide.shape[0], wide.shape[1]] + [1] * (wide.shape[2] - 1)
    values = _sample(volume, [wide[..., k].reshape(line) for k in range(wide.shape[2])], mode, padding)
    return values.flatten(2).transpose(1, 2)


def compose(u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Return the total field ``v(x) + u(x + v(x))``: first v, then u continued constantly beyond its border.

    With it ``warp(image, compose(u, v))`` is ``warp(warp(image, u), v)`` with one interpolation of the image.

    Args:
        u: field that is applied second to a point, ``(B, d, *size)`` in voxels.
        v: field that is applied first to a point, ``(B, d, *spatial)``, pointing into the grid of ``u``.

    Returns:
        ``(B, d, *spatial)``, in voxels.

    Raises:
        InputError: When shapes do not fit.

    Example:
        >>> one, two = torch.ones(1, 2, 4, 4), torch.full((1, 2, 4, 4), 2.0)
        >>> compose(one, two).unique()
        tensor([3.])
    """
    return warp(u, v, "linear", "border").add_(v)


def exponential(velocity: torch.Tensor, largest_step: float = LARGEST_STEP) -> torch.Tensor:
    r"""Follow a stationary velocity field for a unit of time, by scaling and squaring.

    .. math::
        u_0 = v / 2^K, \qquad u_{k+1}(x) = u_k(x) + u_k(x + u_k(x)), \qquad \exp(v) = x + u_K(x)

    Source: Arsigny et al. 2006, MICCAI, LNCS 4190, 924; Ashburner 2007, NeuroImage 38, 95. The inverse of
    :math:`\exp(v)` is :math:`\exp(-v)`. A smooth velocity gives a field without folds, whatever its length.

    Args:
        velocity: v, ``(B, d, *spatial)`` in voxels for a unit of time; continued constantly beyond the grid.
        largest_step: K is the smallest number for which no component of :math:`u_0` is longer, voxels.

    Returns:
        The displacement :math:`u_K`, ``(B, d, *spatial)`` in voxels; gradients flow to the velocity.

    Raises:
        InputError: When ``velocity`` is not a field.

    Example:
        >>> x = identity_grid((9, 9))[None] - 4
        >>> u = exponential(0.1 * x)  # of v = a x is x (exp(a) - 1)
        >>> bool((u - x * (math.exp(0.1) - 1))[..., 2:7, 2:7].abs().max() < 1e-2)
        True
    """
    u = _field(velocity)
    longest = u.detach().abs().max().item()
    squarings = max(0, math.ceil(math.log2(max(longest, largest_step) / largest_step))) if longest < math.inf else 0
    u = u / 2**squarings
    for _ in range(squarings):
        u = compose(u, u)
    return u


@torch.no_grad()
def logarithm(ddf: torch.Tensor, iterations: int = 10) -> torch.Tensor:
    r"""Approximate the stationary velocity whose :func:`exponential` is a field.

    .. math::
        v \leftarrow v + (x + u) \circ \exp(-v) - x, \qquad v_0 = u

    the first term of Bossa and Olmos 2008 (MICCAI workshop MFCA, 2, 84). Of all steps the closest one is returned: a
    field that folds is no exponential.

    Args:
        ddf: u, ``(B, d, *spatial)`` in voxels.
        iterations: number of steps.

    Returns:
        v, ``(B, d, *spatial)``, voxels for a unit of time.

    Example:
        >>> shift = torch.full((1, 2, 8, 8), 1.5)
        >>> torch.equal(logarithm(shift), shift)
        True
    """
    u = _field(ddf)
    v, best, least = u, u, math.inf
    for _ in range(iterations):
        left = (exponential(v) - u).square().mean().item()
        if left < least:
            best, least = v, left
        v = v + compose(u, exponential(-v))
    return best


@torch.no_grad()
def invert(ddf: torch.Tensor, iterations: int = 50, tolerance: float = 1e-3) -> tuple[torch.Tensor, InversionReport]:
    """Solve ``v(x) + u(x + v(x)) = 0`` by the fixed point ``v <- -u(x + v(x))``, Chen et al. 2008, Med. Phys. 35, 81.

    It converges where neighboring displacements differ by less than their distance; elsewhere the report says
    how far off the result is. No gradient flows through it.

    Args:
        ddf: field u, ``(B, d, *spatial)`` in voxels.
        iterations: maximum number of steps.
        tolerance: largest residual, in voxels, at which to stop.

    Returns:
        The inverse v, ``(B, d, *spatial)`` in voxels, and its :class:`InversionReport`.

    Raises:
        InputError: When ``ddf`` is not a field or ``iterations`` is below 1.

    Example:
        >>> inverse, report = invert(torch.full((1, 2, 8, 8), 0.5))
        >>> inverse.unique(), report.converged
        (tensor([-0.5000]), True)
    """
    if iterations < 1:
        raise InputError(f"iterations is {iterations}, expected at least 1; give a positive number.")
    inverse = -_field(ddf)  # the first step, from zero
    residual, step = compose(ddf, inverse), 1
    while (worst := _length(residual).max().item()) > tolerance and step < iterations:
        inverse -= residual  # -u(x + v(x)) = v(x) - (v(x) + u(x + v(x)))
        residual, step = compose(ddf, inverse), step + 1
    return inverse, InversionReport(step, _length(residual).mean().item(), worst, worst <= tolerance)


def resize(ddf: torch.Tensor, spatial_shape: Sequence[int], align_corners: bool = False) -> torch.Tensor:
    """Bring a field to a finer or coarser grid over the same region, by linear interpolation (no smoothing first).

    By default the grids share the outer faces of their cells: ``x_new = (x_old + 0.5) new / old - 0.5``, and values
    grow by ``new / old``. With ``align_corners`` they share the outer voxel centers, and values grow by
    ``(new - 1) / (old - 1)``.

    Args:
        ddf: ``(B, d, *spatial)`` in voxels of the old grid.
        spatial_shape: new size.
        align_corners: which points the two grids share.

    Returns:
        ``(B, d, *spatial_shape)``, in voxels of the new grid.

    Raises:
        InputError: When ``ddf`` is not a field, ``spatial_shape`` has another length, or with ``align_corners`` an axis
            of one voxel, which has no length between centers, is to grow.

    Example:
        >>> resize(torch.ones(1, 2, 4, 4), (8, 8)).unique()  # one coarse voxel is two fine ones
        tensor([2.])
    """
    wide = _field(ddf)
    shape = [int(n) for n in spatial_shape]
    if len(shape) != wide.shape[1] or min(shape) < 1:
        raise InputError(f"spatial_shape is {shape}, expected {wide.shape[1]} sizes above 0; give one size per axis.")
    mode = "bilinear" if len(shape) == 2 else "trilinear"
    resized = functional.interpolate(wide, size=shape, mode=mode, align_corners=align_corners)
    for k, (old, new) in enumerate(zip(ddf.shape[2:], shape, strict=True)):
        resized[:, k] *= _growth(old, new, align_corners)
    return resized


def jacobian(ddf: torch.Tensor) -> torch.Tensor:
    """Return the Jacobian of ``x + u(x)``: central differences inside, one-sided ones at the border.

    Args:
        ddf: field u, ``(B, d, *spatial)`` in voxels.

    Returns:
        ``(B, d, d, *spatial)``, entry ``[:, i, j]`` the derivative of component i along axis j.

    Raises:
        InputError: When ``ddf`` is not a field or has an axis of less than 2 voxels.

    Example:
        >>> jacobian(torch.zeros(1, 2, 4, 4))[0, :, :, 0, 0]
        tensor([[1., 0.],
                [0., 1.]])
    """
    u = _field(ddf)
    check_minimum_size(list(u.shape[2:]), 2, "displacement field")
    d = u.shape[1]
    if u.requires_grad and torch.is_grad_enabled():
        derivatives = torch.stack(torch.gradient(u, dim=list(range(2, 2 + d))), dim=2)
        return derivatives + torch.eye(d, dtype=u.dtype, device=u.device).view(1, d, d, *[1] * d)
    found = u.new_empty(len(u), d, d, *u.shape[2:])  # filled in place, in a third of the time
    for k in range(d):
        central_difference(u, 2 + k, out=found[:, :, k])
        found[:, k, k] += 1
    return found


def central_difference(values: torch.Tensor, axis: int, out: torch.Tensor | None = None) -> torch.Tensor:
    """Return the same as :func:`torch.gradient` along one axis in half the time, without a graph.

    Args:
        values: of any shape, at least 2 long along the axis.
        axis: its number.
        out: where to put it, of the same shape.

    Example:
        >>> central_difference(torch.tensor([0.0, 1.0, 4.0, 9.0]), 0)
        tensor([1., 2., 4., 5.])
    """
    n, difference = values.shape[axis], torch.empty_like(values) if out is None else out
    inner = difference.narrow(axis, 1, n - 2)
    torch.sub(values.narrow(axis, 2, n - 2), values.narrow(axis, 0, n - 2), out=inner).div_(2)
    for end, first in ((0, 0), (n - 1, n - 2)):
        torch.sub(values.select(axis, first + 1), values.select(axis, first), out=difference.select(axis, end))
    return difference


def jacobian_determinant(ddf: torch.Tensor) -> torch.Tensor:
    """Return the determinant of :func:`jacobian`: local volume change, not positive where the field folds.

    Args:
        ddf: ``(B, d, *spatial)`` in voxels.

    Returns:
        ``(B, *spatial)``.

    Raises:
        InputError: When ``ddf`` is not a field or has an axis of less than 2 voxels.

    Example:
        >>> jacobian_determinant(0.5 * identity_grid((4, 4))[None]).unique()  # each axis is 1.5 times as long
        tensor([2.2500])
    """
    return determinant_of(jacobian(ddf))


def determinant_of(jacobian: torch.Tensor) -> torch.Tensor:
    """Return the determinants ``(B, *spatial)`` of matrices ``(B, d, d, *spatial)``, as :func:`jacobian` gives them.

    Example:
        >>> determinant_of(2 * torch.eye(3).view(1, 3, 3, 1, 1, 1))
        tensor([[[[8.]]]])
    """
    J = jacobian
    if J.shape[1] == 2:
        return J[:, 0, 0] * J[:, 1, 1] - J[:, 0, 1] * J[:, 1, 0]
    a, b, c = J.unbind(dim=1)  # torch.linalg.cross takes six times as long
    normal = [b[:, k - 2] * c[:, k - 1] - b[:, k - 1] * c[:, k - 2] for k in range(3)]
    return a[:, 0] * normal[0] + a[:, 1] * normal[1] + a[:, 2] * normal[2]


def voxel_to_ras(ddf: torch.Tensor, affine: Affine) -> torch.Tensor:
    """Express a field in mm of the world axes right, anterior, superior: ``A u``, rotation and spacing included.

    Args:
        ddf: ``(B, d, *spatial)`` in voxels.
        affine: voxel-to-RAS matrix of the fixed grid, ``(d + 1, d + 1)``.

    Returns:
        ``(B, d, *spatial)`` in mm.

    Raises:
        InputError: When ``ddf`` is not a field, or ``affine`` has another size or no inverse.

    Example:
        >>> voxel_to_ras(torch.ones(1, 2, 1, 1), torch.diag(torch.tensor([-2.0, 3.0, 1.0]))).flatten()
        tensor([-2.,  3.])
    """
    return _transform(ddf, _linear_part(affine, ddf))


def ras_to_voxel(ddf: torch.Tensor, affine: Affine) -> torch.Tensor:
    """Undo :func:`voxel_to_ras`: ``inv(A) u``.

    Args:
        ddf: ``(B, d, *spatial)`` in mm along right, anterior, superior.
        affine: voxel-to-RAS matrix of the fixed grid, ``(d + 1, d + 1)``.

    Returns:
        ``(B, d, *spatial)`` in voxels.

    Raises:
        InputError: When ``ddf`` is not a field, or ``affine`` has another size or no inverse.
    """
    return _transform(ddf, np.linalg.inv(_linear_part(affine, ddf)))


def _warp(image: torch.Tensor, ddf: torch.Tensor, mode: str, padding: str, start: int) -> torch.Tensor:
    """:func:`warp` of the whole field at once."""
    u = ddf.to(_working_type(image, ddf))
    return _sample(image, [u[:, k] + _axis(u, k, start if k == 0 else 0) for k in range(u.shape[1])], mode, padding)


def _warp_in_slabs(image: torch.Tensor, ddf: torch.Tensor, mode: str, padding: str, start: int) -> torch.Tensor:
    """:func:`warp`, slab by slab; each point is sampled by itself, so the result is the same."""
    row = _warp(image, ddf.narrow(2, 0, 1), mode, padding, start)  # of the result's type, and with its metadata
    warped = torch.empty_like(row.expand(*row.shape[:2], *ddf.shape[2:]), memory_format=torch.contiguous_format)
    values, u, target = (tensor.as_subclass(torch.Tensor) for tensor in (image, ddf, warped))
    if not _reads_nearest(image, mode):
        values = values.to(_working_type(image, ddf))
    for slab in slabs(u.shape[2:], SLAB_VOXELS // len(u)):
        target[:, :, slab] = _warp(values, u[:, :, slab], mode, padding, start + slab.start)
    return warped


def _fits_slabs(image: torch.Tensor, ddf: torch.Tensor) -> bool:
    """Whether a field is large, on a CPU, and nothing records how the result is made."""
    if ddf.device.type != "cpu" or torch.jit.is_tracing() or torch.compiler.is_compiling():
        return False
    has_gradient = torch.is_grad_enabled() and (image.requires_grad or ddf.requires_grad)
    return not has_gradient and len(ddf) * ddf.shape[2:].numel() > SLAB_VOXELS


def _sample(image: torch.Tensor, positions: list[torch.Tensor], mode: str, padding: str) -> torch.Tensor:
    """Sample ``image`` ``(B, C, *size)`` at voxel coordinates, one tensor ``(B, *spatial)`` per array axis."""
    # Cell faces at -1 and 1 (align_corners=False): the same points and paddings, and an axis of one voxel needs no care
    sizes = image.shape[2:]
    if (
        mode == "nearest"
    ):  # up from the middle, as ITK does; to even, as torch does, would take every second voxel twice
        positions = [torch.floor(position + 0.5) for position in positions]
    if not torch.jit.is_scripting() and _reads_nearest(image, mode):
        return _read_nearest(image, positions, padding)
    axes = [(2.0 * positions[k] + 1.0) / sizes[k] - 1.0 for k in range(len(positions))]
    grid = torch.stack(axes[::-1], dim=-1)  # grid_sample counts the last array axis first
    values = image.to(grid.dtype)
    kind = "bilinear" if mode == "linear" else mode
    if torch.jit.is_scripting():
        sampled = functional.grid_sample(values, grid, mode=kind, padding_mode=padding, align_corners=False)
    else:
        sampled = _sampler(values, grid)(values, grid, mode=kind, padding_mode=padding, align_corners=False)
    return sampled if mode == "linear" or image.is_floating_point() else sampled.to(image.dtype)


def _reads_nearest(image: torch.Tensor, mode: str) -> bool:
    """Whether these are labels, which can be read as they are; to interpolate them, each would become a float first."""
    is_recorded = torch.jit.is_tracing() or torch.compiler.is_compiling()
    return mode == "nearest" and not image.is_floating_point() and not is_recorded


def _read_nearest(image: torch.Tensor, positions: list[torch.Tensor], padding: str) -> torch.Tensor:
    """Read labels ``(B, C, *size)`` at whole voxel coordinates, one tensor ``(B, *spatial)`` per array axis."""
    index = torch.zeros_like(positions[0], dtype=torch.int64)
    for size, position in zip(image.shape[2:], positions, strict=True):
        index = index.mul_(size).add_(position.nan_to_num(0.0).clamp(0, size - 1).long())
    flat = image.flatten(2)
    found: torch.Tensor = flat.gather(2, index.flatten(1)[:, None].expand(-1, flat.shape[1], -1)).unflatten(
        2, index.shape[1:]
    )
    if padding == "zeros":
        for size, position in zip(image.shape[2:], positions, strict=True):
            found *= ((position >= 0) & (position < size))[:, None]
    return found


def _is_to_be_widened(volume: torch.Tensor, points: torch.Tensor) -> bool:
    """Whether a volume has more voxels than are needed at points of a wider type, and no gradient is wanted."""
    has_gradient = torch.is_grad_enabled() and (volume.requires_grad or points.requires_grad)
    fewer = volume.shape[2:].numel() > points.shape[1] * 2 ** points.shape[2]
    return not torch.jit.is_tracing() and volume.dtype != points.dtype and fewer and not has_gradient


def _sample_around(volume: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Read a volume ``(1, C, *spatial)`` at points ``(1, N, d)`` from the 2^d voxels around each, widened for that."""
    d, last = points.shape[2], torch.tensor(volume.shape[2:], device=points.device) - 1
    inside = torch.minimum(points[0].clamp(min=0), last)
    low = torch.minimum(inside.nan_to_num().floor().long(), (last - 1).clamp(min=0))
    index = torch.minimum(low[..., None] + torch.arange(2, device=points.device), last[:, None])  # (N, d, 2)
    shaped = [index[:, k].reshape(-1, *[2 if axis == k else 1 for axis in range(d)]) for k in range(d)]
    around = volume[0].permute(*range(1, d + 1), 0)[tuple(shaped)].movedim(-1, 1)
    return sample_at(around.to(points.dtype), (inside - low)[:, None])[None, :, 0]


def _sampler(values: torch.Tensor, grid: torch.Tensor) -> Callable[..., torch.Tensor]:
    """Choose between ``grid_sample`` and the same in chunks, for a CPU whose threads would stay idle."""
    if values.device.type != "cpu" or torch.jit.is_tracing() or torch.compiler.is_compiling():
        return functional.grid_sample
    idle = values.shape[0] < torch.get_num_threads() and grid.shape[1:-1].numel() >= 4096
    return _grid_sample_in_chunks if idle else functional.grid_sample


def _grid_sample_in_chunks(values: torch.Tensor, grid: torch.Tensor, **options: Any) -> torch.Tensor:
    """``grid_sample`` with the points of ``grid`` ``(B, *spatial, d)`` dealt out to the threads.

    On a CPU torch divides only the batch among the threads, so one image pair would be sampled by a single one.
    """
    chunks, d = torch.get_num_threads(), grid.shape[-1]
    if values.requires_grad and torch.is_grad_enabled():
        chunks = min(chunks, MOST_CHUNKS_WITH_GRADIENT)
    points = grid.flatten(1, -2)
    count = points.shape[1]
    if count % chunks:
        points = functional.pad(points, (0, 0, 0, -count % chunks))
    parts = points.reshape(len(points), chunks, *[1] * (d - 1), -1, d)
    sampled = [
        functional.grid_sample(image.expand(chunks, *image.shape), part, **options)  # the image is shared, not copied
        for image, part in zip(values, parts, strict=True)
    ]
    lines = [item.transpose(0, 1).flatten(1)[:, :count] for item in sampled]
    return torch.stack(lines).reshape(*values.shape[:2], *grid.shape[1:-1])


def _axis(ddf: torch.Tensor, k: int, start: int) -> torch.Tensor:
    """Voxel coordinates along array axis ``k``, shaped to be added to one component ``(B, *spatial)``."""
    shape = [1] * (ddf.dim() - 1)
    shape[k + 1] = ddf.shape[k + 2]
    return torch.arange(start, start + ddf.shape[k + 2], dtype=ddf.dtype, device=ddf.device).view(shape)


def _working_type(image: torch.Tensor, ddf: torch.Tensor) -> torch.dtype:
    """Float32, or float64 where that would lose digits of a float64 tensor or of large integers."""
    wide = image.dtype == torch.float64 or image.dtype == torch.int64 or image.dtype == torch.int32
    return torch.float64 if wide or ddf.dtype == torch.float64 else torch.float32


def _field(ddf: torch.Tensor) -> torch.Tensor:
    """Check that ``ddf`` has the shape of a field, and widen it."""
    if ddf.dim() not in (4, 5) or ddf.shape[1] != ddf.dim() - 2:
        raise InputError(
            f"displacement field has shape {list(ddf.shape)}, expected (B, 2, X, Y) or (B, 3, X, Y, Z); "
            "give one component per spatial axis, with a batch axis."
        )
    return ddf if ddf.dtype == torch.float64 else ddf.to(torch.float32)


def _check_sampling(image: torch.Tensor, where: torch.Tensor, axis: int, mode: str, padding: str) -> None:
    """Check the arguments of :func:`warp` and :func:`sample_at`; ``axis`` of ``where`` counts spatial dimensions."""
    if torch.jit.is_tracing():
        return  # a trace sees sizes as tensors, and would freeze what is decided on them
    d = image.dim() - 2
    if d not in (2, 3) or where.dim() != (d + 2 if axis == 1 else 3) or where.shape[axis] != d:
        expected = "(B, d, *spatial)" if axis == 1 else "(B, N, d)"
        raise InputError(
            f"image of shape {list(image.shape)} cannot be sampled at positions of shape {list(where.shape)}, "
            f"expected (B, C, *spatial) with d = 2 or 3 spatial axes and {expected}; check the order of the arguments."
        )
    if image.shape[0] != where.shape[0]:
        raise InputError(
            f"image has batch size {image.shape[0]} but the positions have {where.shape[0]}, expected the same; "
            "repeat the one that is shared."
        )
    if mode not in ("linear", "nearest"):
        raise InputError(f"mode is '{mode}'; choose one of 'linear', 'nearest'.")
    if padding not in ("zeros", "border"):
        raise InputError(f"padding is '{padding}'; choose one of 'zeros', 'border'.")


def _length(ddf: torch.Tensor) -> torch.Tensor:
    """Length of each displacement, ``(B, *spatial)``."""
    return ddf.square().sum(dim=1).sqrt()  # torch.linalg.vector_norm takes 25 times as long


def _growth(old: int, new: int, align_corners: bool) -> float:
    """How much longer a displacement is in voxels of the new grid."""
    if not align_corners:
        return new / old
    if old == 1 and new > 1:
        raise InputError(
            f"an axis of 1 voxel cannot be resized to {new} with align_corners=True, expected at least 2 voxels; "
            "use align_corners=False."
        )
    return (new - 1) / max(old - 1, 1) if old > 1 else 1.0


def _linear_part(affine: Affine, ddf: torch.Tensor) -> Matrix:
    """The part of an affine that moves vectors, ``(d, d)``."""
    d = _field(ddf).shape[1]
    matrix = np.asarray(affine.detach().cpu() if isinstance(affine, torch.Tensor) else affine, dtype=np.float64)
    if matrix.shape != (d + 1, d + 1):
        raise InputError(
            f"affine has shape {matrix.shape}, expected {(d + 1, d + 1)} for a {d}D field; give the fixed grid's."
        )
    if not np.isfinite(matrix).all() or np.linalg.det(matrix[:d, :d]) == 0:
        raise InputError("affine is not invertible, expected finite, positive voxel sizes; fix the image's header.")
    return matrix[:d, :d]


def _transform(ddf: torch.Tensor, matrix: Matrix) -> torch.Tensor:
    """Multiply each displacement by ``matrix``; sums of components, which mixed precision leaves alone."""
    u = _field(ddf)
    columns = [torch.stack([u[:, k] * float(a) for a in matrix[:, k]], dim=1) for k in range(len(matrix))]
    return torch.stack(columns).sum(dim=0)
