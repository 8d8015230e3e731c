"""Labels and landmarks as terms of the loss of instance optimization: sums over voxels, with closed-form gradients."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from monai_regplugins import fields
from monai_regplugins.losses.axis_products import along_axes
from monai_regplugins.losses.sampled_image import SampledImage
from monai_regplugins.losses.with_gradient import with_gradient

__all__ = ["Driver", "LabelDistance", "LandmarkDistance"]

MARGIN = 4  # voxels around both regions of a label, in which its distance is measured
SPREAD = 2.0  # voxels: standard deviation of the region around a landmark that moves with it
LEAST = 1e-6  # of a volume or of a weight: less is none


class Driver(ABC):
    """A term of the loss of a field that is a sum over voxels."""

    def __call__(self, ddf: Tensor) -> Tensor:
        """Return the loss of a field ``(1, d, *spatial)`` in voxels, a scalar."""
        return with_gradient(self.sums, ddf)

    @abstractmethod
    def sums(self, ddf: Tensor, first: int = 0) -> tuple[Tensor, Tensor]:
        """Return the share of some rows of a field, and its gradient of the shape of these.

        Args:
            ddf: rows of the field along the first axis, ``(1, d, rows, *others)``,
            first: which begin here.
        """


class _Window(NamedTuple):
    """The part of the grid in which a label is compared, and its share of the loss per squared difference."""

    where: tuple[slice, ...]
    moving: SampledImage
    fixed: Tensor
    scale: float

    def add(self, ddf: Tensor, first: int, weights: Tensor, gradient: Tensor) -> Tensor:
        """Return the share of some rows, and add its gradient."""
        start = self.where[0].start
        low, high = max(start, first), min(self.where[0].stop, first + ddf.shape[2])
        value = ddf.new_zeros(())
        if low >= high:
            return value
        rows = (slice(low - first, high - first), *self.where[1:])
        part: tuple[slice, ...] = (slice(None), slice(None), *rows)
        fixed, weights, gradient = self.fixed[low - start : high - start], weights[rows], gradient[part]
        for slab, _, channels in self.moving.slabs(ddf[part], low - start):
            ((values, slopes),) = channels
            difference = values - fixed[slab]
            weighted = difference * weights[slab] * self.scale
            value += (difference * weighted).sum()
            for axis, slope in enumerate(slopes):
                gradient[0, axis, slab].addcmul_(weighted, slope, value=2)
        return value


class LabelDistance(Driver):
    r"""Squared difference between the warped and the fixed regions of labels, relative to their volumes.

    .. math::
        L(u) = \frac{\lambda}{|K|} \sum_{k \in K}
        \frac{\sum_{x \in \Omega_k} w(x) \, (m_k(x + u) - f_k(x))^2}{\sum_x w(x) \, (m_k(x)^2 + f_k(x)^2)},

    with the shares m and f of label k in each voxel, from 0 to 1. For regions that keep their volume a fraction is one
    minus the soft Dice of Milletari et al. 2016, and with a denominator that does not depend on u the sum over voxels
    comes in slabs. :math:`\Omega_k` is the box around both regions and four voxels more: a label costs as much as it is
    large. Beyond the border of the image labels continue, as descriptors do.

    Args:
        shares: m and f of each label, ``(1, 1, *spatial)``.
        weight: :math:`\lambda`.
        weights: w, of the fixed voxels, ``(1, 1, *spatial)``; ones by default.
        seen: the voxels of the moving image that count, likewise; w is 0 where x + u is none of them.

    Example:
        >>> region = torch.zeros(1, 1, 8, 8).index_fill(2, torch.tensor([3, 4]), 1.0)
        >>> LabelDistance([(region, region.roll(1, 2))])(torch.zeros(1, 2, 8, 8))
        tensor(0.5000)
    """

    def __init__(
        self,
        shares: Iterable[tuple[Tensor, Tensor]],
        weight: float = 1.0,
        weights: Tensor | None = None,
        seen: Tensor | None = None,
    ) -> None:
        self.weights = weights
        self.seen = None if seen is None else SampledImage(seen, "border", seen > 0)
        windows = [window for window in (self._window(*pair) for pair in shares) if window is not None]
        self.windows = [window._replace(scale=weight * window.scale / len(windows)) for window in windows]

    def _window(self, moving: Tensor, fixed: Tensor) -> _Window | None:
        """The window of a label; None if nothing of it counts."""
        squares = moving.square() + fixed.square()
        volume = float((squares if self.weights is None else squares * self.weights).sum(dtype=torch.float64))
        if volume < LEAST:
            return None
        where = _box(moving[0, 0] + fixed[0, 0])
        sampled = SampledImage(moving[0, 0][where][None, None], "border")
        return _Window(where, sampled, fixed[0, 0][where].clone(), 1 / volume)

    def sums(self, ddf: Tensor, first: int = 0) -> tuple[Tensor, Tensor]:
        """Return the share of some rows, and its gradient."""
        value, gradient, weights = ddf.new_zeros(()), torch.zeros_like(ddf), self._weights(ddf, first)
        for window in self.windows:
            value += window.add(ddf, first, weights, gradient)
        return value, gradient

    def _weights(self, ddf: Tensor, first: int) -> Tensor:
        """How far voxels of some rows count, ``(rows, *others)``."""
        rows = slice(first, first + ddf.shape[2])
        weights = torch.ones_like(ddf[0, 0]) if self.weights is None else self.weights[0, 0, rows].to(ddf.dtype)
        if self.seen is None:
            return weights
        return weights * torch.cat([seen for _, seen, _ in self.seen.slabs(ddf, first) if seen is not None])


class LandmarkDistance(Driver):
    r"""Squared difference between a field and the displacements of landmarks, in a region around each.

    .. math::
        L(u) = \frac{\lambda}{|\Omega|} \sum_x D(x) \, \| u(x) - t(x) \|^2, \qquad
        D(x) = \sum_i w_i \, e^{-|x - p_i|^2 / 2 \sigma^2}, \qquad
        t(x) = \frac{1}{D(x)} \sum_i w_i \, e^{-|x - p_i|^2 / 2 \sigma^2} (q_i - p_i),

    which is the squared distance of each fixed point's region from where it belongs, but for a constant. A pull at the
    very point would move that alone: the smoothness is a sum of squared differences, which a peak hardly changes.

    Args:
        points: p, ``(N, d)``, voxels of the fixed grid.
        displacements: q - p, to the moving points on the same grid, voxels.
        size: of the grid.
        weight: :math:`\lambda`, times w, one number or N.

    Example:
        >>> points, right = torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 2.0]])
        >>> driver = LandmarkDistance(points, right, [8, 8])
        >>> driver(right.view(1, 2, 1, 1).expand(1, 2, 8, 8))
        tensor(0.)
    """

    def __init__(
        self, points: Tensor, displacements: Tensor, size: Sequence[int], weight: float | Tensor = 1.0
    ) -> None:
        weights = torch.as_tensor(weight).to(points).expand(len(points)).unsqueeze(1)
        values = torch.cat([weights, weights * displacements], dim=1)
        sums = along_axes(_adjoint(values, points, size), [_gaussian(n, points) for n in size])
        density = sums[:, :1]
        self.target = sums[:, 1:] / density.clamp_min(LEAST)
        self.density = torch.where(density > LEAST, density, 0) / density.numel()

    def sums(self, ddf: Tensor, first: int = 0) -> tuple[Tensor, Tensor]:
        """Return the share of some rows, and its gradient."""
        rows = slice(first, first + ddf.shape[2])
        difference = ddf - self.target[:, :, rows]
        weighted = difference * self.density[:, :, rows]
        return (difference * weighted).sum(), weighted.mul_(2)


def _box(region: Tensor) -> tuple[slice, ...]:
    """Where a region ``(*spatial)`` is above 0, and a margin."""
    above, axes = region > 0, range(region.ndim)
    ends = [above.any(dim=[k for k in axes if k != axis]).nonzero()[[0, -1], 0].tolist() for axis in axes]
    return tuple(
        slice(max(0, a - MARGIN), min(n, b + 1 + MARGIN)) for (a, b), n in zip(ends, region.shape, strict=True)
    )


@torch.enable_grad()
def _adjoint(values: Tensor, points: Tensor, size: Sequence[int]) -> Tensor:
    """Add values ``(N, C)`` to the voxels around points: the adjoint of linear interpolation, ``(1, C, *size)``."""
    grid = values.new_zeros(1, values.shape[1], *size, requires_grad=True)
    return torch.autograd.grad(fields.sample_at(grid, points[None]), grid, values[None])[0]


def _gaussian(size: int, like: Tensor) -> Tensor:
    """Sums over an axis, weighted by a Gaussian whose peak is 1."""
    voxels = torch.arange(size).to(like)
    return torch.exp(-0.5 * ((voxels - voxels[:, None]) / SPREAD).square())
