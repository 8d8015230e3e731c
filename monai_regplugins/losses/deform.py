"""Regularity of a displacement field: smoothness, edge-aware or plain, total variation, and folding."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from monai_regplugins import fields
from monai_regplugins.checks import InputError, check_choice, check_minimum_size
from monai_regplugins.losses.numerics import at_least_float32, check_spatial_match
from monai_regplugins.losses.with_gradient import with_gradient

__all__ = ["EdgeAwareSmoothnessLoss", "FoldingLoss", "GradientLoss", "IsotropicTVLoss", "isotropic_tv"]

EDGE_SCALES = {"l1": 25.0, "l2": 1.0}  # published, by the form; 25 for the abdomen


class EdgeAwareSmoothnessLoss(nn.Module):
    r"""Edge-aware smoothness of the ddf: lower weight at edges of the fixed image, where organs slide.

    ``form="l2"`` is the RAN paper's (Zheng et al. 2022, Eq. 13) with a mean over voxels,

    .. math::
        L = \frac{1}{|\Omega|} \sum_x \| \nabla\phi(x) \, e^{-s \|\nabla I(x)\|^2} \|^2,

    and ``form="l1"`` what the authors' code computes, gradients relative to the intensity and no squares,

    .. math::
        L = \frac{1}{d} \sum_k \mathrm{mean} \, |\partial_k\phi| \, g, \qquad
        g = \exp\Big(-s \sum_k \frac{(\partial_k I)^2}{(0.2 + I)^2}\Big).

    Differences are backward, in voxels, and zero at the first index of their axis. Intensities are in [0, 1]. The
    authors add 80 times the mean excess of the displacement of the central voxel over the image size, a guard against
    divergence which is zero in any sane training and left out here.

    Args:
        form: "l1" or "l2".
        edge_scale: s; None is the published one, 25 for "l1" (abdomen; the lung takes 9) and 1 for "l2".

    Raises:
        InputError: ``form`` is unknown or ``edge_scale`` is negative.

    Example:
        >>> EdgeAwareSmoothnessLoss()(torch.ones(1, 2, 8, 8), torch.rand(1, 1, 8, 8))  # no gradient
        tensor(0.)
    """

    def __init__(self, form: str = "l1", edge_scale: float | None = None) -> None:
        super().__init__()
        check_choice(form, ("l1", "l2"), "form")
        scale = EDGE_SCALES[form] if edge_scale is None else edge_scale
        if not scale >= 0:
            raise InputError(f"edge_scale is {scale}, expected zero or more; zero ignores the edges.")
        self.form = form
        self.edge_scale = scale

    def forward(self, ddf: torch.Tensor, fixed: torch.Tensor) -> torch.Tensor:
        """Return the loss, a scalar, for a ddf ``(B, d, *spatial)`` in voxels and a fixed image ``(B, 1, *spatial)``.

        Raises:
            InputError: the sizes do not match.
        """
        check_spatial_match(ddf, fixed, "ddf", "fixed")
        phi, image = at_least_float32(ddf), at_least_float32(fixed)
        axes = range(2, phi.ndim)
        edges = sum((_backward_difference(image, axis).square() for axis in axes), torch.zeros_like(image))
        if self.form == "l1":
            g = torch.exp(-self.edge_scale * edges / (0.2 + image).square())
            return torch.stack([(_backward_difference(phi, axis).abs() * g).mean() for axis in axes]).mean()
        g = torch.exp(-2 * self.edge_scale * edges)  # the weight sits inside the square
        # Over the components a norm, hence a sum: the mean over voxels and components times d.
        return torch.stack([(_backward_difference(phi, axis).square() * g).mean() for axis in axes]).sum() * len(axes)


class GradientLoss(nn.Module):
    r"""Uniform smoothness of the ddf by forward differences.

    .. math::
        L = \frac{1}{d} \sum_k \mathrm{mean} \, |\phi(x + e_k) - \phi(x)|^p

    over the voxels that have a neighbor and over the components. ``power=2`` is the regularization of the RAN paper's
    supplement (suppl. Eq. 11, up to the constant factor between its sums and these means), ``power=1``
    that of the authors' code.

    Args:
        power: p, 1 or 2.

    Raises:
        InputError: ``power`` is neither.

    Example:
        >>> ramp = torch.arange(4.0).view(1, 1, 1, 4).expand(1, 2, 4, 4)  # grows by 1 a voxel along one of two axes
        >>> GradientLoss()(ramp)
        tensor(0.5000)
    """

    def __init__(self, power: int = 2) -> None:
        super().__init__()
        if power not in (1, 2):
            raise InputError(f"power is {power}, expected 1 (absolute differences) or 2 (squared ones).")
        self.power = power

    def forward(self, ddf: torch.Tensor) -> torch.Tensor:
        """Return the loss, a scalar, for a ddf ``(B, d, *spatial)`` in voxels, at least 2 along each axis."""
        phi = at_least_float32(ddf)
        steps = [phi.diff(dim=axis) for axis in range(2, phi.ndim)]
        return torch.stack([(s.abs() if self.power == 1 else s.square()).mean() for s in steps]).mean()


class IsotropicTVLoss(nn.Module):
    r"""Isotropic total variation of the ddf, which penalizes a jump no more than a ramp.

    .. math::
        L = \operatorname{mean} \sqrt{\textstyle\sum_k (f(x) - f(x - e_k))^2}

    over the voxels that have a neighbor below on every axis and over the components, which are not coupled: the
    regularizer R of R2N2 (Sandkühler et al. 2019, Eq. 6) as the authors' code computes it. There f is normalized, an
    axis reaching from -1 to 1, but the differences are per voxel. That makes values small, and smaller on finer grids.

    Args:
        normalized: take f in halves of each axis (R2N2); False takes it in voxels, which no resolution changes.

    Example:
        >>> ramp = torch.arange(4.0).view(1, 1, 1, 4).expand(1, 2, 4, 4)
        >>> IsotropicTVLoss(normalized=False)(ramp)
        tensor(1.)
    """

    def __init__(self, normalized: bool = True) -> None:
        super().__init__()
        self.normalized = normalized

    def forward(self, ddf: torch.Tensor) -> torch.Tensor:
        """Return the loss, a scalar, for a ddf ``(B, d, *spatial)`` in voxels with at least 2 voxels along each axis.

        Raises:
            InputError: an axis is shorter.
        """
        return isotropic_tv(ddf, self.normalized).mean()


def isotropic_tv(ddf: torch.Tensor, normalized: bool = True) -> torch.Tensor:
    """Total variation of each field as in :class:`IsotropicTVLoss`, ``(B,)``, finite gradients where nothing changes.

    Raises:
        InputError: an axis of ``ddf``, ``(B, d, *spatial)``, is shorter than 2 voxels.
    """
    check_minimum_size(ddf.shape[2:], 2, "ddf")
    f = at_least_float32(ddf)
    squares = torch.stack([_inner_difference(f, axis).square() for axis in range(2, f.ndim)]).sum(0)
    rises = squares > 0
    # a root of one where there is no change: the root of zero has an infinite slope, and times zero that is NaN
    lengths = torch.where(rises, torch.where(rises, squares, 1.0).sqrt(), 0.0).flatten(2).mean(2)
    units = [(n - 1) / 2 if normalized else 1.0 for n in f.shape[2:]]  # voxels per half of an axis
    return (lengths / lengths.new_tensor(units)).mean(1)


class FoldingLoss(nn.Module):
    r"""Penalty on voxels whose Jacobian determinant of ``x + u(x)`` lies below a margin.

    .. math::
        L = \operatorname{mean} \max(0, m - \det J)

    with J by central differences, as :func:`~monai_regplugins.metrics.folding` counts them; for m = 0 the selective
    Jacobian determinant regularization of Mok and Chung 2020 (CVPR, "Fast Symmetric Diffeomorphic Image Registration
    with Convolutional Neural Networks"). With a margin, gradients come before the field folds.

    Args:
        margin: m, the determinant from which on compression costs; below 1, the determinant of the identity.

    Raises:
        InputError: ``margin`` is not from 0 to below 1.

    Example:
        >>> FoldingLoss()(torch.zeros(1, 2, 8, 8))  # det J is 1 everywhere
        tensor(0.)
    """

    def __init__(self, margin: float = 0.1) -> None:
        super().__init__()
        if not 0 <= margin < 1:
            raise InputError(f"margin is {margin}, expected a determinant from 0 to below 1, such as 0.1.")
        self.margin = margin

    def forward(self, ddf: torch.Tensor) -> torch.Tensor:
        """Return the loss, a scalar, for a ddf ``(B, d, *spatial)`` in voxels with at least 2 voxels along each axis.

        Raises:
            InputError: an axis is shorter.
        """
        u = at_least_float32(ddf)
        check_minimum_size(u.shape[2:], 2, "ddf")
        needs_gradient = u.requires_grad and torch.is_grad_enabled()
        return with_gradient(partial(_folding, margin=self.margin, needs_gradient=needs_gradient), u)


def _folding(ddf: torch.Tensor, margin: float, needs_gradient: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
    """:class:`FoldingLoss` in slabs, and its gradient in closed form, made at the compressed voxels alone."""
    total, gradient = ddf.new_zeros(()), torch.zeros_like(ddf) if needs_gradient else None
    length, voxels = ddf.shape[2], len(ddf) * ddf.shape[2:].numel()
    with torch.no_grad():
        for slab in fields.slabs(ddf.shape[2:]):
            reach = slice(max(slab.start - 1, 0), min(slab.stop + 1, length))  # of the differences
            jacobian = fields.jacobian(ddf[:, :, reach])[:, :, :, slab.start - reach.start : slab.stop - reach.start]
            excess = margin - fields.determinant_of(jacobian)
            compressed = excess > 0
            if bool(compressed.any()):
                total += excess[compressed].sum() / voxels
                if gradient is not None:
                    there = jacobian.movedim((1, 2), (-2, -1))[compressed]
                    batch, *index = compressed.nonzero().unbind(1)
                    index[0] += slab.start
                    _add_excess_gradient(gradient, -_cofactors(there) / voxels, batch, index)
    return total, gradient


def _cofactors(matrices: torch.Tensor) -> torch.Tensor:
    """Derivatives of the determinants of ``(N, d, d)`` by their entries."""
    if matrices.shape[1] == 2:
        return matrices.flip(1, 2) * matrices.new_tensor([[1.0, -1.0], [-1.0, 1.0]])
    rows = matrices.unbind(1)
    return torch.stack([torch.linalg.cross(rows[k - 2], rows[k - 1]) for k in range(3)], dim=1)


def _add_excess_gradient(
    gradient: torch.Tensor, slopes: torch.Tensor, batch: torch.Tensor, index: list[torch.Tensor]
) -> None:
    """Add to a gradient ``(B, d, *spatial)`` what the entries ``(N, d, d)`` of Jacobians at voxels contribute.

    The derivative along an axis is the difference of the two neighbors, at the border of the voxel and its neighbor.
    """
    for axis in range(slopes.shape[2]):
        after, before = (index[axis] + 1).clamp(max=gradient.shape[2 + axis] - 1), (index[axis] - 1).clamp(min=0)
        slope = slopes[:, :, axis] / (after - before)[:, None]
        for places, sign in ((after, 1), (before, -1)):
            voxel = [places if k == axis else index[k] for k in range(len(index))]
            gradient.movedim(1, -1).index_put_((batch, *voxel), sign * slope, accumulate=True)


def _backward_difference(values: torch.Tensor, axis: int) -> torch.Tensor:
    """Return values(x) - values(x - 1) along one axis, zero at its first index, the same shape."""
    return values.diff(dim=axis, prepend=values.narrow(axis, 0, 1))


def _inner_difference(values: torch.Tensor, axis: int) -> torch.Tensor:
    """Return values(x) - values(x - 1) along one axis, at the voxels that have a neighbor below on every axis."""
    steps = values.diff(dim=axis)
    for other in range(2, values.ndim):
        steps = steps if other == axis else steps.narrow(other, 1, values.shape[other] - 1)
    return steps
