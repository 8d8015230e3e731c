"""Local correlation with one fixed image and its closed-form gradient; window statistics are computed once."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from monai_regplugins.losses.axis_products import along_axes, box_matrix
from monai_regplugins.losses.with_gradient import with_gradient

__all__ = ["LocalCorrelation"]

SMALLEST_EXTENT = 1e-12  # of the windows that count: less is none
ROUNDING = 32  # times the spacing of floating-point numbers: the error of the sums over a window


class _Moments(NamedTuple):
    """Of an image in each window: sum of the weights, mean, sum of squared differences from the mean."""

    number: Tensor
    mean: Tensor
    variance: Tensor


class LocalCorrelation:
    r"""Minus the squared local correlation of images with one fixed image, with weights inside of the windows.

    Weights w say which voxels are seen, centers m which windows count. With sums over the window around y,

    .. math::
        n = \sum w, \quad
        a = \sum w I J - \frac{\sum w I \sum w J}{n}, \quad
        b = \sum w I^2 - \frac{(\sum w I)^2}{n}, \quad
        c = \sum w J^2 - \frac{(\sum w J)^2}{n}, \quad
        L = -\frac{\sum_y m_y \, a^2 / (b c + \epsilon)}{\sum_y m_y},

    which is :class:`~monai_regplugins.losses.MaskedLNCCLoss` where all weights are one. The gradient is

    .. math::
        \frac{\partial L}{\partial I(x)} = -\frac{w(x)}{\sum_y m_y} \sum_{y \ni x} m_y \Big[
        \frac{2 a}{b c + \epsilon} \Big(J(x) - \frac{\sum w J}{n}\Big) -
        \frac{2 a^2 c}{(b c + \epsilon)^2} \Big(I(x) - \frac{\sum w I}{n}\Big) \Big],

    zero where w is, and where no window that counts sees the voxel: three more sums over windows.

    Args:
        fixed: J, ``(1, 1, *spatial)``, float32 or float64.
        window: edge length of the windows in voxels.
        weights: w, ``(1, 1, *spatial)``, from 0 to 1; ones by default.
        centers: m, the same shape, beside the weights: a window counts m times w at its center.
        stride: voxels from window to window along each axis; 2 leaves out seven of eight in 3D.
        eps: added to the product of the two sums of squares; suits intensities in [0, 1].

    Example:
        >>> image = torch.rand(1, 1, 16, 16)
        >>> bool(LocalCorrelation(image, 5)(0.5 * image + 0.2) < -0.99)  # gain and offset do not matter
        True
    """

    def __init__(
        self,
        fixed: Tensor,
        window: int,
        weights: Tensor | None = None,
        centers: Tensor | None = None,
        stride: int = 1,
        eps: float = 1e-5,
    ) -> None:
        self.eps = eps
        self._at: tuple[Any, ...] = (..., *[slice((stride - 1) // 2, None, stride)] * (fixed.ndim - 2))
        self.boxes = [box_matrix(n, window, stride, fixed) for n in fixed.shape[2:]]
        self.weights = torch.ones_like(fixed) if weights is None else weights.to(fixed.dtype)
        self.centers = self._at_centers(torch.ones_like(fixed) if centers is None else centers.to(fixed.dtype))
        self.fixed = _centered(fixed, self.weights)
        self._moments = self._fixed_moments(self.weights)

    def __call__(self, warped: Tensor, seen: Tensor | None = None) -> Tensor:
        """Return the loss, a scalar in [-1, 0]; 0 where nothing counts.

        Args:
            warped: I, ``(1, 1, *spatial)``.
            seen: further weights, such as those of the warped mask of the moving image; no gradient flows to them.
        """
        return with_gradient(partial(self.value_and_gradient, seen=seen), warped)

    def value_and_gradient(self, warped: Tensor, seen: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the loss and its gradient, of the shape of ``warped``."""
        total, number, gradient = self.sums(warped, seen)
        number = number.clamp_min(SMALLEST_EXTENT)
        return -total / number, gradient.div_(-number)

    def sums(self, warped: Tensor, seen: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return the sum of the correlations, that of the windows that count, and the gradient of the former."""
        weights = self.weights if seen is None else self.weights * seen
        fixed = self._moments if seen is None else self._fixed_moments(weights)
        image = _centered(warped, weights)
        weighted = image * weights
        sum_i = self._sums(weighted)
        a = self._sums(weighted * self.fixed) - sum_i * fixed.mean
        b = _variance(self._sums(weighted * image), sum_i, fixed.number)
        scale = ((b > 0) & (fixed.variance > 0)) / (b * fixed.variance + self.eps)
        counted = self.centers * self._at_centers(weights)
        of_fixed = a * scale  # half of the derivative by a
        of_image = of_fixed * of_fixed * fixed.variance  # and minus half of that by b, times two
        correlations = (counted * a * of_fixed).sum()
        factor = counted * 2
        constant = of_image * sum_i / fixed.number - of_fixed * fixed.mean
        gradient = self._spread(factor * of_fixed) * self.fixed
        gradient -= self._spread(factor * of_image) * image
        gradient += self._spread(factor * constant)
        return correlations, counted.sum(), gradient.mul_(weights)

    def _fixed_moments(self, weights: Tensor) -> _Moments:
        """Number, mean and sum of squares of the fixed image in each window."""
        count = self._sums(weights).clamp_min_(1e-6)
        weighted = self.fixed * weights
        total = self._sums(weighted)
        variance = _variance(self._sums(weighted * self.fixed), total, count)
        return _Moments(count, total / count, variance)

    def _sums(self, values: Tensor) -> Tensor:
        """Sums over the windows."""
        return along_axes(values, self.boxes)

    def _spread(self, values: Tensor) -> Tensor:
        """For each voxel the sum over the windows that see it."""
        return along_axes(values, [box.T for box in self.boxes])

    def _at_centers(self, values: Tensor) -> Tensor:
        """The values at the centers of the windows."""
        return values[self._at]


def _centered(image: Tensor, weights: Tensor) -> Tensor:
    """Subtract the mean: the correlation is invariant to it, and differences of large sums lose fewer digits."""
    mean: Tensor = (image * weights).sum() / weights.sum().clamp_min(1e-12)
    return image - mean


def _variance(squares: Tensor, total: Tensor, number: Tensor) -> Tensor:
    """Sums of squared differences from the mean; zero for flat windows, where all digits are those of the rounding."""
    variance = squares - total * total / number
    return torch.where(variance > ROUNDING * torch.finfo(squares.dtype).eps * squares, variance, 0)
