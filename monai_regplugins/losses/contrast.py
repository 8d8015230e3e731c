"""The intensities of one image in the contrast of another."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["ContrastMap"]

KNOTS = 128
STIFFNESS = 1.0  # voxels that a unit second difference of the knots is worth
OUTLIERS = 1e-3  # of the voxels at each end of the range, which is not to be spent on them


@dataclass(frozen=True)
class ContrastMap:
    r"""A piecewise linear map of intensities, the regression of one image on another.

    With hat functions :math:`\phi_k` on equally spaced knots of the intensities of I and the weights w of the voxels,

    .. math::
        g = \sum_k c_k \phi_k, \qquad c = \arg\min_c \sum_x w(x) \, \big(J(x) - g(I(x))\big)^2
        + \lambda \sum_k (c_{k+1} - 2 c_k + c_{k-1})^2,

    a P-spline of degree one (Eilers and Marx 1996, Stat. Sci. 11, 89): the conditional mean of J where voxels are many,
    a straight line where they are few. The map need not be monotonic.

    Attributes:
        low: intensity of the first knot; below it the map is constant, as beyond the last knot.
        width: distance of the knots.
        levels: c, ``(knots,)``.

    Example:
        >>> image = torch.linspace(0, 1, 5000)
        >>> found = ContrastMap.fitted(image, (image - 0.5) ** 2)
        >>> bool((found(image) - (image - 0.5) ** 2).abs().mean() < 1e-3)
        True
    """

    low: float
    width: float
    levels: Tensor

    @classmethod
    def fitted(cls, image: Tensor, target: Tensor, weights: Tensor | None = None) -> ContrastMap:
        """Fit the map from an image to another one.

        Args:
            image: I, any shape.
            target: J, the same shape.
            weights: w, the same shape, not all of them 0; ones by default.
        """
        w = torch.ones_like(image) if weights is None else weights
        x, y, w = (values.flatten().double() for values in (image, target, w))
        x, y, w = (values[w > 0] for values in (x, y, w))
        ordered = x.sort().values
        low, high = (float(ordered[int(at * (len(x) - 1))]) for at in (OUTLIERS, 1 - OUTLIERS))
        width = max((high - low) / (KNOTS - 1), torch.finfo(torch.float32).eps)
        return cls(low, width, _fitted_levels(*_hats(x, low, width), y, w / w.mean()).to(image.dtype))

    def __call__(self, image: Tensor) -> Tensor:
        """Return the mapped image."""
        first, share = _hats(image, self.low, self.width)
        return torch.lerp(self.levels[first], self.levels[first + 1], share)


def _hats(image: Tensor, low: float, width: float) -> tuple[Tensor, Tensor]:
    """The knot below each intensity, and the share of the one above."""
    place = ((image - low) / width).clamp_(0, KNOTS - 1)
    first = place.floor().clamp_(max=KNOTS - 2)
    return first.long(), place - first


def _fitted_levels(first: Tensor, share: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Solve the normal equations, whose matrix is a banded one."""
    low, high = weights * (1 - share), weights * share
    diagonal = torch.bincount(first, low * (1 - share), KNOTS) + torch.bincount(first + 1, high * share, KNOTS)
    beside = torch.bincount(first, low * share, KNOTS)[:-1]
    right = torch.bincount(first, low * target, KNOTS) + torch.bincount(first + 1, high * target, KNOTS)
    bends = torch.eye(KNOTS, dtype=target.dtype, device=target.device).diff(n=2, dim=0)
    normal = torch.diag(diagonal) + torch.diag(beside, 1) + torch.diag(beside, -1) + STIFFNESS * bends.T @ bends
    normal += 1e-9 * torch.eye(KNOTS, dtype=target.dtype, device=target.device)  # an image of one value
    levels: Tensor = torch.linalg.solve(normal, right)
    return levels
