"""Normalized mutual information with one fixed image, and its closed-form gradient."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from monai_regplugins.checks import InputError
from monai_regplugins.losses.with_gradient import with_gradient

__all__ = ["Entropies", "MutualInformation"]

MARGIN = 2  # bins beyond the range of the intensities: those that a cubic B-spline reaches
TINY = 1e-12  # of a probability


class Entropies(NamedTuple):
    """Entropies in nats of the fixed image, of the moving image, and of both together.

    Example:
        >>> Entropies(*torch.tensor([1.0, 1.0, 1.5])).normalized_information()
        tensor(1.3333)
    """

    fixed: Tensor
    moving: Tensor
    joint: Tensor

    def normalized_information(self) -> Tensor:
        """From 1, independent, to 2."""
        return (self.fixed + self.moving) / self.joint.clamp_min(TINY)


class _Parzen(NamedTuple):
    """The first of four neighboring bins of each voxel, and the weights of the bins and their derivatives."""

    first: Tensor
    weights: list[Tensor]
    slopes: list[Tensor]


class MutualInformation:
    r"""One minus the normalized mutual information of images with one fixed image (Studholme et al. 1999).

    .. math::
        p(f, m) = \frac{1}{\sum w} \sum_x w(x) \, [f = b(J(x))] \, \beta^3(m - t(I(x))), \qquad
        S = \frac{H_J + H_I}{H_{JI}}, \qquad L = 1 - S,

    with the bin b of the fixed image J, the place t of the intensity of I on the axis of the bins, the cubic B-spline
    :math:`\beta^3`, and entropies H of p and its marginals. Histograms are those of Mattes et al. 2003 (IEEE TMI 22,
    120), as in ITK. The gradient is

    .. math::
        \frac{\partial L}{\partial I(x)} = \frac{w(x) \, t'}{\sum w \, H_{JI}} \sum_m
        \big(S \log p(b(J(x)), m) - \log p(m)\big) \, \dot\beta^3(m - t(I(x))),

    zero where w is, and where intensities leave the range.

    Args:
        fixed: J, ``(1, 1, *spatial)``, float32 or float64.
        moving: the image whose range the bins cover, ``(1, 1, *spatial)``.
        weights: w, ``(1, 1, *spatial)``, from 0 to 1; ones by default.
        counts: the voxels of the moving image that count, bool of the same shape; all by default.
        bins: of both images, at least 6, two of them on each side beyond the range.

    Raises:
        InputError: there are fewer bins.

    Example:
        >>> image = torch.rand(1, 1, 64, 64)
        >>> loss = MutualInformation(image, image)
        >>> bool(loss(image) < loss(image.flip(2)))
        True
    """

    def __init__(
        self,
        fixed: Tensor,
        moving: Tensor,
        weights: Tensor | None = None,
        counts: Tensor | None = None,
        bins: int = 32,
    ) -> None:
        if bins < 2 * MARGIN + 2:
            raise InputError(f"bins is {bins}, expected at least {2 * MARGIN + 2}; 32 is the default.")
        self.bins = bins
        self.weights = torch.ones_like(fixed) if weights is None else weights.to(fixed.dtype)
        low, width = _range_of_bins(fixed, self.weights > 0, bins)
        place = ((fixed.flatten() - low) / width + MARGIN).long()
        self.rows = place.clamp_(MARGIN, bins - MARGIN - 1) * bins
        self.low, self.width = _range_of_bins(moving, counts, bins)

    def __call__(self, warped: Tensor, seen: Tensor | None = None) -> Tensor:
        """Return the loss, a scalar in [-1, 0]; 0 where nothing counts.

        Args:
            warped: I, ``(1, 1, *spatial)``.
            seen: further weights, such as those of the warped mask of the moving image; no gradient flows to them.
        """
        return with_gradient(partial(self.value_and_gradient, seen=seen), warped)

    def value_and_gradient(self, warped: Tensor, seen: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the loss and its gradient, of the shape of ``warped``."""
        weights = self._all_weights(seen)
        parzen = self._parzen(warped)
        p = self._joint(parzen, weights)
        entropies = _entropies(p)
        information = entropies.normalized_information()
        by_p = _log(p.sum(dim=0)) - information * _log(p)  # a constant drops out: the slopes of a voxel add up to 0
        by_p = (by_p / (entropies.joint.clamp_min(TINY) * self.width)).flatten().to(warped.dtype)
        gradient = torch.zeros_like(weights)
        for k, slope in enumerate(parzen.slopes):
            gradient.addcmul_(by_p[self.rows + parzen.first + k], slope)
        gradient *= weights / weights.sum().clamp_min(TINY)
        found = entropies.joint > TINY
        loss = torch.where(found, 1 - information, 0).to(warped.dtype)
        return loss, (gradient * found).view(warped.shape)

    def entropies(self, warped: Tensor, seen: Tensor | None = None) -> Entropies:
        """Return the entropies in nats; the mutual information is the sum of the first two less the last."""
        return _entropies(self._joint(self._parzen(warped), self._all_weights(seen)))

    def _all_weights(self, seen: Tensor | None) -> Tensor:
        """The weights of both images, flat."""
        return (self.weights if seen is None else self.weights * seen).flatten()

    def _parzen(self, warped: Tensor) -> _Parzen:
        """How the voxels share their weights among the bins of the moving image."""
        place = (warped.flatten() - self.low) / self.width + MARGIN
        inside = (place >= MARGIN) & (place <= self.bins - MARGIN)
        place = place.clamp_(MARGIN, self.bins - MARGIN)
        low = place.floor().clamp_(max=self.bins - MARGIN - 1)
        u = place - low
        v, uu = 1 - u, u * u
        vv = v * v
        weights = [vv * v / 6, 2 / 3 - uu * (1 - u / 2), 2 / 3 - vv * (1 - v / 2), uu * u / 6]
        slopes = [-vv / 2, u * (1.5 * u - 2), v * (2 - 1.5 * v), uu / 2]
        return _Parzen(low.long().sub_(1), weights, [slope * inside for slope in slopes])

    def _joint(self, parzen: _Parzen, weights: Tensor) -> Tensor:
        """The joint distribution, ``(bins of fixed, bins of moving)``, in double precision."""
        counts = torch.zeros(self.bins**2, dtype=torch.float64, device=weights.device)
        for k, share in enumerate(parzen.weights):
            counts += torch.bincount(self.rows + parzen.first + k, (share * weights).double(), self.bins**2)
        return counts.view(self.bins, self.bins) / counts.sum().clamp_min(TINY)


def _range_of_bins(image: Tensor, counts: Tensor | None, bins: int) -> tuple[float, float]:
    """The lowest intensity that counts, and the width of the bins."""
    values = image if counts is None or not bool(counts.any()) else image[counts]
    low, high = float(values.min()), float(values.max())
    return low, max((high - low) / (bins - 2 * MARGIN), torch.finfo(image.dtype).eps)


def _entropies(p: Tensor) -> Entropies:
    """Of the marginals and of the joint distribution."""
    return Entropies(*(-(q * _log(q)).sum() for q in (p.sum(dim=1), p.sum(dim=0), p)))


def _log(p: Tensor) -> Tensor:
    """The logarithm; of 0, which is always multiplied by 0, that of a tiny number."""
    return p.clamp_min(TINY).log()
