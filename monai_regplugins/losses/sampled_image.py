"""Repeated linear interpolation of one image, with value and gradient from a single read of the voxels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional

from monai_regplugins import fields
from monai_regplugins.checks import check_choice
from monai_regplugins.losses.with_gradient import with_gradient

__all__ = ["SampledImage"]

TOLERANCE = 1e-3  # voxels: a position that is no farther outside lies on the image
SIDE = 256  # times the rounding of numbers: positions closer to a voxel center belong to the cells at its sides in turn


class SampledImage:
    r"""An image that is warped repeatedly, ``image(x + u(x))``, with closed-form gradients.

    In the cell of the voxels :math:`v_{abc}`, a, b, c = 0 or 1, with the fractions r, s, t of the position,

    .. math::
        I = \sum_{abc} v_{abc} \, r_a s_b t_c, \qquad
        \frac{\partial I}{\partial u_1} = \sum_{bc} (v_{1bc} - v_{0bc}) \, s_b t_c, \qquad r_1 = r, \; r_0 = 1 - r,

    and alike along the other axes; zero where the position was clamped. At voxel centers, as under no displacement,
    every second voxel along an axis takes the slope on its upper side and the others that on their lower one, so that
    no direction is preferred. The values are those of
    :func:`~monai_regplugins.fields.warp`. No gradient flows to the image.

    A position is seen where it lies on the image, and all voxels of its cell count.

    Args:
        image: ``(1, C, *spatial)``, 2D or 3D, float32 or float64; one channel if it is called.
        padding: what lies outside, ``"zeros"`` or ``"border"``.
        counts: the voxels that count, bool ``(1, 1, *spatial)``; None if it is not asked what is seen.

    Raises:
        InputError: ``padding`` is unknown.

    Example:
        >>> image = torch.arange(5.0).view(1, 1, 1, 5)
        >>> ddf = torch.tensor([0.0, 1.0]).view(1, 2, 1, 1).expand(1, 2, 1, 5)
        >>> SampledImage(image)(ddf)
        (tensor([[[[1., 2., 3., 4., 0.]]]]), None)
    """

    def __init__(self, image: Tensor, padding: str = "zeros", counts: Tensor | None = None) -> None:
        check_choice(padding, ("zeros", "border"), "padding")
        self.sizes = list(image.shape[2:])
        # so many voxels around the image that the outermost cells are flat: clamped positions have no slope
        self.margin, mode = (2, "constant") if padding == "zeros" else (1, "replicate")
        around = [self.margin] * (2 * len(self.sizes))
        padded = functional.pad(image.detach(), around, mode=mode)
        self.strides = [math.prod(padded.shape[axis + 1 :]) for axis in range(2, padded.ndim)]
        self.voxels = padded[0].flatten(1)
        self.whole_cells = torch.empty(0, dtype=torch.uint8)  # as if nothing was asked
        if counts is not None:
            self.whole_cells = _whole_cells(counts, self.margin)

    def __call__(self, ddf: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the image under a field ``(1, d, *spatial)``, and which voxels see it, both ``(1, 1, *spatial)``."""
        seen: list[Tensor | None] = [None]

        def sample(ddf: Tensor) -> tuple[Tensor, Tensor]:
            values, slopes, seen[0] = self.sample(ddf)
            return values, slopes

        return with_gradient(sample, ddf), seen[0]

    def sample(self, ddf: Tensor, first: int = 0) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return values, their derivatives by the field ``(1, d, *spatial)``, and which voxels see the image.

        Args:
            ddf: the field, or some of its rows along the first axis,
            first: which begin here.
        """
        values, slopes = torch.empty_like(ddf[:, :1]), torch.empty_like(ddf)
        seen = torch.empty_like(values) if len(self.whole_cells) else None
        for slab, on_image, channels in self.slabs(ddf, first):
            if seen is not None and on_image is not None:
                seen[0, 0, slab] = on_image
            for value, slope in channels:
                values[0, 0, slab] = value
                for axis, derivative in enumerate(slope):
                    slopes[0, axis, slab] = derivative
        return values, slopes, seen

    def slabs(
        self, ddf: Tensor, first: int = 0
    ) -> Iterator[tuple[slice, Tensor | None, Iterator[tuple[Tensor, list[Tensor]]]]]:
        """Yield slabs, which of their voxels see the image, and values and slopes of each channel."""
        for slab in fields.slabs(ddf.shape[2:]):
            voxels = self._own_positions(ddf[0, :, slab], first + slab.start)
            positions = [x + u for x, u in zip(voxels, ddf[0, :, slab], strict=True)]
            cells, fractions = self._cells(positions, voxels)
            seen = None
            if len(self.whole_cells):
                seen = _taken(self.whole_cells, cells).to(ddf.dtype).mul_(self._is_on_image(positions))
            yield slab, seen, self._channels(cells, fractions)

    def _channels(self, cells: Tensor, fractions: Sequence[Tensor]) -> Iterator[tuple[Tensor, list[Tensor]]]:
        """Yield values and slopes of each channel."""
        for voxels in self.voxels:
            value, *slopes = _values_and_slopes(self._corners(voxels, cells), fractions)
            yield value, slopes[::-1]

    def _own_positions(self, slab: Tensor, start: int) -> list[Tensor]:
        """Along each axis, where the voxels of a slab lie in the padded image, to be broadcast over the other axes."""
        ranges = [torch.arange(n, dtype=slab.dtype, device=slab.device) + self.margin for n in slab.shape[1:]]
        ranges[0] += start
        shapes = torch.eye(len(ranges), dtype=torch.int64).mul(-2).add(1).tolist()  # -1 along the own axis, else 1
        return [x.view(shape) for x, shape in zip(ranges, shapes, strict=True)]

    def _is_on_image(self, positions: list[Tensor]) -> Tensor:
        """Where positions do not lie outside."""
        inside = torch.ones((), dtype=torch.bool, device=positions[0].device)
        for position, size in zip(positions, self.sizes, strict=True):
            middle = (size - 1) / 2
            inside = inside & ((position - self.margin - middle).abs_() <= middle + TOLERANCE)
        return inside

    def _cells(self, positions: list[Tensor], voxels: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The first corners of the cells that positions lie in, and the fractions of the positions there."""
        fractions, index = list[Tensor](), torch.zeros((), dtype=torch.int32, device=positions[0].device)
        for position, x, size, stride in zip(positions, voxels, self.sizes, self.strides, strict=True):
            last = size - 1 + 2 * self.margin
            side = SIDE * torch.finfo(x.dtype).eps * (2 * (x % 2) - 1)
            clamped = position.clamp(0, last)
            low = (clamped + side).floor_().clamp_(0, last - 1)
            fractions.append(clamped.sub_(low))
            index = index + low.to(torch.int32).mul_(stride)
        return index, fractions

    def _corners(self, voxels: Tensor, cells: Tensor) -> list[Tensor]:
        """The values at all corners of cells."""
        steps = [sum(step) for step in product(*((0, stride) for stride in self.strides))]
        return [_taken(voxels[step:], cells) for step in steps]


def _taken(values: Tensor, index: Tensor) -> Tensor:
    """Values of a flat tensor at indices of any shape."""
    return values.index_select(0, index.flatten()).view(index.shape)


def _whole_cells(counts: Tensor, margin: int) -> Tensor:
    """For each voxel ``(1, 1, *spatial)`` and in a margin, whether the cell above it has only such that count; flat."""
    whole = counts.byte()  # a quarter of the memory of a number
    for axis in range(2, counts.ndim):
        ends = [whole.narrow(axis, at, 1) for at in (0, whole.shape[axis] - 1)]
        whole = torch.cat([*[ends[0]] * margin, whole, *[ends[1]] * margin], dim=axis)
    for axis in range(2, counts.ndim):
        whole = whole & whole.roll(-1, axis)
    return whole.flatten()


def _values_and_slopes(corners: list[Tensor], fractions: Sequence[Tensor]) -> list[Tensor]:
    """Interpolate corners, the last axis fastest; return values, and their slopes along the axes, last one first."""
    channels = [corners]
    for fraction in reversed(fractions):
        slopes = [high - low for low, high in zip(corners[::2], corners[1::2], strict=True)]
        channels = [_halved(channel, fraction) for channel in channels] + [slopes]
        corners = channels[0]
    return [value for (value,) in channels]


def _halved(corners: list[Tensor], fraction: Tensor) -> list[Tensor]:
    """Interpolate along the last axis that is left."""
    return [torch.lerp(low, high, fraction) for low, high in zip(corners[::2], corners[1::2], strict=True)]
