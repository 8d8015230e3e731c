"""The loss of instance optimization on images of any size, slab by slab, in a memory that does not grow with them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from monai_regplugins import fields
from monai_regplugins.checks import InputError
from monai_regplugins.losses.axis_products import along_axes, used_columns
from monai_regplugins.losses.drivers import Driver
from monai_regplugins.losses.instance import SMALLEST_EXTENT, InstanceLoss, SquaredDifference, WeightedImage
from monai_regplugins.losses.local_correlation import LocalCorrelation
from monai_regplugins.losses.roughness import (
    Bending,
    Roughness,
    bending_along,
    bending_scale,
    edge_weights,
    plain_weights,
)

__all__ = ["SlabLoss"]

SLAB_VOXELS = 2**19  # of a slab: some thirty arrays of this size are held at a time


class _Slab(NamedTuple):
    """Rows of the first axis: those whose share of the loss is computed, and those that it depends on."""

    core: slice
    rows: slice

    @property
    def inner(self) -> slice:
        """The core within the rows."""
        return slice(self.core.start - self.rows.start, self.core.stop - self.rows.start)


class _Sums(NamedTuple):
    """Shares of a slab: sum and number of the similarity, sum of the other terms."""

    similarity: Tensor
    number: Tensor
    others: Tensor


class _Slopes(NamedTuple):
    """Derivatives of a slab's sums by its rows of the field, as large as these."""

    similarity: Tensor
    others: Tensor


class SlabLoss:
    r"""The loss of :meth:`InstanceLoss.of_pair` and of drivers, to rounding, with the gradient by coarser nodes.

    Similarity and smoothness are sums over windows and edges, so that the sum over slabs of the first axis is exact:

    .. math::
        L = -\lambda_s \frac{\sum_k S_k}{\sum_k N_k} + \lambda_r \sum_k R_k, \qquad
        \frac{\partial L}{\partial v} = W^T \frac{\partial L}{\partial u}.

    Args:
        loss: with the similarity ``lncc`` or ``mse``, the smoothness ``edges_l2`` or ``l2``, and no folding.
        moving: the moving image.
        fixed: the fixed image, on the same grid.
        padding: what lies outside of the moving image, ``zeros`` or ``border``.
        voxels: of a slab, most, with its neighborhood on top; by default half a million, but so many rows at least
            that these are more than their neighbors, which are computed twice.
        drivers: further terms.

    Raises:
        InputError: the loss has a term that does not come in slabs.

    Example:
        >>> pair = [WeightedImage(image) for image in torch.rand(2, 1, 1, 12, 12)]
        >>> still = torch.zeros(1, 2, 12, 12)
        >>> torch.allclose(SlabLoss(InstanceLoss(), *pair, voxels=48)(still), InstanceLoss().of_pair(*pair)(still))
        True
    """

    def __init__(
        self,
        loss: InstanceLoss,
        moving: WeightedImage,
        fixed: WeightedImage,
        padding: str = "zeros",
        voxels: int | None = None,
        drivers: Sequence[Driver] = (),
    ) -> None:
        if fixed.image.shape[1] > 1:
            raise InputError(
                f"images of {fixed.image.shape[1]} channels cannot be computed in slabs, expected one; leave out full "
                "resolution, or give one channel."
            )
        if not self.takes(loss):
            raise InputError(
                f"similarity '{loss.similarity}' and smoothness '{loss.smoothness}' with a folding weight of "
                f"{loss.weights['folding']} cannot be computed in slabs, expected 'lncc' or 'mse', and 'edges_l2' or "
                "'l2' without a folding weight; or leave out full resolution."
            )
        self.loss, self.fixed = loss, fixed
        self.reach = loss.window // 2 + 1  # rows that a slab depends on, on either side
        self.voxels = voxels or max(SLAB_VOXELS, 3 * self.reach * math.prod(fixed.image.shape[3:]))
        self.drivers = drivers
        self.image = loss.sampled(moving, padding)

    @staticmethod
    def takes(loss: InstanceLoss) -> bool:
        """Whether all terms of a loss come in slabs."""
        folds = loss.weights["folding"] > 0
        return loss.similarity in ("lncc", "mse") and loss.smoothness in ("edges_l2", "l2") and not folds

    def __call__(self, ddf: Tensor) -> Tensor:
        """Return the loss of a field ``(1, d, *spatial)``."""
        return self._value([self._shares(slab, ddf[:, :, slab.rows])[0] for slab in self._slabs()])

    def of_nodes(
        self, start: Callable[[slice], Tensor], weights: Sequence[Tensor]
    ) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        """Return a function of nodes ``(1, d, *nodes)``: the loss of ``start + W nodes`` and its gradient.

        Args:
            start: returns some rows of the first axis of a field, ``(1, d, rows, ...)``.
            weights: W along each axis, ``(voxels, nodes)``.
        """

        def value_and_gradient(nodes: Tensor) -> tuple[Tensor, Tensor]:
            by_similarity, by_others, sums = torch.zeros_like(nodes), torch.zeros_like(nodes), []
            for slab in self._slabs():
                columns = used_columns(weights[0][slab.rows])
                near = [weights[0][slab.rows, columns], *weights[1:]]
                share, slopes = self._shares(slab, start(slab.rows) + along_axes(nodes[:, :, columns], near))
                back = [weight.T for weight in near]
                by_similarity[:, :, columns] += along_axes(slopes.similarity, back)
                by_others[:, :, columns] += along_axes(slopes.others, back)
                sums.append(share)
            factor = -self.loss.weights["similarity"] / _number(sums)
            return self._value(sums), by_similarity.mul_(factor).add_(by_others)

        return value_and_gradient

    def _slabs(self) -> Iterator[_Slab]:
        """The slabs; rows begin at a window, so that these are the same as those of the whole image."""
        size = self.fixed.image.shape[2:]
        for core in fields.slabs(size, self.voxels):
            first = max(0, core.start - self.reach) // self.loss.stride * self.loss.stride
            yield _Slab(core, slice(first, min(size[0], core.stop + self.reach)))

    def _value(self, sums: Sequence[_Sums]) -> Tensor:
        """The loss from the shares of all slabs."""
        similarity = torch.stack([share.similarity for share in sums]).sum()
        others = torch.stack([share.others for share in sums]).sum()
        return others - self.loss.weights["similarity"] * similarity / _number(sums)

    def _shares(self, slab: _Slab, ddf: Tensor) -> tuple[_Sums, _Slopes]:
        """The shares of a slab at its rows of a field."""
        image, weights = self.fixed
        fixed = WeightedImage(image[:, :, slab.rows], None if weights is None else weights[:, :, slab.rows])
        values, slopes, seen = self.image.sample(ddf, slab.rows.start)
        core = torch.zeros_like(values)
        core[:, :, slab.inner] = 1
        similarity, number, gradient = self._similarity(fixed, core).sums(values, seen)
        others, by_others = self._smoothness(fixed, slab.inner, ddf)
        if self.loss.weights["bending"]:
            value, slope = self._bending(fixed.weights, slab.inner, ddf)
            others += value
            by_others += slope
        for driver in self.drivers:
            value, slope = driver.sums(ddf[:, :, slab.inner], slab.core.start)
            others += value
            by_others[:, :, slab.inner] += slope
        return _Sums(similarity, number, others), _Slopes(slopes.mul_(gradient), by_others)

    def _similarity(self, fixed: WeightedImage, core: Tensor) -> LocalCorrelation | SquaredDifference:
        """The similarity of a slab: its own windows or voxels count, those of its neighborhood are only seen."""
        if self.loss.similarity == "mse":
            weights = core if fixed.weights is None else core * fixed.weights
            return SquaredDifference(WeightedImage(fixed.image, weights))
        centers = core if self.loss.threshold is None else core * (fixed.image > self.loss.threshold)
        return LocalCorrelation(fixed.image, self.loss.window, fixed.weights, centers, self.loss.stride)

    def _smoothness(self, fixed: WeightedImage, inner: slice, ddf: Tensor) -> tuple[Tensor, Tensor]:
        """The weighted differences that begin in a slab, and their derivative."""
        first, across = self._differences(fixed, inner)
        total, gradient = ddf.new_zeros(()), torch.zeros_like(ddf)
        to_next = slice(inner.start, inner.stop + 1)  # differences along the first axis end in the next slab
        for rows, weights in ((to_next, [first, *[0.0] * len(across)]), (inner, [0.0, *across])):
            value, slope = Roughness(weights).value_and_gradient(ddf[:, :, rows])
            total += value
            gradient[:, :, rows] += slope
        return total, gradient

    def _bending(self, weights: Tensor | None, inner: slice, ddf: Tensor) -> tuple[Tensor, Tensor]:
        """The second differences about the voxels of a slab, and their derivative."""
        scale = self.loss.weights["bending"] * bending_scale(self.fixed.image.shape[2:])
        total, gradient = ddf.new_zeros(()), torch.zeros_like(ddf)
        about = slice(max(0, inner.start - 1), inner.stop + 1)
        for rows, axes in ((about, [2]), (inner, range(3, ddf.ndim))):
            near = None if weights is None else weights[:, :, rows]
            along = [bending_along(axis, scale, near) if axis in axes else 0.0 for axis in range(2, ddf.ndim)]
            value, slope = Bending(along).value_and_gradient(ddf[:, :, rows])
            total += value
            gradient[:, :, rows] += slope
        return total, gradient

    def _differences(self, fixed: WeightedImage, inner: slice) -> tuple[Tensor | float, list[Tensor | float]]:
        """The weights of the differences along the first axis, and along the others."""
        size, weight = self.fixed.image.shape[2:], self.loss.weights["smoothness"]
        if self.loss.smoothness == "l2":
            plain = [weight * w for w in plain_weights(size)]
            return plain[0], list(plain[1:])
        g = edge_weights(*fixed) * (weight / size.numel())
        own = g[:, :, inner]
        across = [own.narrow(axis, 1, own.shape[axis] - 1) for axis in range(3, own.ndim)]
        return g[:, :, inner.start + 1 : inner.stop + 1], list(across)


def _number(sums: Sequence[_Sums]) -> Tensor:
    """How much was compared."""
    return torch.stack([share.number for share in sums]).sum().clamp_min(SMALLEST_EXTENT)
