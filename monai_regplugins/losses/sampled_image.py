"""An image that is warped many times: value and gradient of its linear interpolation from one reading of the voxels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional

from monai_regplugins import fields
from monai_regplugins.checks import check_choice
from monai_regplugins.losses.with_gradient import with_gradient

__all__ = ["SampledImage"]

SIDE = 256  # times the rounding of numbers: positions closer to a voxel center belong to the cells at its sides in turn


class SampledImage:
    r"""An image that is pulled back along many fields, ``image(x + u(x))``, each time with its closed-form gradient.

    In the cell of the voxels :math:`v_{abc}`, a, b, c = 0 or 1, with the fractions r, s, t of the position,

    .. math::
        I = \sum_{abc} v_{abc} \, r_a s_b t_c, \qquad
        \frac{\partial I}{\partial u_1} = \sum_{bc} (v_{1bc} - v_{0bc}) \, s_b t_c, \qquad r_1 = r, \; r_0 = 1 - r,

    and alike along the other axes; zero where the position was clamped. At voxel centers, as under no displacement,
    every second voxel along an axis takes the slope on its upper side and the others that on their lower one, so that
    no direction is preferred. The values are those of
    :func:`~monai_regplugins.fields.warp`. No gradient flows to the image.

    Args:
        image: ``(1, 1, *spatial)``, 2D or 3D, float32 or float64.
        padding: what lies outside, ``"zeros"`` or ``"border"``.

    Raises:
        InputError: ``padding`` is unknown.

    Example:
        >>> image = torch.arange(5.0).view(1, 1, 1, 5)
        >>> SampledImage(image)(torch.tensor([0.0, 1.0]).view(1, 2, 1, 1).expand(1, 2, 1, 5))
        tensor([[[[1., 2., 3., 4., 0.]]]])
    """

    def __init__(self, image: Tensor, padding: str = "zeros") -> None:
        check_choice(padding, ("zeros", "border"), "padding")
        self.sizes = list(image.shape[2:])
        # so many voxels around the image that the outermost cells are flat: clamped positions have no slope
        self.margin, mode = (2, "constant") if padding == "zeros" else (1, "replicate")
        padded = functional.pad(image.detach(), [self.margin] * (2 * len(self.sizes)), mode=mode)
        self.strides = [math.prod(padded.shape[axis + 1 :]) for axis in range(2, padded.ndim)]
        self.voxels = padded.flatten()

    def __call__(self, ddf: Tensor) -> Tensor:
        """Return the image under a field ``(1, d, *spatial)``, ``(1, 1, *spatial)``."""
        return with_gradient(self.sample, ddf)

    def sample(self, ddf: Tensor) -> tuple[Tensor, Tensor]:
        """Return the values ``(1, 1, *spatial)``, and their derivatives by the field ``(1, d, *spatial)``."""
        values, slopes = torch.empty_like(ddf[:, :1]), torch.empty_like(ddf)
        for slab in fields.slabs(ddf.shape[2:]):
            value, *slope = _values_and_slopes(*self._cells(ddf[0, :, slab], slab.start))
            values[0, 0, slab] = value
            for axis, derivative in enumerate(reversed(slope)):
                slopes[0, axis, slab] = derivative
        return values, slopes

    def _cells(self, ddf: Tensor, start: int) -> tuple[list[Tensor], list[Tensor]]:
        """The values at the corners of the cells that positions lie in, and the fractions of the positions there."""
        fractions, index = list[Tensor](), torch.zeros((), dtype=torch.int32, device=ddf.device)
        for axis, (component, size, stride) in enumerate(zip(ddf, self.sizes, self.strides, strict=True)):
            shape = [-1 if k == axis else 1 for k in range(len(self.sizes))]
            first = self.margin + (start if axis == 0 else 0)
            x = torch.arange(first, first + component.shape[axis], dtype=ddf.dtype, device=ddf.device).view(shape)
            position = (component + x).clamp_(0, size - 1 + 2 * self.margin)
            side = SIDE * torch.finfo(x.dtype).eps * (2 * (x % 2) - 1)
            low = (position + side).floor_().clamp_(0, size - 2 + 2 * self.margin)
            fractions.append(position.sub_(low))
            index = index + low.to(torch.int32).mul_(stride)
        steps = [sum(step) for step in product(*((0, stride) for stride in self.strides))]
        flat = index.flatten()
        return [self.voxels[step:].index_select(0, flat).view(index.shape) for step in steps], fractions


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
