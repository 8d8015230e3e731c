r"""Random smooth displacement fields, RegNet's training truth (Sokooti et al. 2017, Section 2.2), all in voxels.

The paper draws vectors at random points of a field of zeros and smooths it with a Gaussian. Such a field is a sum of
Gaussians, so :class:`GaussianField` keeps points and vectors, some kilobytes, and has a value and a Jacobian at any
point: of a window, beside the grid, on a mirrored axis. Kinds of fields of the authors' later work (Sokooti et al.
2019, arXiv 1908.10235) are stored on a grid, :class:`DenseField`, with the same interface. :data:`FIELD_KINDS` names
the generators; ``rng`` of each is a seeded ``numpy.random.RandomState`` or ``Generator``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from monai_regplugins import fields
from monai_regplugins.checks import InputError, check_mask, check_same_size
from monai_regplugins.synthesis.bspline_image import bspline_sample
from monai_regplugins.synthesis.ran_fields import image_center, separable_sum

__all__ = [
    "FIELD_KINDS",
    "PRESETS",
    "DenseField",
    "DisplacementFunction",
    "FieldPreset",
    "GaussianField",
    "mixed_frequency_field",
    "proportional_count",
    "random_field",
    "respiratory_field",
    "single_frequency_field",
    "smallest_determinant",
    "zero_field",
]

Rng: TypeAlias = np.random.RandomState | np.random.Generator
Array: TypeAlias = npt.NDArray[Any]

PAPER_VOXELS = 322 * 246 * 348  # of a typical image of the paper at 1 mm, which its numbers of points belong to
LEAST_COUNT = 3  # bumps in a small image
MOST_GAIN = 4.0  # of a bump, see _gains
NODES_PER_SIGMA, LARGEST_STEP = 5, 4.0  # of the grid on which extremes are searched
BLOCK_PRODUCTS = 2**19  # points times bumps at a time, for what they need to fit into a cache


@dataclass(frozen=True)
class FieldPreset:
    """Arguments of :func:`random_field`, which explains them; lengths in voxels."""

    sigma: float
    count: int
    theta: float
    margin: float = 0.0
    zeros: int = 0
    separation: float = 0.0


# Section 2.2 of the paper; `next` deforms the moving image itself. `v0.1` is the authors' TensorFlow release of the
# same method, which does without it. Its larger theta goes with sampling only voxels moved by less than 8.
PRESETS: dict[str, dict[str, FieldPreset]] = {
    "miccai2017": {
        "low": FieldPreset(35.0, 80, 8.0),
        "medium": FieldPreset(25.0, 100, 8.0),
        "high": FieldPreset(20.0, 100, 8.0),
        "next": FieldPreset(35.0, 100, 8.0),
    },
    "v0.1": {
        "low": FieldPreset(35.0, 100, 20.0, margin=33.0, zeros=2),
        "medium": FieldPreset(25.0, 100, 15.0, margin=33.0, zeros=2),
        "high": FieldPreset(20.0, 100, 15.0, margin=33.0, zeros=2, separation=40.0),
    },
}


class DisplacementFunction(Protocol):
    """A field u that has a value at every point, in voxels."""

    def on_axes(self, axes: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return u on the grid of d one-dimensional coordinate tensors, ``(d, *lens)``."""

    def at(self, points: torch.Tensor) -> torch.Tensor:
        """Return u at points ``(N, d)``, the same shape."""

    def jacobian_on_axes(self, axes: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the Jacobian of ``x + u(x)`` on a grid, ``(d, d, *lens)``, entry [i, j] of component i along j."""

    def jacobian_at(self, points: torch.Tensor) -> torch.Tensor:
        """Return the Jacobian of ``x + u(x)`` at points ``(N, d)``: ``(N, d, d)``."""

    def scaled(self, factor: float) -> DisplacementFunction:
        """Return the field ``factor * u``."""


@dataclass(frozen=True, eq=False)
class GaussianField:
    r"""A sum of Gaussian bumps, its positive and its negative values rescaled.

    .. math::
        u_c(x) = g_c^\pm v_c(x), \qquad v_c(x) = \sum_p a_{pc} \exp(-|x - p|^2 / 2 \sigma^2)

    with the gain :math:`g_c^+` where v is positive and :math:`g_c^-` where it is negative. Zero stays zero; where the
    gains differ, the slope has a kink at zero.

    Attributes:
        sigma: standard deviation, voxels.
        points: centers p of the bumps, ``(P, d)`` voxels.
        impulses: their vectors a, ``(P, d)`` voxels.
        positive: gains of positive values, ``(d,)``.
        negative: gains of negative values, ``(d,)``, positive numbers too.
    """

    sigma: float
    points: torch.Tensor
    impulses: torch.Tensor
    positive: torch.Tensor
    negative: torch.Tensor

    def on_axes(self, axes: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the field on a grid by one matrix product, ``(d, *lens)`` voxels.

        Args:
            axes: coordinates along each of d axes, floating, in any order and also beyond the image.
        """
        values = separable_sum(self._profiles(axes), self.impulses.to(axes[0]))
        return values * self._gain(values, axis=0)

    def at(self, points: torch.Tensor) -> torch.Tensor:
        """Return the field at points ``(N, d)``, exactly, in their type: ``(N, d)`` voxels."""
        values = torch.cat([bumps @ self.impulses.to(points) for _, bumps in self._bumps(points)])
        return values * self._gain(values, axis=1)

    def jacobian_on_axes(self, axes: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the Jacobian of ``x + u(x)`` on a grid, ``(d, d, *lens)``, entry [i, j] of component i along j."""
        profiles, vectors = self._profiles(axes), self.impulses.to(axes[0])
        gain = self._gain(separable_sum(profiles, vectors), axis=0)
        columns = []
        for k, axis in enumerate(axes):
            slope = profiles[k] * (self.points.to(axis)[:, k : k + 1] - axis) / self.sigma**2
            columns.append(gain * separable_sum([*profiles[:k], slope, *profiles[k + 1 :]], vectors))
        return torch.stack(columns, dim=1) + _identity(columns[0])

    def jacobian_at(self, points: torch.Tensor) -> torch.Tensor:
        """Return the Jacobian of ``x + u(x)`` at points ``(N, d)``: ``(N, d, d)``, entry [i, j] of i along j."""
        centers, vectors = self.points.to(points), self.impulses.to(points)
        parts = []
        for part, bumps in self._bumps(points):
            gain = self._gain(bumps @ vectors, axis=1)
            columns = [(bumps * (centers[:, k] - part[:, k : k + 1])) @ vectors for k in range(points.shape[1])]
            parts.append(gain[:, :, None] * torch.stack(columns, dim=2) / self.sigma**2)
        return torch.cat(parts) + torch.eye(points.shape[1]).to(points)

    def scaled(self, factor: float) -> GaussianField:
        """Return the field times a positive factor."""
        return replace(self, positive=self.positive * factor, negative=self.negative * factor)

    def _profiles(self, axes: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Factors of the bumps along each axis, ``(P, len)``."""
        points = self.points.to(axes[0])
        return [torch.exp(-0.5 * ((axis - points[:, k : k + 1]) / self.sigma) ** 2) for k, axis in enumerate(axes)]

    def _bumps(self, points: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield points in parts ``(n, d)``, and the value of each bump at them, ``(n, P)``."""
        centers = self.points.to(points)
        for part in points.split(max(BLOCK_PRODUCTS // max(len(centers), 1), 1)):
            # Differences first: squares of coordinates would lose the digits of a small distance.
            squares = (part[:, :1] - centers[:, 0]).square_()
            for k in range(1, points.shape[1]):
                offset = part[:, k : k + 1] - centers[:, k]
                squares.addcmul_(offset, offset)
            yield part, squares.mul_(-0.5 / self.sigma**2).exp_()

    def _gain(self, values: torch.Tensor, axis: int) -> torch.Tensor:
        """The gain of each value, whose components lie along ``axis``."""
        shape = [-1 if k == axis else 1 for k in range(values.ndim)]
        return torch.where(values > 0, self.positive.to(values).view(shape), self.negative.to(values).view(shape))


@dataclass(frozen=True, eq=False)
class DenseField:
    """A field stored on the voxels, linear in between and constant beyond the border.

    Attributes:
        values: ``(d, *spatial)`` voxels.
    """

    values: torch.Tensor

    def on_axes(self, axes: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the field on a grid of coordinates, ``(d, *lens)`` voxels."""
        return _on_grid(self.at, axes)

    def at(self, points: torch.Tensor) -> torch.Tensor:
        """Return the field at points ``(N, d)``, the same shape."""
        return fields.sample_at(self.values[None], points[None])[0]

    def jacobian_on_axes(self, axes: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the Jacobian of ``x + u(x)`` on a grid, ``(d, d, *lens)``, of differences between voxels."""
        d, lens = len(axes), [len(axis) for axis in axes]
        return _on_grid(lambda points: self.jacobian_at(points).flatten(1), axes).view(d, d, *lens)

    def jacobian_at(self, points: torch.Tensor) -> torch.Tensor:
        """Return the Jacobian of ``x + u(x)`` at points ``(N, d)``: ``(N, d, d)``, of differences between voxels."""
        d = points.shape[1]
        return fields.sample_at(fields.jacobian(self.values[None]).flatten(1, 2), points[None])[0].view(-1, d, d)

    def scaled(self, factor: float) -> DenseField:
        """Return the field times a factor."""
        return DenseField(self.values * factor)


def random_field(
    rng: Rng,
    spatial_shape: Sequence[int],
    sigma: float,
    count: int,
    theta: float,
    margin: float = 0.0,
    zeros: int = 0,
    separation: float = 0.0,
    *,
    density: bool = False,
    least_determinant: float | None = 0.1,
    tries: int = 10,
) -> GaussianField:
    r"""Draw a field as in Section 2.2 of the paper: P random points with vectors in [-theta, theta]^d, smoothed.

    Smoothing leaves a peak of an impulse only :math:`(2 \pi)^{-3/2} \sigma^{-3}` of its height, 1e-5 here, which the
    paper passes over. As in the authors' code, the positive and the negative values of each component are scaled
    such that the extremes over the image are the largest and the smallest impulse.

    Args:
        rng: source of the random numbers.
        spatial_shape: size of the image, d numbers.
        sigma: standard deviation of the smoothing, voxels.
        count: P, number of points, for an image of the paper's size (322 x 246 x 348 voxels) if ``density`` is set.
        theta: largest component of a vector, voxels.
        margin: distance of the points from the border, voxels, at most a quarter of an axis.
        zeros: so many of the points get the zero vector.
        separation: points differ by at least so many voxels along one of the axes; fewer are drawn if no more fit in.
        density: let the number of points follow the size of the image, see :func:`proportional_count`. Without it all
            of them crowd into a small image, where they average out to an almost constant field.
        least_determinant: smallest Jacobian determinant that is accepted, between 0 (no folding) and 1; None
            accepts all. It is computed on a grid of ``sigma / 5``, at most 4 voxels.
        tries: fields to draw; if all have a smaller determinant, the last one is scaled down until it has not.

    Raises:
        InputError: When a number is out of its range.

    Example:
        >>> field = random_field(np.random.default_rng(0), (40, 50), 10.0, 4, 3.0)
        >>> field.at(torch.tensor([[20.0, 25.0]])).shape
        torch.Size([1, 2])
    """
    positive = {"sigma": sigma, "count": count, "tries": tries}
    _check_numbers(positive, theta=theta, margin=margin, zeros=zeros, separation=separation)
    shape = tuple(int(n) for n in spatial_shape)
    number = proportional_count(count, sigma, shape) if density else count
    for _ in range(tries):
        points = _draw_points(rng, shape, number, margin, separation)
        impulses = torch.as_tensor(rng.uniform(-theta, theta, size=points.shape))
        impulses[:zeros] = 0.0
        field = GaussianField(sigma, points, impulses, *_gains(sigma, points, impulses, shape))
        if least_determinant is None:
            return field
        factor = _unfolding_factor(field.jacobian_on_axes(_grid(shape, _step(sigma))), least_determinant)
        if factor == 1.0:
            return field
    return field.scaled(factor)


def proportional_count(count: int, sigma: float, spatial_shape: Sequence[int]) -> int:
    r"""Return how many points an image needs to be as densely covered with bumps as the paper's, at least 3.

    A bump covers :math:`(\sqrt{2 \pi} \sigma)^d` voxels; what is kept is the share of the image covered by all. In 3D
    that makes the number proportional to the voxels: 100 points of the paper are 3 in 96^3. A slice of the paper's size
    (322 x 348) needs 29 instead of 80 for sigma 35.

    Args:
        count: P for an image of 322 x 246 x 348 voxels.
        sigma: standard deviation, voxels.
        spatial_shape: size of the image, d numbers.
    """
    d = len(spatial_shape)
    reach = math.sqrt(2 * math.pi) * sigma
    return max(LEAST_COUNT, round(count * reach ** (3 - d) * math.prod(spatial_shape) / PAPER_VOXELS))


def smallest_determinant(field: DisplacementFunction, spatial_shape: Sequence[int], step: float = 2.0) -> float:
    """Return the smallest Jacobian determinant of ``x + u(x)`` over an image; not above 0 where the field folds.

    Args:
        field: u.
        spatial_shape: size of the image.
        step: distance of the points looked at, at most, voxels.
    """
    return float(fields.determinant_of(field.jacobian_on_axes(_grid(spatial_shape, step))[None]).min())


def zero_field(rng: Rng, spatial_shape: Sequence[int]) -> DenseField:
    """Return the identity: no motion at all, which a network has to learn as well. ``rng`` is not used."""
    return DenseField(torch.zeros(len(spatial_shape), *spatial_shape))


def single_frequency_field(
    rng: Rng,
    spatial_shape: Sequence[int],
    theta: float,
    spacing: float = 35.0,
    mask: torch.Tensor | None = None,
    least_determinant: float | None = 0.1,
) -> DenseField:
    """Draw a cubic B-spline field with random coefficients: the "single frequency" of Sokooti et al. 2019.

    Coefficients are uniform in ``[-4 theta, 4 theta]``, zero at the border, smoothed by 0.8 cells and scaled down to at
    most ``1.7 theta``; the field is scaled down to ``theta``. It is often smaller, since it is never scaled up.

    Args:
        rng: source of the random numbers.
        spatial_shape: size of the image, d numbers.
        theta: largest component, voxels.
        spacing: distance of the coefficients, voxels. The authors have 20 to 50 for theta 7.
        mask: ``(1, *spatial)``, the body; beyond it the field fades out to zero within about 8/7 theta.
        least_determinant: the field is scaled down until no Jacobian determinant is smaller; None leaves it.

    Raises:
        InputError: When a number is out of its range, or the mask is empty or of another size.
    """
    _check_numbers({"spacing": spacing}, theta=theta)
    values = _spline_values(rng, spatial_shape, theta, spacing)
    if mask is not None:
        body = _volume(mask, spatial_shape, "mask") > 0
        values *= torch.as_tensor(ndimage.gaussian_filter(body.astype(np.float32), max(8 / 7 * theta, 0.5)))
    return _limited(values, theta, least_determinant)


def mixed_frequency_field(
    rng: Rng,
    spatial_shape: Sequence[int],
    theta: float,
    image: torch.Tensor,
    mask: torch.Tensor,
    spacing: float = 35.0,
    sigma: tuple[float, float] = (5.0, 10.0),
    edge: tuple[float, float] = (50.0, 100.0),
    iterations: int = 150,
    least_determinant: float | None = 0.1,
) -> DenseField:
    """Draw a field that moves edges of the image: the "mixed frequency" of Sokooti et al. 2019.

    Per component: edges inside the mask, in random blocks erased (10 of 12 times) or dilated, filled with a B-spline
    field, smoothed. Edges are here the voxels of steep intensity that connect to steeper ones, the second half of
    Canny's method; the number of blocks is that of the paper's image and follows the size.

    Args:
        rng: source of the random numbers.
        spatial_shape: size of the image, d numbers.
        theta: largest component, voxels.
        image: ``(1, *spatial)`` HU.
        mask: ``(1, *spatial)``, the lungs; it is dilated by 3 voxels.
        spacing: of the B-spline field, voxels.
        sigma: range of the standard deviation of the smoothing, voxels.
        edge: the two thresholds of the gradient, HU per voxel.
        iterations: number of blocks, for an image of 322 x 246 x 348 voxels; less than 1 in a small one is none.
        least_determinant: the field is scaled down until no Jacobian determinant is smaller; None leaves it.

    Raises:
        InputError: When a number is out of its range, or image or mask do not fit.
    """
    _check_numbers({"spacing": spacing, "smallest sigma": min(sigma)}, theta=theta)
    lungs = ndimage.binary_dilation(_volume(mask, spatial_shape, "mask") > 0, iterations=3)
    gradient = ndimage.gaussian_gradient_magnitude(_volume(image, spatial_shape, "image").astype(np.float32), 1.0)
    edges = ndimage.binary_propagation((gradient > edge[1]) & lungs, mask=(gradient > edge[0]) & lungs)
    blocks = round(iterations * math.prod(spatial_shape) / PAPER_VOXELS)
    fill = _spline_values(rng, spatial_shape, theta, spacing)
    fill *= rng.uniform(theta, 2 * theta) / fill.abs().max().clamp_min(1e-6)
    parts = []
    for component in fill.numpy():
        moved = np.where(_rearranged(rng, edges, blocks), component, 0.0)
        parts.append(ndimage.gaussian_filter(moved, rng.uniform(*sigma)))
    return _limited(torch.as_tensor(np.stack(parts), dtype=torch.float32), theta, least_determinant)


def respiratory_field(
    rng: Rng,
    spatial_shape: Sequence[int],
    theta: float,
    mask: torch.Tensor,
    shift: float | None = None,
    scaling: float = 0.12,
    spacing: float = 35.0,
    least_determinant: float | None = 0.1,
) -> DenseField:
    """Draw a field like breathing, without sliding: the "respiratory" one of Sokooti et al. 2019.

    The warped image is exhaled: all below the lungs moves up by ``shift``, less above, logarithmically, nothing from
    half of the height of the lungs on; and the chest is thinner by ``scaling``, about a point 2 to 12 voxels before
    the rear of the lungs. Half a B-spline field is added, its part along the body times 0.3. Both amplitudes are
    multiplied by U(0.8, 1.1); components are limited to 1.2 theta.

    Args:
        rng: source of the random numbers.
        spatial_shape: size of the image, 3 numbers; axis 1 points to the front and axis 2 to the head (as in RAS).
        theta: largest component divided by 1.2, voxels.
        mask: ``(1, *spatial)``, the lungs.
        shift: voxels; None follows theta as in their work: 15, 22 and 30 for 7, 15 and 20.
        scaling: relative change of the thickness of the chest.
        spacing: of the B-spline field, voxels.
        least_determinant: the field is scaled down until no Jacobian determinant is smaller; None leaves it.

    Raises:
        InputError: When the image is not 3D, a number is out of its range, or the mask is empty or of another size.
    """
    if len(spatial_shape) != 3:
        raise InputError(f"spatial_shape has {len(spatial_shape)} axes, expected 3; give a volume, or another kind.")
    _check_numbers({"spacing": spacing}, theta=theta)
    inside = np.nonzero(_volume(mask, spatial_shape, "mask") > 0)
    bottom, rear = int(inside[2].min()), int(inside[1].min())
    middle = (bottom + int(inside[2].max())) / 2
    factor = rng.uniform(0.8, 1.1)
    lift = factor * (float(np.interp(theta, [7, 15, 20], [15, 22, 30])) if shift is None else shift)
    x = fields.identity_grid(tuple(spatial_shape))
    height = ((x[2] - bottom) / max(middle - bottom, 1.0)).clamp(0, 1)
    values = _spline_values(rng, spatial_shape, theta / 2, spacing)
    values[2] = 0.3 * values[2] - lift * (1 - torch.log1p((math.e - 1) * height))
    values[1] += factor * scaling * (x[1] - (rear - rng.uniform(2, 12)))
    # Component by component, for the larger motion along the body must not wipe out the others.
    peaks = values.flatten(1).abs().amax(dim=1).clamp_min(1e-6)
    values *= (1.2 * theta / peaks).clamp_max(1.0).view(-1, 1, 1, 1)
    return _limited(values, 1.2 * theta, least_determinant)


FIELD_KINDS: dict[str, Callable[..., DisplacementFunction]] = {
    "smooth": random_field,
    "single_frequency": single_frequency_field,
    "mixed_frequency": mixed_frequency_field,
    "respiratory": respiratory_field,
    "zero": zero_field,
}
"""Generators by name; the first arguments of each are ``rng`` and ``spatial_shape``."""


def _draw_points(rng: Rng, shape: Sequence[int], count: int, margin: float, separation: float) -> torch.Tensor:
    """Draw up to ``count`` points ``(P, d)``, float64, no two of them in a cube of half width ``separation``."""
    extent = np.asarray(shape, dtype=float) - 1
    low = np.minimum(margin, extent / 4)
    if separation == 0:
        return torch.as_tensor(rng.uniform(low, extent - low, size=(count, len(shape))))
    kept: list[Array] = []
    for _ in range(20):  # batches of candidates; the last ones find hardly any room left
        candidates = rng.uniform(low, extent - low, size=(1000, len(shape)))
        for point in kept:
            candidates = _apart(candidates, point, separation)
        while len(candidates) and len(kept) < count:
            kept.append(candidates[0])
            candidates = _apart(candidates, kept[-1], separation)
    return torch.as_tensor(np.stack(kept))


def _apart(candidates: Array, point: Array, separation: float) -> Array:
    """Candidates outside the cube about a point."""
    apart: Array = candidates[np.abs(candidates - point).max(axis=1) >= separation]
    return apart


def _gains(
    sigma: float, points: torch.Tensor, impulses: torch.Tensor, shape: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gains that bring the extremes of the bumps over the image to those of the impulses, at most 4 each.

    The limit matters in small images only, where all of a component may have one sign but for a remainder. That would
    be blown up to a steep wall, and to more than theta beyond the border.
    """
    ones = torch.ones(len(shape), dtype=torch.float64)
    raw, step = GaussianField(sigma, points, impulses, ones, ones), _step(sigma)
    axes = _grid(shape, step)
    values = raw.on_axes(axes)
    gains = []
    for sign in (1, -1):
        peaks = (sign * impulses).amax(dim=0).clamp_min(0)
        heights = torch.stack([_height(raw, axes, sign * values[c], c, sign, step) for c in range(len(shape))])
        gains.append(torch.where(peaks > 0, (peaks / heights.clamp_min(1e-9)).clamp_max(MOST_GAIN), ones))
    return gains[0], gains[1]


def _height(
    field: GaussianField, axes: Sequence[torch.Tensor], values: torch.Tensor, component: int, sign: int, step: float
) -> torch.Tensor:
    """Maximum of one component times ``sign``, found on a grid and then looked for more closely."""
    nodes = np.unravel_index(int(values.argmax()), tuple(values.shape))
    offsets = torch.linspace(-step, step, 17, dtype=torch.float64)
    local = [(axis[n].double() + offsets).clamp(0, float(axis[-1])) for axis, n in zip(axes, nodes, strict=True)]
    return (sign * field.on_axes(local)[component]).max()


def _unfolding_factor(jacobian: torch.Tensor, least: float) -> float:
    """Factor, at most 1, on a field of this Jacobian ``(d, d, *spatial)`` that keeps determinants at ``least``."""
    if not 0 <= least < 1:
        raise InputError(f"least_determinant is {least}, expected at least 0 and less than 1, or None.")
    identity, factor = _identity(jacobian[0]), 1.0
    while fields.determinant_of((identity + factor * (jacobian - identity))[None]).min() < least:
        factor *= 0.95
    return factor


def _identity(like: torch.Tensor) -> torch.Tensor:
    """The unit matrix, ``(d, d, 1, ...)``, to be added to a Jacobian of a field ``(d, *spatial)``."""
    return torch.eye(len(like), dtype=like.dtype, device=like.device).view(len(like), len(like), *[1] * (like.ndim - 1))


def _step(sigma: float) -> float:
    """Distance of the nodes between which a field of this sigma hardly changes its course."""
    return min(max(sigma / NODES_PER_SIGMA, 1.0), LARGEST_STEP)


def _grid(shape: Sequence[int], step: float) -> list[torch.Tensor]:
    """Coordinates from the first to the last voxel of each axis, at most ``step`` apart."""
    return [torch.linspace(0, n - 1, math.ceil((n - 1) / step) + 1) for n in shape]


def _on_grid(function: Callable[[torch.Tensor], torch.Tensor], axes: Sequence[torch.Tensor]) -> torch.Tensor:
    """Evaluate a function of points ``(N, d)`` on a grid: ``(C, *lens)``."""
    mesh = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    values: torch.Tensor = function(mesh.flatten(1).T).T
    return values.reshape(-1, *mesh.shape[1:])


def _spline_values(rng: Rng, shape: Sequence[int], theta: float, spacing: float) -> torch.Tensor:
    """Values of a random cubic B-spline field, ``(d, *shape)``, coefficients limited to 1.7 theta."""
    nodes = [math.ceil((n - 1) / spacing) + 3 for n in shape]
    coefficients = np.zeros((len(shape), *nodes))
    inner = (slice(None), *[slice(1, -1)] * len(shape))
    coefficients[inner] = rng.uniform(-4 * theta, 4 * theta, size=coefficients[inner].shape)
    smooth = ndimage.gaussian_filter(coefficients, (0, *[0.8] * len(shape)), mode="constant")
    smooth *= 1.7 * theta / max(1.7 * theta, float(np.abs(smooth).max()), 1e-6)
    center = ((torch.tensor(nodes) - 1) / 2).view(-1, *[1] * len(shape))
    offset = fields.identity_grid(tuple(shape)) - image_center(shape).view_as(center)
    return bspline_sample(torch.as_tensor(smooth, dtype=torch.float32), offset / spacing + center)


def _limited(values: torch.Tensor, theta: float, least: float | None) -> DenseField:
    """A field scaled down to components of at most ``theta`` and to determinants of at least ``least``."""
    peak = float(values.abs().max())
    field = DenseField(values * min(1.0, theta / max(peak, 1e-6)))
    if least is None:
        return field
    return field.scaled(_unfolding_factor(fields.jacobian(field.values[None])[0], least))


def _rearranged(rng: Rng, edges: Array, blocks: int, radius: int = 20) -> Array:
    """Edges after random blocks of them were erased or dilated by one of two elements."""
    result: Array = edges.copy()
    centers = np.argwhere(edges)
    radius = min(radius, min(edges.shape) // 5)
    elements = [ndimage.generate_binary_structure(edges.ndim, reach) for reach in (1, edges.ndim)]
    for k in range(blocks if len(centers) else 0):
        center = centers[int(rng.uniform(0, len(centers)))]
        block = tuple(slice(max(c - radius, 0), c + radius + 1) for c in center)
        if k < blocks * 10 // 12:
            result[block] = False
        else:
            result[block] = ndimage.binary_dilation(result[block], elements[k % 2], iterations=2)
    return result


def _volume(image: torch.Tensor, shape: Sequence[int], name: str) -> Array:
    """A channel-first image as an array ``(*spatial)``, checked to have the size and not to be empty."""
    check_same_size(tuple(image.shape), (1, *shape), name, "the field with a channel")
    if name == "mask":
        check_mask(image, name)
    return np.asarray(image[0].detach().cpu())


def _check_numbers(above: dict[str, float] | None = None, **at_least: float) -> None:
    """Check that the numbers of ``above`` are positive, the others not negative."""
    for name, value in (above or {}).items():
        if not value > 0:
            raise InputError(f"{name} is {value}, expected a number above 0.")
    for name, value in at_least.items():
        if not value >= 0:
            raise InputError(f"{name} is {value}, expected 0 or more.")
